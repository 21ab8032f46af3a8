"""Times of several programs taken in turn, and the rows that the commands leave behind."""

import argparse
import datetime
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from mhcvse_jax.evaluation.provenance import device_name, git_revision, versions


class Timing(NamedTuple):
    """Seconds of the runs of one program."""

    seconds: np.ndarray  # <float64>[rounds]
    cpu_seconds: np.ndarray  # <float64>[rounds] of all threads; on a CPU that others use too, what a run itself took

    @property
    def median(self) -> float:
        """Seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> str:
        """The fastest and the slowest run, in milliseconds."""
        return f"{1e3 * self.seconds.min():.1f} to {1e3 * self.seconds.max():.1f}"

    def shared(self, number: int) -> "Timing":
        """Returns the times of one of so many things that a run does at once."""
        return Timing(self.seconds / number, self.cpu_seconds / number)


def interleave(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Returns the times of each program, run in turn: A B A B, so that a busy machine slows all alike.

    Args:
      programs: each waits until its work is done. All run once before anything is timed, so all is compiled.
      rounds: timed runs of each.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    with tqdm.tqdm(total=(rounds + 1) * len(programs), unit="run", disable=None, leave=False) as bar:
        for number in range(rounds + 1):
            for name, program in programs.items():
                started = time.perf_counter(), time.process_time()
                jax.block_until_ready(program())
                if number:
                    seconds[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
                bar.update()
    return {name: Timing(*np.array(values).reshape(-1, 2).T) for name, values in seconds.items()}


def ratio(theirs: Timing, ours: Timing) -> float:
    """Returns how many times faster ours is: the median of the rounds' ratios."""
    return float(np.median(theirs.seconds / ours.seconds))


def cpu_ratio(theirs: Timing, ours: Timing) -> float:
    """Returns how many times less CPU time ours takes: the median of the rounds' ratios."""
    return float(np.median(theirs.cpu_seconds / ours.cpu_seconds))


def row(measure: str, *, ours: float, theirs: float, ratio: float, unit: str, **more: Any) -> dict[str, Any]:
    """Returns a row of results with what it was measured on.

    Args:
      measure: what was measured, sizes included.
      ours: figure of this program.
      theirs: figure that it is compared with.
      ratio: how many times better ours is.
      unit: of both figures.
      more: anything else worth keeping, `spread` say.
    """
    return {
        "measure": measure,
        "ours": float(f"{ours:.4g}"),
        "theirs": float(f"{theirs:.4g}"),
        "ratio": float(f"{ratio:.3g}"),
        "unit": unit,
        **more,
        "device": device_name(),
        "versions": versions(),
        "commit": git_revision(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Returns a parser with the options that all commands have."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--rounds", type=int, default=rounds, help="timed runs of each program")
    result.add_argument("--output", type=pathlib.Path, help="JSON file for the results")
    return result


def save(path: pathlib.Path | None, rows: list[dict[str, Any]]) -> None:
    """Writes the rows, where a file was asked for."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
    print(f"written   {path}")
