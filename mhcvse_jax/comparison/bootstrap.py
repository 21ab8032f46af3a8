"""Paired bootstrap intervals for the difference between two systems on the same queries.

Pictures are resampled, each with all its captions: the five captions of a picture are not independent queries, and so
one draw serves both directions and their sum. Both systems are judged on the same draws. The interval is the percentile
one (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). It says how far the difference could move with
other test pictures of the same kind and the same gallery. It does not say how far the difference moves with other
seeds; `seeds` does, if there are several.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.comparison.entry import RECALLS, Hits

MEASURES = ("rsum", "i2t_r1", "t2i_r1")
_AT_ONCE = 500  # draws whose counts are held at once


class Interval(NamedTuple):
    """Bounds, in percentage points."""

    low: float
    high: float


def intervals(
    systems: Sequence[Hits], baseline: Hits, *, num_draws: int, seed: int, confidence: float = 0.95
) -> list[dict[str, Interval]]:
    """Returns for each system the intervals of its differences to the baseline, by the names in MEASURES.

    Of a draw, recall is the share of hits among the pictures with captions, and the captions, drawn.

    Args:
      systems: hits of the same queries as the baseline's.
      baseline: what they are compared with.
      num_draws: the number of bootstrap samples, each of as many pictures as there are.
      seed: the seed of the draws, which all systems share.
      confidence: the share of draws between the bounds.
    """
    if not systems:
        return []
    measured = _drawn_differences(systems, baseline, num_draws, seed)
    outside = 50 * (1 - confidence)
    bounds = np.percentile(measured, [outside, 100 - outside], axis=1)  # [2, measures, systems]
    return [
        {name: Interval(*bounds[:, place, system].tolist()) for place, name in enumerate(MEASURES)}
        for system in range(len(systems))
    ]


def draw_variances(systems: Sequence[Hits], baseline: Hits, *, num_draws: int, seed: int) -> np.ndarray:
    """Returns <float64>[systems, measures], the variance of each difference over the same draws as `intervals` has."""
    return _drawn_differences(systems, baseline, num_draws, seed).var(axis=1).T


def _drawn_differences(systems: Sequence[Hits], baseline: Hits, num_draws: int, seed: int) -> np.ndarray:
    """Returns <float64>[measures, draws, systems]."""
    i2t = np.concatenate([hits.i2t - baseline.i2t for hits in systems], axis=1)
    t2i = np.concatenate([hits_by_picture(hits) - hits_by_picture(baseline) for hits in systems], axis=1)
    drawn = _drawn_means(i2t, t2i, baseline.image_of_caption, num_draws, seed)
    return np.stack([drawn.sum(axis=(2, 3)), drawn[:, :, 0, 0], drawn[:, :, 0, 1]])


def recall_intervals(
    hits: Hits, *, num_draws: int = 2_000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Interval]:
    """Returns the intervals of one system's six recalls and their sum, by the names in RECALLS and `rsum`."""
    drawn = _drawn_means(hits.i2t, hits_by_picture(hits), hits.image_of_caption, num_draws, seed)[:, 0]
    outside = 50 * (1 - confidence)
    recalls = np.moveaxis(drawn, 2, 1).reshape(num_draws, -1)  # as RECALLS: image to text before text to image
    values = np.concatenate([recalls, recalls.sum(axis=1, keepdims=True)], axis=1)
    low, high = np.percentile(values, [outside, 100 - outside], axis=0)
    names = (*RECALLS, "rsum")
    return {name: Interval(float(low[place]), float(high[place])) for place, name in enumerate(names)}


def _drawn_means(
    i2t: np.ndarray, t2i: np.ndarray, image_of_caption: np.ndarray, num_draws: int, seed: int
) -> np.ndarray:
    """Returns <float64>[draws, systems, (1, 5, 10), (i2t, t2i)], the percentages of each draw of pictures.

    Args:
      i2t: <float64>[images, 3 systems], the hits of each picture.
      t2i: <float64>[images, 3 systems], the hits of each picture's captions, summed.
      image_of_caption: <int>[captions].
      num_draws: the number of draws.
      seed: the seed of the draws.
    """
    num_images = len(i2t)
    captions = np.bincount(image_of_caption, minlength=num_images).astype(float)
    queries = (captions > 0).astype(float)  # pictures without captions are none
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, num_draws, _AT_ONCE):
        size = min(_AT_ONCE, num_draws - start)
        pictures = rng.integers(num_images, size=(size, num_images))
        places = pictures + num_images * np.arange(size)[:, None]
        times = np.bincount(places.ravel(), minlength=places.size).reshape(places.shape).astype(float)
        num_queries = [np.maximum(times @ number, 1.0)[:, None] for number in (queries, captions)]
        both = np.stack([times @ i2t / num_queries[0], times @ t2i / num_queries[1]], axis=2)
        drawn.append(100 * both.reshape(size, -1, 3, 2))
    return np.concatenate(drawn)


def hits_by_picture(hits: Hits) -> np.ndarray:
    """Returns <float64>[images, 3], the hits of each picture's captions summed."""
    summed = np.zeros((len(hits.i2t), hits.t2i.shape[1]))
    np.add.at(summed, hits.image_of_caption, hits.t2i)
    return summed
