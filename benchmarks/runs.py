"""Many trainings, one after another, and their table: what `ablation` and `models` share.

A run that is finished is not done again, one that was stopped goes on; so a command may be stopped and started at will,
and its table holds what there is.
"""

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from mhcvse_jax import command_line, compare
from mhcvse_jax.errors import RunFailedError


class Run(NamedTuple):
    """A training: its row in the table, its seed, its configuration and what differs from that."""

    name: str
    seed: int
    config: str
    values: dict[str, Any]

    @property
    def folder(self) -> str:
        """The workdir's name."""
        return f"{self.name}_seed{self.seed}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every such command takes."""
    path = pathlib.Path
    parser.add_argument("--data", required=True, type=path, metavar="DIR", help="a directory in SCAN's layout")
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="a workdir a run is made in it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--table_only", action="store_true", help="train nothing, tabulate what is finished")


def train(runs: Sequence[Run], arguments: argparse.Namespace) -> None:
    """Trains what is not finished.

    Raises:
      RunFailedError: a run failed.
      KeyboardInterrupt: a run was stopped.
    """
    for number, run in enumerate(runs, start=1):
        workdir = arguments.out / run.folder
        if arguments.table_only or (workdir / "results.json").exists():
            continue
        print(f"\nrun {number} of {len(runs)}: {run.name}, seed {run.seed}", flush=True)
        values = {"data.dir": arguments.data, "seed": run.seed, **run.values}
        overrides = [f"--config.{key}={value}" for key, value in values.items()]
        overrides += [f"--config.{override}" for override in arguments.set]
        program("main", "--config", run.config, "--workdir", workdir, *overrides)


def program(name: str, *arguments: Any) -> None:
    """Runs a command of the program.

    Raises:
      RunFailedError: it failed.
      KeyboardInterrupt: it was stopped.
    """
    command = [sys.executable, "-m", f"mhcvse_jax.{name}", *map(str, arguments)]
    code = subprocess.run(command, check=False).returncode
    if code == command_line.EXIT_STOPPED:
        raise KeyboardInterrupt
    if code:
        raise RunFailedError(f"{' '.join(command[2:])} left with exit code {code}")


def tabulate(sources: Sequence[str], baseline: str, path: pathlib.Path) -> None:
    """Prints the table of `mhcvse_jax.compare`, and writes it in Markdown.

    Args:
      sources: each NAME=WORKDIR or NAME=FILE, those that there are.
      baseline: the row that others are compared with, where it is there.
      path: of the file.
    """
    against = ["--baseline", baseline] if any(source.startswith(f"{baseline}=") for source in sources) else []
    compare.main([*sources, *against, "--output", str(path), "--format", "markdown"])
    compare.main([*sources, *against])


def finished(runs: Sequence[Run], out: pathlib.Path) -> list[str]:
    """Returns NAME=WORKDIR of each run that has results."""
    return [f"{run.name}={out / run.folder}" for run in runs if (out / run.folder / "results.json").exists()]
