"""Paired bootstrap intervals of the difference between two systems on the same queries.

What is drawn again is the picture, with all its captions: the five captions of a picture are not independent queries,
and so one draw serves both directions and their sum. Both systems are judged on the same draws. The interval is the
percentile one (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). It says how far the difference
could move with other test pictures of the same kind, the gallery as it is; it does not say how far it moves with
other seeds, which the deviation over seeds does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.comparison.entry import Hits

MEASURES = ("rsum", "i2t_r1", "t2i_r1")
_AT_ONCE = 500  # draws whose counts are held at once


class Interval(NamedTuple):
    """Bounds, in percent points."""

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
      num_draws: bootstrap samples, of as many pictures as there are.
      seed: of the draws; all systems share them.
      confidence: the share of draws between the bounds.
    """
    if not systems:
        return []
    num_images = len(baseline.i2t)
    captions = np.bincount(baseline.image_of_caption, minlength=num_images).astype(float)
    queries = (captions > 0).astype(float)  # pictures without captions are none
    i2t = np.concatenate([hits.i2t - baseline.i2t for hits in systems], axis=1)
    t2i = np.concatenate([_by_picture(hits) - _by_picture(baseline) for hits in systems], axis=1)
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, num_draws, _AT_ONCE):
        size = min(_AT_ONCE, num_draws - start)
        pictures = rng.integers(num_images, size=(size, num_images))
        places = pictures + num_images * np.arange(size)[:, None]
        times = np.bincount(places.ravel(), minlength=places.size).reshape(places.shape).astype(float)
        num_queries = [np.maximum(times @ number, 1.0)[:, None] for number in (queries, captions)]
        both = np.stack([times @ i2t / num_queries[0], times @ t2i / num_queries[1]], axis=2)
        drawn.append(100 * both.reshape(size, len(systems), 3, 2))
    differences = np.concatenate(drawn)  # [draws, systems, (1, 5, 10), (i2t, t2i)]
    outside = 50 * (1 - confidence)
    measured = [differences.sum(axis=(2, 3)), differences[:, :, 0, 0], differences[:, :, 0, 1]]
    bounds = np.percentile(np.stack(measured), [outside, 100 - outside], axis=1)  # [2, measures, systems]
    return [
        {name: Interval(*bounds[:, place, system].tolist()) for place, name in enumerate(MEASURES)}
        for system in range(len(systems))
    ]


def _by_picture(hits: Hits) -> np.ndarray:
    """Returns <float64>[images, 3], the hits of each picture's captions summed."""
    summed = np.zeros((len(hits.i2t), hits.t2i.shape[1]))
    np.add.at(summed, hits.image_of_caption, hits.t2i)
    return summed
