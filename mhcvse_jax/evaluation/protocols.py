"""What is compared with what: embeddings, folds, and the rows of `results.json`.

Protocols, `config.eval.protocol`: `standard`, each query alone; `label_completion`, after captions were encoded again
with labels completed by those of other captions of the test set (see that file): transductive.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.retrieval.encode import EncodedSplit
from mhcvse_jax.retrieval.pairs import ScoredSplit
from mhcvse_jax.retrieval.ranks import Ranks, ranks
from mhcvse_jax.retrieval.recall import Retrieval, mean_recall_over_folds

EMBEDDINGS = ("fused", "instance", "consensus")
"""What can be ranked by. A model may have the first alone, as one that scores pairs has."""

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


def is_transductive(protocol: str) -> bool:
    """Returns whether what is found for a query depends on the other queries."""
    return protocol == "label_completion"


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


def fold_parts(image_of_caption: np.ndarray, num_images: int, folds: int) -> Iterator[tuple[int, slice, np.ndarray]]:
    """Yields of each of `folds` consecutive, equal parts its first picture, its pictures and its captions.

    Raises:
      InputError: the pictures cannot be divided into that many parts, or a part has no captions.
    """
    if num_images % folds:
        raise InputError(f"{folds} folds do not divide the {num_images} pictures")
    size = num_images // folds
    for first in range(0, num_images, size):
        captions = np.flatnonzero(image_of_caption // size == first // size)
        if not len(captions):
            raise InputError(
                f"the pictures {first} to {first + size - 1}, one of {folds} folds, have no captions; "
                "expected fewer folds"
            )
        yield first, slice(first, first + size), captions


def standard(
    encoded: Found, image_of_caption: np.ndarray, *, consensus_weight: float, folds: int
) -> dict[str, Retrieval]:
    """Returns recall by kind of embedding; each query is judged alone. The mean over folds, if several."""
    results = {}
    for kind in kinds(encoded):
        found = split_ranks(encoded, image_of_caption, kind=kind, consensus_weight=consensus_weight, folds=folds)
        results[kind] = mean_recall_over_folds(found.i2t, found.t2i, image_of_caption, folds)
    return results


def result_rows(
    results: dict[str, Retrieval],
    *,
    split: str,
    protocol: str,
    folds: int,
    num_images: int,
    num_captions: int,
    label_neighbours: str = "",
) -> list[dict[str, Any]]:
    """Returns a row of `results.json` for each embedding; counts are those of the whole split."""
    rule = {"label_neighbours": label_neighbours} if label_neighbours else {}
    return [
        {
            "split": split,
            "protocol": protocol,
            "transductive": is_transductive(protocol),
            **rule,
            "folds": folds,
            "embedding": kind,
            **retrieval.to_dict(),
            "num_images": num_images,
            "num_captions": num_captions,
        }
        for kind, retrieval in results.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table for a terminal."""
    names = [_row_name(row) for row in rows]
    width = max(26, *(len(name) + 1 for name in names))
    head = f"{'':<{width}}|{'image to text':^32}|{'text to image':^32}|"
    columns = f"{'split, embedding':<{width}}|" + f"{'R@1':>6}{'R@5':>7}{'R@10':>7}{'med':>6}{'mean':>6}|" * 2
    lines = [head, columns + f"{'rsum':>7}{'mR':>7}"]
    for name, row in zip(names, rows, strict=True):
        line = f"{name:<{width}}|"
        for way in (row["i2t"], row["t2i"]):
            line += f"{way['r1']:6.1f}{way['r5']:7.1f}{way['r10']:7.1f}{way['medr']:6.0f}{way['meanr']:6.1f}|"
        lines.append(line + f"{row['rsum']:7.1f}{row['mean_recall']:7.1f}")
    return "\n".join(lines)


def _row_name(row: dict[str, Any]) -> str:
    folds = f" ({row['folds']} folds)" if row["folds"] > 1 else ""
    completed = f", {row['protocol']}, transductive" if is_transductive(row["protocol"]) else ""
    return f"{row['split']}{folds}, {row['embedding']}{completed}"
