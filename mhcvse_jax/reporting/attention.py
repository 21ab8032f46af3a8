"""Where a model looks in a pair of a picture and a caption, made into weights from 0 to 1 that can be shown."""

from typing import Any, NamedTuple

import numpy as np

MARKS = ("<start>", "<end>", "<pad>")
"""Tokens that are no words of the caption."""


class Head(NamedTuple):
    """How much one attention head, or a pooling, takes of each region and word; None for a side that is not used."""

    name: str
    regions: np.ndarray | None  # <float32>[regions], sums to 1
    words: np.ndarray | None  # <float32>[words], sums to 1
    evenness: tuple[float | None, float | None]  # entropy of both over that of equal shares: 1 looks at all alike


class Looks(NamedTuple):
    """Where a model looks in one pair. Cosines and shares as they are; `lit` makes them into light."""

    word_regions: np.ndarray  # <float32>[words, regions] cosine, or attention of the word where the model has one
    is_attention: bool  # whether `word_regions` are the model's own attention
    heads: list[Head]


def looks(maps: Any, pair: int, num_regions: int, num_words: int) -> Looks:
    """Returns what the maps of a batch say of one of its pairs.

    Args:
      maps: `AttentionMaps` of the model.
      pair: the pair's place in the batch.
      num_regions: the number of regions of its picture.
      num_words: the number of words of its caption.
    """

    def of(name: str) -> np.ndarray | None:
        found = getattr(maps, name)
        return None if found is None else np.asarray(found[pair], np.float32)

    regions, words = np.asarray(maps.regions[pair])[:num_regions], np.asarray(maps.words[pair])[:num_words]
    # [heads, regions] and [heads, words]: what the rows take in the mean; those of one kind stand beside each other.
    kinds = (
        ("head", _mean_of_rows(of("image"), num_regions), _mean_of_rows(of("text"), num_words)),
        ("head", _mean_of_rows(of("text_to_image"), num_words), _mean_of_rows(of("image_to_text"), num_regions)),
        ("pooling", _mean_of_rows(of("image_pooling"), 1), _mean_of_rows(of("text_pooling"), 1)),
    )
    heads = []
    for name, of_regions, of_words in kinds:
        number = max(len(found) for found in (of_regions, of_words, ()) if found is not None)
        for head in range(number):
            region_shares = None if of_regions is None else of_regions[head, :num_regions]
            word_shares = None if of_words is None else of_words[head, :num_words]
            evenness = _evenness(region_shares), _evenness(word_shares)
            heads.append(Head(f"{name} {head + 1}" if number > 1 else name, region_shares, word_shares, evenness))
    own = of("text_to_image")
    return Looks(
        words @ regions.T if own is None else own.mean(axis=0)[:num_words, :num_regions],
        own is not None,
        heads,
    )


def _mean_of_rows(weights: np.ndarray | None, num_rows: int) -> np.ndarray | None:
    return None if weights is None else weights[:, :num_rows].mean(axis=1)


def _evenness(shares: np.ndarray | None) -> float | None:
    if shares is None or len(shares) < 2:
        return None
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return float(-np.sum(shares * logs) / np.log(len(shares)))


def lit(values: np.ndarray) -> np.ndarray:
    """Returns values as light: 1 at the highest, 0 at the median and below, which is most of a picture."""
    low, high = float(np.median(values)), float(values.max())
    if len(values) == 1 or high - low < 1e-6:
        return np.full(values.shape, 0.5)  # all alike: neither dark nor lit
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def signed(values: np.ndarray) -> np.ndarray:
    """Returns values as light from -1 to 1: 0 stays 0, and the largest magnitude becomes 1."""
    size = float(np.abs(values).max())
    return values / size if size > 1e-9 else np.zeros_like(values)


def lit_together(values: np.ndarray) -> np.ndarray:
    """Returns the rows of a matrix as light on one scale: a word that is close to nothing stays dark."""
    return lit(values.reshape(-1)).reshape(values.shape)
