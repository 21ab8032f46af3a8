"""What is compared with what: embeddings and folds.

The protocols of `config.eval.protocol` are: `standard`, each query on its own; `label_completion`, with captions
encoded again after their labels were completed by those of other test captions (see that file), which is transductive;
and those against hubs, `inverted_softmax` and `csls`, also transductive, and `qb_norm` (see `retrieval.hubness`).
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.evaluation.result_rows import EMBEDDINGS
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.retrieval import hubness, one_way, similarity
from mhcvse_jax.retrieval.encode import EncodedSplit
from mhcvse_jax.retrieval.folds import fold_parts
from mhcvse_jax.retrieval.one_way import BothWays
from mhcvse_jax.retrieval.pairs import ScoredSplit
from mhcvse_jax.retrieval.ranks import check_finite, ranks
from mhcvse_jax.retrieval.recall import Ranks, Retrieval, mean_recall_over_folds

Found: TypeAlias = EncodedSplit | ScoredSplit
"""What a model makes of a split: embeddings, or the scores of all pairs."""


AGAINST_HUBS = ("inverted_softmax", "csls", "qb_norm")
"""The protocols that reduce hubs; under them each direction ranks by its own scores."""


class AgainstHubs(NamedTuple):
    """A protocol that reduces hubs, and what it needs."""

    protocol: str  # "inverted_softmax", "csls" or "qb_norm"
    temperature: float
    num_neighbours: int
    bank: EncodedSplit | None = None  # of training pictures and captions, for "qb_norm"

    def __str__(self) -> str:
        """Returns what it was set to."""
        if self.protocol == "csls":
            return f"{self.num_neighbours} neighbours"
        bank = ""
        if self.bank is not None:
            bank = (
                f", bank of {len(self.bank.text.fused):,} training captions and {len(self.bank.image.fused):,} pictures"
            )
        return f"temperature {self.temperature:g}{bank}"


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
      consensus_weight: for "fused", c of (1 - c) fused + c consensus similarity: both stand side by side.
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


def both_ways(found: Found, kind: str, consensus_weight: float, against: AgainstHubs | None = None) -> BothWays:
    """Returns what each direction ranks by, over all pictures and captions.

    Raises:
      RunFailedError: an embedding or a score is not finite.
    """
    if isinstance(found, ScoredSplit):
        if not np.isfinite(found.scores).all():
            raise RunFailedError("the score of a pair is not finite")
        return _held_down(one_way.of_scores(found.scores), None, against)
    image, text = (compared(side, kind, consensus_weight) for side in found)
    check_finite(image, text)
    banks = None
    if against and against.bank:
        bank_image, bank_text = (compared(side, kind, consensus_weight) for side in against.bank)
        check_finite(bank_image, bank_text)
        banks = BothWays(one_way.of_embeddings(bank_image, text).t2i, one_way.of_embeddings(image, bank_text).i2t)
    return _held_down(one_way.of_embeddings(image, text), banks, against)


def _held_down(ways: BothWays, banks: BothWays | None, against: AgainstHubs | None) -> BothWays:
    if against is None:
        return ways
    if against.protocol == "csls":
        return hubness.csls(ways, against.num_neighbours)
    if against.protocol == "inverted_softmax":
        return hubness.inverted_softmax(ways, against.temperature)
    assert banks is not None, "qb_norm has a bank"
    return hubness.qb_norm(ways, banks, against.temperature)


def _fold(found: Found, images: slice, captions: np.ndarray) -> Found:
    """Returns some pictures and captions of a split, as if there were no others."""
    if isinstance(found, ScoredSplit):
        return ScoredSplit(found.scores[images][:, captions])
    return EncodedSplit(
        jax.tree.map(lambda rows: rows[images], found.image), jax.tree.map(lambda rows: rows[captions], found.text)
    )


def split_ranks(
    encoded: Found,
    image_of_caption: np.ndarray,
    *,
    kind: str,
    consensus_weight: float,
    folds: int,
    against: AgainstHubs | None = None,
) -> Ranks:
    """Returns the rank of every query, in the split's order, within its part of `folds` consecutive, equal parts.

    Raises:
      InputError: the pictures cannot be divided into that many parts.
    """
    if against is not None:
        num_images = len(encoded.scores if isinstance(encoded, ScoredSplit) else encoded.image.fused)
        i2t, t2i = np.zeros(num_images, np.int32), np.zeros(len(image_of_caption), np.int32)
        for first, images, captions in fold_parts(image_of_caption, num_images, folds):
            part = _fold(encoded, images, captions) if folds > 1 else encoded
            ways = both_ways(part, kind, consensus_weight, against)
            owner, everything = image_of_caption[captions] - first, np.arange(images.stop - images.start)
            i2t[images] = one_way.ranks(ways.i2t, everything, owner)
            t2i[captions] = one_way.ranks(ways.t2i, owner, everything)
        return Ranks(i2t, t2i)
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
    """Returns recall by kind of embedding, averaged over the folds; each query is judged on its own."""
    results = {}
    for kind in kinds(encoded):
        found = split_ranks(encoded, image_of_caption, kind=kind, consensus_weight=consensus_weight, folds=folds)
        results[kind] = mean_recall_over_folds(found.i2t, found.t2i, image_of_caption, folds)
    return results
