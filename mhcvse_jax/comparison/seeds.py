"""Intervals that include the spread between seeds and pictures, and how many seeds would show a difference.

Both seeds and pictures are resampled. A plain bootstrap of both is wrong if there are few seeds: of n seeds it sees
(n - 1) / n of their variance, it uses a normal quantile where Student's belongs, and it counts the effect of a seed on
a single picture at both levels. With 3 seeds its 95% intervals contained the truth in 81% to 99% of simulations.
So the two levels are treated separately. With y[s, p] the score of seed s of a system on picture p, the variance of the
difference is estimated as

    V + sum of B over both systems,   B = S - I

    V  of the seeds' mean over bootstrap draws of the pictures; it holds I, which is inevitable there
    S  = s^2 / n, the variance of the seeds' scores over n: the level of seeds in the limit of many draws, with n - 1
    I  = MS / (n N), from the residuals y[s, p] - y[s, .] - y[., p] + y[., .], so that these are counted once

where the sum of B counts for 0 if it is less. The interval is the difference +- Student's quantile of Satterthwaite's
degrees of freedom times the root. Scores are means of N pictures, or of queries where pictures have unlike numbers of
captions, for which y is the picture's influence on the ratio. `benchmarks/coverage.py` measures the coverage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.comparison.bootstrap import MEASURES, Interval, draw_variances, hits_by_picture
from mhcvse_jax.comparison.entry import Hits

MOST_SEEDS = 1000  # that are asked about


class Seen(NamedTuple):
    """A difference with the spread of seeds and pictures."""

    interval: Interval
    seeds_needed: int | None
    """Of each system, with which the interval would leave out 0 if difference and spreads stay as they are; None: no
    number up to MOST_SEEDS would do, as the spread between pictures alone is too large."""


def differences(
    systems: Sequence[Sequence[Hits]],
    baseline: Sequence[Hits],
    *,
    num_draws: int,
    seed: int,
    confidence: float = 0.95,
) -> list[dict[str, Seen]]:
    """Returns for each system what is known of its differences to the baseline, by the names in MEASURES.

    Args:
      systems: for each system the hits of its seeds, two or more, on the baseline's queries.
      baseline: the same for the baseline.
      num_draws: the number of draws of pictures.
      seed: the seed of the draws, which all systems share.
      confidence: the confidence of the intervals.
    """
    if not systems:
        return []
    means = [mean_hits(hits) for hits in systems]
    over_pictures = draw_variances(means, mean_hits(baseline), num_draws=num_draws, seed=seed)
    own, found = _Spread.of(baseline), []
    for hits, variances in zip(systems, over_pictures, strict=True):
        both = (_Spread.of(hits), own)
        difference = both[0].mean - own.mean
        by_measure = {}
        for place, name in enumerate(MEASURES):
            parts = [_Parts(float(one.of_seeds[place]), float(one.of_both[place]), one.num_seeds) for one in both]
            width = _half_width(float(variances[place]), parts, len(baseline[0].i2t), confidence)
            value = float(difference[place])
            interval = Interval(value - width, value + width)
            needed = _seeds_needed(abs(value), float(variances[place]), parts, len(baseline[0].i2t), confidence)
            by_measure[name] = Seen(interval, needed)
        found.append(by_measure)
    return found


class _Spread(NamedTuple):
    """What the seeds of one system are like, by measure."""

    mean: np.ndarray  # <float64>[measures] percent
    of_seeds: np.ndarray  # <float64>[measures] S: the variance of a mean of so many seeds, on these pictures
    of_both: np.ndarray  # <float64>[measures] I: the part of it that is of single pictures
    num_seeds: int

    @classmethod
    def of(cls, seeds: Sequence[Hits]) -> "_Spread":
        scores, influences = zip(*(_influences(hits) for hits in seeds), strict=True)
        scores, influences = np.stack(scores), np.stack(influences)  # [seeds, measures], [seeds, pictures, measures]
        num, pictures = influences.shape[:2]
        residuals = influences - influences.mean(axis=0)
        mean_square = np.sum(residuals**2, axis=(0, 1)) / ((num - 1) * (pictures - 1))
        return cls(scores.mean(axis=0), scores.var(axis=0, ddof=1) / num, mean_square / (num * pictures), num)


class _Parts(NamedTuple):
    """Of one system and one measure."""

    of_seeds: float  # S
    of_both: float  # I
    num_seeds: int


def _half_width(over_pictures: float, parts: Sequence[_Parts], num_pictures: int, confidence: float) -> float:
    between = [max(part.of_seeds - part.of_both, 0.0) for part in parts]  # B
    variance = over_pictures + max(sum(part.of_seeds - part.of_both for part in parts), 0.0)
    # Satterthwaite: the variance of each estimate by its degrees of freedom. That of B lies between those of B and of S
    # as sums of squares; their geometric mean keeps to 95% with and without a spread between seeds.
    uncertain = over_pictures**2 / max(num_pictures - 1, 1)
    uncertain += sum(own * part.of_seeds / (part.num_seeds - 1) for own, part in zip(between, parts, strict=True))
    return _quantile(confidence, variance**2 / uncertain) * variance**0.5 if uncertain else 0.0


def _quantile(confidence: float, degrees: float) -> float:
    from scipy import stats  # here, as it takes a while to import; it comes with JAX

    return float(stats.t.ppf((1 + confidence) / 2, degrees))


def _seeds_needed(
    difference: float, over_pictures: float, parts: Sequence[_Parts], num_pictures: int, confidence: float
) -> int | None:
    """Returns the least number of seeds, of both systems, whose interval would be narrower than the difference."""
    alone = max(over_pictures - sum(part.of_both for part in parts), 0.0)  # what no number of seeds takes away

    def is_seen(number: int) -> bool:
        scaled = [
            _Parts(part.of_seeds * part.num_seeds / number, part.of_both * part.num_seeds / number, number)
            for part in parts
        ]
        inevitable = alone + sum(part.of_both for part in scaled)
        return difference > _half_width(inevitable, scaled, num_pictures, confidence)

    if not is_seen(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # the width falls with the number
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


def _influences(hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Returns <float64>[measures] the scores in percent, and <float64>[pictures, measures] each one's influence.

    An influence is the picture's share of the score times the number of pictures, less the score: its mean is 0.
    """
    num_pictures = len(hits.i2t)
    captions = np.bincount(hits.image_of_caption, minlength=num_pictures).astype(float)
    ways = ((hits.i2t, (captions > 0).astype(float)), (hits_by_picture(hits), captions))
    recalls, influences = [], []
    for by_picture, queries in ways:
        recall = 100 * by_picture.sum(axis=0) / queries.sum()
        recalls.append(recall)
        influences.append(num_pictures * (100 * by_picture - recall * queries[:, None]) / queries.sum())

    def measures(values: Sequence[np.ndarray]) -> np.ndarray:
        i2t, t2i = values
        return np.stack([i2t.sum(axis=-1) + t2i.sum(axis=-1), i2t[..., 0], t2i[..., 0]], axis=-1)

    return measures(recalls), measures(influences)


def mean_hits(seeds: Sequence[Hits]) -> Hits:
    """Returns the share of seeds with a hit, of each query."""
    return Hits(np.mean([one.i2t for one in seeds], axis=0), np.mean([one.t2i for one in seeds], axis=0), seeds[0][2])
