"""What is compared with what: embeddings and folds.

Protocols, `config.eval.protocol`: `standard`, each query alone; `label_completion`, after captions were encoded again
with labels completed by those of other captions of the test set (see that file): transductive.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation.result_rows import EMBEDDINGS
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.retrieval.encode import EncodedSplit
from mhcvse_jax.retrieval.folds import fold_parts
from mhcvse_jax.retrieval.pairs import ScoredSplit
from mhcvse_jax.retrieval.ranks import ranks
from mhcvse_jax.retrieval.recall import Ranks, Retrieval, mean_recall_over_folds

Found: TypeAlias = EncodedSplit | ScoredSplit
"""What a model makes of a split: embeddings, or the scores of all pairs."""


def kinds(found: Found) -> list[str]:
    """Returns those of EMBEDDINGS that the model has."""
    if isinstance(found, ScoredSplit):
        return ["fused"]
    return [kind for kind in EMBEDDINGS if getattr(found.image, kind) is not None]


def similarity_of(found: Found, kind: str, consensus_weight: float) -> similarity.Similarity:
    """Returns the similarities of all pictures and captions by one of `kinds`; see `compared`.

    Raises:
      InputError: the model has no such embedding.
      RunFailedError: an embedding is not finite.
    """
    if kind not in kinds(found):
        raise InputError(f"the model has no {kind} embedding; expected {' or '.join(kinds(found))}")
    if isinstance(found, ScoredSplit):
        return found.similarity()
    return similarity.of_embeddings(*(compared(side, kind, consensus_weight) for side in found))


def compared(embeddings: Embeddings, kind: str, consensus_weight: float) -> jax.Array:
    """Returns <float32>[items, D or 2D], the vectors whose dot product is the similarity.

    Args:
      embeddings: of pictures or of captions.
      kind: "fused", "instance" or "consensus".
      consensus_weight: c of (1 - c) fused + c consensus similarity, for "fused": both stand side by side.
    """
    if kind != "fused" or not consensus_weight:
        return getattr(embeddings, kind)
    return jnp.concatenate(
        [
            np.sqrt(1 - consensus_weight) * embeddings.fused,
            np.sqrt(consensus_weight) * embeddings.consensus,
        ],
        axis=-1,
    )


def split_ranks(
    encoded: Found, image_of_caption: np.ndarray, *, kind: str, consensus_weight: float, folds: int
) -> Ranks:
    """Returns the rank of every query, in the split's order, within its own of `folds` consecutive, equal parts.

    Raises:
      InputError: the pictures cannot be divided into that many parts.
    """
    if isinstance(encoded, ScoredSplit):
        return similarity.ranks_of(encoded.similarity(), image_of_caption, folds)
    image = compared(encoded.image, kind, consensus_weight)
    text = compared(encoded.text, kind, consensus_weight)
    i2t, t2i = np.zeros(len(image), np.int32), np.zeros(len(text), np.int32)
    for first, images, captions in fold_parts(image_of_caption, len(image), folds):
        part = ranks(image[images], text[captions], image_of_caption[captions] - first)
        i2t[images], t2i[captions] = part
    return Ranks(i2t, t2i)


def standard(
    encoded: Found, image_of_caption: np.ndarray, *, consensus_weight: float, folds: int
) -> dict[str, Retrieval]:
    """Returns recall by kind of embedding; each query is judged alone. The mean over folds, if several."""
    results = {}
    for kind in kinds(encoded):
        found = split_ranks(encoded, image_of_caption, kind=kind, consensus_weight=consensus_weight, folds=folds)
        results[kind] = mean_recall_over_folds(found.i2t, found.t2i, image_of_caption, folds)
    return results
