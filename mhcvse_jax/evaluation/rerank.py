"""Re-ranking: the best candidates by a fast similarity, reordered by the score of a slow one.

The best `top_k` candidates of each query are re-scored; all others keep their places behind these. If top_k is all,
the ranks are those of the slow score alone.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mhcvse_jax.retrieval import ties
from mhcvse_jax.retrieval.folds import fold_parts
from mhcvse_jax.retrieval.recall import Ranks
from mhcvse_jax.retrieval.similarity import Similarity, ranks_of

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes pictures <int>[pairs] and captions <int>[pairs]; returns <float32>[pairs]."""


def reranked(
    similarity: Similarity, score: Score, image_of_caption: np.ndarray, *, top_k: int, folds: Sequence[int]
) -> dict[int, Ranks]:
    """Returns, for each number of folds, the rank of every query within its own part; ties count against the model.

    Args:
      similarity: chooses the candidates; of equal ones the first.
      score: scores the chosen pairs; called once, with each pair once.
      image_of_caption: <int>[captions].
      top_k: how many candidates of each query are scored.
      folds: numbers of consecutive parts that the split is divided into, see `folds.fold_parts`.
    """
    num_captions = similarity.num_captions
    rows, columns = np.arange(similarity.num_images)[:, None], np.arange(num_captions)[:, None]
    chosen = {
        number: candidates(similarity, image_of_caption, top_k=top_k, folds=number) for number in dict.fromkeys(folds)
    }
    numbered = {
        number: (rows * num_captions + captions, images * num_captions + columns)
        for number, (captions, images) in chosen.items()
    }
    pairs = np.unique(np.concatenate([ways.ravel() for both in numbered.values() for ways in both]))
    scores = score(pairs // num_captions, pairs % num_captions)
    found = {}
    for number, (captions_of_image, images_of_caption) in chosen.items():
        before = ranks_of(similarity, image_of_caption, number)
        of_image, of_caption = (scores[np.searchsorted(pairs, wanted)] for wanted in numbered[number])
        found[number] = Ranks(
            i2t=_ranks(of_image, image_of_caption[captions_of_image] == rows, before.i2t),
            t2i=_ranks(of_caption, images_of_caption == image_of_caption[:, None], before.t2i),
        )
    return found


def candidates(
    similarity: Similarity, image_of_caption: np.ndarray, *, top_k: int, folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns <int>[images, k], each picture's best captions of its fold, and <int>[captions, k] likewise.

    k is `top_k`, or all that the smallest fold has where that is less.
    """
    parts = list(fold_parts(image_of_caption, similarity.num_images, folds))
    num_captions = min(len(captions) for _, _, captions in parts)
    captions_of_image = np.zeros((similarity.num_images, min(top_k, num_captions)), np.int64)
    images_of_caption = np.zeros((similarity.num_captions, min(top_k, similarity.num_images // folds)), np.int64)
    for first, images, captions in parts:
        block = similarity.rows(images.start, images.stop)[:, captions]
        captions_of_image[images] = captions[_best(block, captions_of_image.shape[1])]
        images_of_caption[captions] = first + _best(block.T, images_of_caption.shape[1])
    return captions_of_image, images_of_caption


def _best(similarity: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def _ranks(scores: np.ndarray, is_own: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Returns <int32>[queries]: among the candidates where one is right, else the rank that it had."""
    among = ties.best_ranks(scores, is_own, ~is_own)
    return np.where(among > 0, among, before).astype(np.int32)
