"""What is compared with what: embeddings, folds, and the rows of `results.json`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.retrieval.encode import EncodedSplit
from mhcvse_jax.retrieval.ranks import Ranks, ranks
from mhcvse_jax.retrieval.recall import Retrieval, mean_over_folds, recall

EMBEDDINGS = ("fused", "instance", "consensus")


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
    encoded: EncodedSplit, image_of_caption: np.ndarray, *, kind: str, consensus_weight: float, folds: int
) -> list[Ranks]:
    """Returns the ranks of each of `folds` consecutive, equal parts of a split.

    Raises:
      InputError: the pictures cannot be divided into that many parts.
    """
    image = compared(encoded.image, kind, consensus_weight)
    text = compared(encoded.text, kind, consensus_weight)
    if len(image) % folds:
        raise InputError(f"{folds} folds do not divide the {len(image)} pictures")
    size = len(image) // folds
    result = []
    for fold in range(folds):
        captions = np.flatnonzero(image_of_caption // size == fold)
        images = slice(fold * size, (fold + 1) * size)
        result.append(ranks(image[images], text[captions], image_of_caption[captions] - fold * size))
    return result


def standard(
    encoded: EncodedSplit, image_of_caption: np.ndarray, *, consensus_weight: float, folds: int
) -> dict[str, Retrieval]:
    """Returns recall by kind of embedding; each query is judged alone. The mean over folds, if several."""
    results = {}
    for kind in EMBEDDINGS:
        parts = split_ranks(encoded, image_of_caption, kind=kind, consensus_weight=consensus_weight, folds=folds)
        results[kind] = mean_over_folds([Retrieval(recall(part.i2t), recall(part.t2i)) for part in parts])
    return results


def result_rows(
    results: dict[str, Retrieval],
    *,
    split: str,
    protocol: str,
    folds: int,
    num_images: int,
    num_captions: int,
) -> list[dict[str, Any]]:
    """Returns a row of `results.json` for each embedding; counts are those of the whole split."""
    return [
        {
            "split": split,
            "protocol": protocol,
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
    head = f"{'':<26}|{'image to text':^32}|{'text to image':^32}|"
    names = f"{'split, embedding':<26}|" + f"{'R@1':>6}{'R@5':>7}{'R@10':>7}{'med':>6}{'mean':>6}|" * 2
    lines = [head, names + f"{'rsum':>7}{'mR':>7}"]
    for row in rows:
        folds = f" ({row['folds']} folds)" if row["folds"] > 1 else ""
        line = f"{row['split'] + folds + ', ' + row['embedding']:<26}|"
        for way in (row["i2t"], row["t2i"]):
            line += f"{way['r1']:6.1f}{way['r5']:7.1f}{way['r10']:7.1f}{way['medr']:6.0f}{way['meanr']:6.1f}|"
        lines.append(line + f"{row['rsum']:7.1f}{row['mean_recall']:7.1f}")
    return "\n".join(lines)
