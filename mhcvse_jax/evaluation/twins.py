"""Recall on pictures that share their objects with another picture, but not the objects' relations.

Only where the objects are tells twins apart, so a model that reads a caption as a bag of words, or a picture as a bag
of objects, is right half of the time. The built-in data set has twins, in `{split}_twins.npz`.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.data.dataset import Split
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.retrieval.recall import Retrieval, recall


class Twins(NamedTuple):
    """Which pictures of a split are twins."""

    twin: np.ndarray  # <int64>[images] the other picture, or -1
    tells_apart: np.ndarray  # <bool>[captions] true of its picture and false of the twin


def read(directory: pathlib.Path, split: Split) -> Twins | None:
    """Returns the twins of a split; None if the data set has none, or the split was truncated."""
    path = directory / f"{split.name}_twins.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        pairs = Twins(arrays["twin"], arrays["tells_apart"])
    return pairs if pairs.tells_apart.any() and len(pairs.twin) == split.num_images else None


def measure(encoded: protocols.Found, split: Split, pairs: Twins, *, consensus_weight: float) -> dict[str, Any]:
    """Returns how well the fused embedding, or a pair score, does on twins.

    Args:
      encoded: the split.
      split: the split, which has twins in it.
      pairs: which pictures are twins.
      consensus_weight: the weight of the consensus similarity, as in retrieval.

    Returns:
      `num_images`, `num_captions`: twins, and their captions that tell them apart.
      `order_accuracy`: percent of those captions nearer to their own picture than to its twin; 50 is chance, a
        tie counts against.
      `recall`: of those captions and all twins among all pictures and captions of the split.
    """
    owner = split.image_of_caption
    chosen = np.flatnonzero(pairs.tells_apart)
    own, other = owner[chosen], pairs.twin[owner[chosen]]
    lead = np.zeros(len(chosen), np.float32)
    for start, block in protocols.similarity_of(encoded, "fused", consensus_weight).blocks():
        for images, sign in ((own, 1), (other, -1)):
            here = (images >= start) & (images < start + len(block))
            lead[here] += sign * block[images[here] - start, chosen[here]]
    all_ranks = protocols.split_ranks(encoded, owner, kind="fused", consensus_weight=consensus_weight, folds=1)
    among_all = Retrieval(recall(all_ranks.i2t[pairs.twin >= 0]), recall(all_ranks.t2i[chosen]))
    return {
        "split": split.name,
        "num_images": int(np.sum(pairs.twin >= 0)),
        "num_captions": len(chosen),
        "order_accuracy": round(float(100 * np.mean(lead > 0)), 4),
        "recall": among_all.to_dict(),
    }


def describe(measured: dict[str, Any]) -> str:
    """Returns the measures as a line or two."""
    found = measured["recall"]
    return (
        f"pictures that share their objects with another, not their relations ({measured['num_images']}):\n"
        f"  a caption that tells the two apart is nearer to its own: {measured['order_accuracy']:.1f}% (chance 50); "
        f"R@1 {found['i2t']['r1']:.1f} i2t, {found['t2i']['r1']:.1f} t2i"
    )
