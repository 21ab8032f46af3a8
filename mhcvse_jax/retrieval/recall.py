"""Recall@K and other figures computed from ranks. Needs NumPy only."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Ranks(NamedTuple):
    """Ranks from 1; 0 for a picture without captions, which is no query."""

    i2t: np.ndarray  # <int32>[images], of the best of a picture's captions
    t2i: np.ndarray  # <int32>[texts]


class Recall(NamedTuple):
    """One direction of retrieval; recalls in percent, ranks from 1."""

    r1: float
    r5: float
    r10: float
    medr: float
    meanr: float


class Retrieval(NamedTuple):
    """Both directions: i2t finds captions for a picture, t2i the picture for a caption."""

    i2t: Recall
    t2i: Recall

    @property
    def rsum(self) -> float:
        """Sum of the six recalls, 600 at most."""
        return sum(self.i2t[:3]) + sum(self.t2i[:3])

    @property
    def mean_recall(self) -> float:
        """Mean of the six recalls (mR)."""
        return self.rsum / 6

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, rounded to what a recall of 5,000 queries can show."""
        return {
            "i2t": {name: round(value, 4) for name, value in self.i2t._asdict().items()},
            "t2i": {name: round(value, 4) for name, value in self.t2i._asdict().items()},
            "rsum": round(self.rsum, 4),
            "mean_recall": round(self.mean_recall, 4),
        }


def recall(ranks: np.ndarray) -> Recall:
    """Returns the recall of one direction.

    Args:
      ranks: <int>[queries] rank of each query's (best) match, from 1; 0 if it has no match and does not count.
    """
    ranks = np.asarray(ranks)
    ranks = ranks[ranks > 0]
    r1, r5, r10 = (float(100 * np.mean(ranks <= k)) for k in (1, 5, 10))
    # As the field counts it: the median of ranks from 0, rounded down, plus 1.
    return Recall(r1, r5, r10, medr=float(np.floor(np.median(ranks - 1)) + 1), meanr=float(np.mean(ranks)))


def mean_over_folds(folds: Sequence[Retrieval]) -> Retrieval:
    """Returns each figure's mean over the folds."""
    return Retrieval(*(Recall(*np.mean([fold[i] for fold in folds], axis=0).tolist()) for i in range(2)))


def mean_recall_over_folds(i2t: np.ndarray, t2i: np.ndarray, image_of_caption: np.ndarray, folds: int) -> Retrieval:
    """Returns each figure's mean over consecutive, equal parts of the pictures.

    Args:
      i2t: <int>[images] rank of each picture's best caption, within its fold.
      t2i: <int>[captions] likewise of each caption's picture.
      image_of_caption: <int>[captions].
      folds: how many parts; they divide the pictures.
    """
    size = len(i2t) // folds
    fold_of_caption = image_of_caption // size
    return mean_over_folds(
        [
            Retrieval(recall(i2t[fold * size : (fold + 1) * size]), recall(t2i[fold_of_caption == fold]))
            for fold in range(folds)
        ]
    )
