"""How long trainings stood at the value of collapsed embeddings, and how far they fell from their best epoch.

    python -m benchmarks.collapse runs/models/*_seed*

A row for each workdir: for every contrastive loss that has a weight, the most steps in a row, after the first hundred,
within 5% of the value that it has where all embeddings are alike; then the dev rsum of the last epoch and of the best.
The last line names the runs in which a loss stood there for more than a hundred steps, or which ended below 95% of
their best. `--draw losses.svg` also draws the first of these losses of each run as a share of that value: the fusion's,
where it has a weight.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mhcvse_jax import config as config_lib
from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.losses import CONTRASTIVE
from mhcvse_jax.reporting import curves
from mhcvse_jax.reporting.observed import collapse_value_at
from mhcvse_jax.run import command_line

FIRST_STEPS = 100  # in which all embeddings are still much alike
NEAR = 0.05  # of the collapse value
MOST_STEPS = 100
LEAST_SHARE = 0.95  # of the best dev rsum, at the end


class Course(NamedTuple):
    """What is said of a training."""

    stays: Mapping[str, int]  # steps in a row at the collapse value, by term
    shares: curves.Curve  # the first of these losses, as a share of that value
    last: float  # dev rsum
    best: float  # dev rsum

    @property
    def is_sound(self) -> bool:
        return max(self.stays.values()) <= MOST_STEPS and self.last >= LEAST_SHARE * self.best


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all are sound, 2 bad input, 3 one is not sound."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collapse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, metavar="RUN", help="a run's workdir")
    parser.add_argument("--draw", type=pathlib.Path, metavar="FILE.svg", help="draw the losses too")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: run(arguments.workdirs, arguments.draw))


def run(workdirs: Sequence[pathlib.Path], picture: pathlib.Path | None = None) -> None:
    """Prints the table in Markdown; draws the losses where there is a file for them.

    Raises:
      InputError: a workdir has no epoch that ended.
      RunFailedError: a run is not sound.
    """
    courses = [read(workdir) for workdir in workdirs]
    if picture is not None:
        draw({workdir.name: course.shares for workdir, course in zip(workdirs, courses, strict=True)}, picture)
    print("| run | " + " | ".join(f"steps, {term}" for term in CONTRASTIVE) + " | dev rsum, last | best |")
    print("|---|" + "---|" * (len(CONTRASTIVE) + 2))
    for workdir, course in zip(workdirs, courses, strict=True):
        stays = " | ".join(str(course.stays.get(term, "-")) for term in CONTRASTIVE)
        print(f"| {workdir.name} | {stays} | {course.last:.1f} | {course.best:.1f} |")
    unsound = [workdir.name for workdir, course in zip(workdirs, courses, strict=True) if not course.is_sound]
    if unsound:
        raise RunFailedError(f"stood at the collapse value or fell from their best: {', '.join(unsound)}")
    print(f"\nall {len(courses)} left the collapse value at once and ended near their best")


def read(workdir: pathlib.Path) -> Course:
    """Returns what a workdir's log says.

    Raises:
      InputError: no epoch has ended there.
    """
    config, log = config_lib.load(workdir / "config.json"), curves.read(workdir / "metrics.jsonl")
    value_at = collapse_value_at(config, log)
    if value_at is None:
        raise InputError(f"{workdir / 'metrics.jsonl'} has no dev recall; expected a run of an epoch at least")
    trained = [term for term in CONTRASTIVE if config.loss[f"{term}_weight"]]
    losses = {term: log.kinds["train"].get(f"loss_{term}") for term in trained}
    stays = {
        term: longest_stay(steps, values, np.array([value_at(term, int(step)) for step in steps]))
        for term, (steps, values) in ((term, found) for term, found in losses.items() if found is not None)
    }
    first, (steps, values) = next((term, found) for term, found in losses.items() if found is not None)
    shares = curves.thin(steps, values / np.array([value_at(first, int(step)) for step in steps]))
    _, rsums = log.kinds["dev_fused"]["rsum"]
    return Course(stays, shares, float(rsums[-1]), float(rsums.max()))


def draw(losses: Mapping[str, curves.Curve], picture: pathlib.Path) -> None:
    """Writes a picture of losses, each as a share of its collapse value, in the format that the file's name ends in."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "losses", "font.size": 9}):
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in losses.items():
            axes.plot(curve.steps, curve.mean, label=name)
        axes.axhline(1, color="black", linewidth=0.8, linestyle=":", label="all embeddings alike")
        axes.set(xlabel="step", ylabel="loss, as a share")
        axes.legend(frameon=False)
        figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)
    print(f"drawn     {picture}\n")


def longest_stay(steps: np.ndarray, values: np.ndarray, collapse: np.ndarray) -> int:
    """Returns the most steps in a row near the collapse value, after the first.

    Args:
      steps: <int64>[lines], rising.
      values: <float64>[lines] of the loss.
      collapse: <float64>[lines], its value there where all embeddings are alike.
    """
    near = (np.abs(values - collapse) <= NEAR * collapse) & (steps > FIRST_STEPS)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]]).astype(int)))
    return int((steps[ends[1::2] - 1] - steps[ends[::2]] + 1).max(initial=0))


if __name__ == "__main__":
    sys.exit(main())
