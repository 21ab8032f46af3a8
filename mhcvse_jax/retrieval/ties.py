"""How a rank is counted. Arrays may be NumPy's or JAX's; higher is better.

A rank is counted, not sorted: 1 plus the wrong candidates that score no less than the right one, so ties count against
the model.

Deviation: CVSE sorts, so that a tie goes to whichever comes first; a model whose embeddings are all one scores 100.
"""

from typing import Any

import numpy as np


def num_ahead(right: Any, scores: Any, is_wrong: Any, axis: int = 1) -> Any:
    """Returns <int>[queries], how many wrong candidates score no less than the right one.

    Args:
      right: <float32>[queries, 1] or the like, the score of the right candidate.
      scores: <float32>[queries, candidates], or the other way round.
      is_wrong: <bool> of that shape, the candidates that count.
      axis: that of the candidates.
    """
    return (is_wrong & (scores >= right)).sum(axis=axis)


def best_ranks(scores: Any, is_right: Any, is_wrong: Any) -> Any:
    """Returns <int>[queries], the rank of the best of each query's right candidates; 0 where it has none.

    Args:
      scores: <float32>[queries, candidates].
      is_right: <bool>[queries, candidates].
      is_wrong: <bool>[queries, candidates]; what is neither does not count.
    """
    best = scores.max(axis=1, where=is_right, initial=-np.inf, keepdims=True)
    return is_right.any(axis=1) * (1 + num_ahead(best, scores, is_wrong))
