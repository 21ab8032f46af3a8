"""How often `compare`'s 95% intervals over seeds and pictures hold the truth, on simulated systems.

    python -m benchmarks.coverage

A caption finds its picture among the first K where a sum of normal numbers passes a threshold: what makes the picture
hard, for both systems and for each; the seed; the seed on that picture; the caption. So the truth is a normal integral.
Beside it stand the interval over pictures alone, and the percentiles of a plain bootstrap of seeds and pictures.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from benchmarks import timing
from mhcvse_jax.comparison import bootstrap, seeds
from mhcvse_jax.comparison.entry import Hits
from mhcvse_jax.terminal.progress import counted

THRESHOLDS = np.array([0.4, -0.2, -0.6])  # of R@1, R@5 and R@10
PER_IMAGE = 3
LEADS = (0.25, 0.0)  # of the two systems


class Spreads(NamedTuple):
    """Standard deviations beside that of pictures, 1; that of a system on a picture is 0.5, of a caption 0.7."""

    seed: float
    seed_on_picture: float


def total(spreads: Spreads) -> float:
    """Returns the standard deviation of all together."""
    return float(np.sqrt(1 + 0.5**2 + 0.7**2 + spreads.seed**2 + spreads.seed_on_picture**2))


def truth(spreads: Spreads) -> dict[str, float]:
    """Returns the true differences of the two systems by measure, in percent points."""
    shares = [norm.cdf((lead - THRESHOLDS) / total(spreads)) for lead in LEADS]
    by_k = 100 * (shares[0] - shares[1])
    return dict(zip(bootstrap.MEASURES, (float(2 * by_k.sum()), float(by_k[0]), float(by_k[0])), strict=True))


def simulated(rng: np.random.Generator, num_seeds: int, num_images: int, spreads: Spreads) -> list[list[Hits]]:
    """Returns the hits of both systems, of each seed."""
    owner = np.repeat(np.arange(num_images), PER_IMAGE)
    picture, systems = rng.standard_normal(num_images), []
    for lead in LEADS:
        on_picture = lead + picture + 0.5 * rng.standard_normal(num_images)
        hits = []
        for _ in range(num_seeds):
            of_seed = on_picture + spreads.seed * rng.standard_normal()
            of_seed = of_seed + spreads.seed_on_picture * rng.standard_normal(num_images)
            image = of_seed + 0.7 * rng.standard_normal(num_images)
            captions = of_seed[owner] + 0.7 * rng.standard_normal(len(owner))
            i2t, t2i = ((values[:, None] > THRESHOLDS).astype(float) for values in (image, captions))
            hits.append(Hits(i2t, t2i, owner))
        systems.append(hits)
    return systems


def plain(rng: np.random.Generator, systems: Sequence[Sequence[Hits]], num_draws: int) -> np.ndarray:
    """Returns <float64>[2] the percentiles of R@1's difference, image to text, seeds and pictures drawn again."""
    scores = [np.stack([hits.i2t[:, 0] for hits in system]) for system in systems]
    num_seeds, num_images = scores[0].shape
    drawn = []
    for _ in range(num_draws):
        pictures = rng.integers(num_images, size=num_images)
        means = [score[rng.integers(num_seeds, size=num_seeds)].mean(axis=0)[pictures].mean() for score in scores]
        drawn.append(100 * (means[0] - means[1]))
    return np.percentile(drawn, [2.5, 97.5])


def coverage(
    num_seeds: int,
    spreads: Spreads,
    *,
    num_images: int,
    times: int,
    num_draws: int,
    seed: int,
    with_plain: bool = False,
) -> dict[str, float]:
    """Returns in percent how often each measure's interval holds the truth, and those of i2t R@1 by other ways."""
    rng = np.random.default_rng(seed)
    expected = truth(spreads)
    inside: dict[str, int] = dict.fromkeys([*expected, "pictures alone", *(["plain"] if with_plain else [])], 0)
    with counted(times, "simulation") as done:
        for number in range(times):
            system, baseline = simulated(rng, num_seeds, num_images, spreads)
            options = {"num_draws": num_draws, "seed": number}
            for name, seen in seeds.differences([system], baseline, **options)[0].items():
                inside[name] += seen.interval.low <= expected[name] <= seen.interval.high
            means = [seeds.mean_hits(each) for each in (system, baseline)]
            alone = bootstrap.intervals(means[:1], means[1], **options)[0]["i2t_r1"]
            inside["pictures alone"] += alone.low <= expected["i2t_r1"] <= alone.high
            if with_plain:
                low, high = plain(rng, (system, baseline), num_draws)
                inside["plain"] += low <= expected["i2t_r1"] <= high
            done(1)
    return {name: 100 * count / times for name, count in inside.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], formatter_class=formatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5], help="of each system")
    parser.add_argument("--seed_spreads", type=float, nargs="+", default=[0.0, 0.05, 0.15], help="pictures' is 1")
    parser.add_argument("--picture_spreads", type=float, nargs="+", default=[0.3, 0.6], help="of a seed on a picture")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--times", type=int, default=1000, help="simulations of each")
    parser.add_argument("--draws", type=int, default=200, help="of a bootstrap")
    parser.add_argument("--plain", action="store_true", help="the plain bootstrap of both, too, which takes long")
    options = parser.parse_args(arguments)
    print(f"{timing.git_revision()}: percent of {options.times:,} simulations whose interval of 95% holds the truth")
    for num_seeds in options.seeds:
        for of_seed in options.seed_spreads:
            for on_picture in options.picture_spreads:
                found = coverage(
                    num_seeds,
                    Spreads(of_seed, on_picture),
                    num_images=options.images,
                    times=options.times,
                    num_draws=options.draws,
                    seed=0,
                    with_plain=options.plain,
                )
                shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
                print(f"{num_seeds} seeds, spread {of_seed} and {on_picture} on a picture: {shown}", flush=True)


if __name__ == "__main__":
    main()
