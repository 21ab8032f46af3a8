r"""Trains one configuration with several seeds, or over a small grid of values, and compares the runs.

    mhcvse sweep --config f30k_small --out runs/fusion --seeds 0 1 2 \
        --grid model.fusion concat weight_sum --grid loss.margin 0.1 0.2 --set data.dir=data/f30k_small

Each run gets a workdir in --out. Runs are trained one after another on all devices, or --jobs at a time with the GPUs
divided among them. Finished runs are skipped and stopped ones resume, so the command can be stopped, killed and started
again at any time. It ends with the table of `mhcvse compare`, one row per point of the grid.
"""

import argparse
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from mhcvse_jax import config as config_lib
from mhcvse_jax.comparison import formats, side_by_side
from mhcvse_jax.comparison.sources import Wanted
from mhcvse_jax.devices.memory import RUNS_VARIABLE
from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.run import command_line
from mhcvse_jax.run.resume import check_workdir
from mhcvse_jax.run.workdir import is_finished

POLL_SECONDS = 0.2


class Run(NamedTuple):
    """One training of a sweep; runs of one name differ in their seed."""

    name: str
    seed: int
    directory: pathlib.Path  # of the sweep
    config: str
    overrides: list[str]  # each KEY=VALUE

    @property
    def workdir(self) -> pathlib.Path:
        """What it writes."""
        return self.directory / f"{self.name}_seed{self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether its test is done."""
        return is_finished(self.workdir)

    @property
    def arguments(self) -> list[str]:
        """Of `mhcvse_jax.main`."""
        values = [*self.overrides, f"seed={self.seed}"]
        return ["--config", self.config, "--workdir", str(self.workdir), *(f"--config.{value}" for value in values)]


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.sweep") -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 a run failed, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    parser.add_argument(
        "--config", required=True, metavar="NAME", help="a configuration in configs/, such as f30k, or a file"
    )
    parser.add_argument(
        "--out", required=True, type=pathlib.Path, metavar="DIR", help="where each run gets its workdir"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="seeds for each point of the grid (default 0)"
    )
    parser.add_argument(
        "--grid",
        nargs="+",
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a key and its values; repeat the option to combine every value of one key with every value of another",
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--jobs", type=command_line.positive, default=1, metavar="N", help="runs at a time (default 1)")
    parser.add_argument("--baseline", metavar="NAME", help="the row to compare the others with (default: the first)")
    parser.add_argument("--table_only", action="store_true", help="train nothing; tabulate the finished runs")
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: sweep(arguments))


def sweep(arguments: argparse.Namespace) -> None:
    """Trains the unfinished runs and prints the table."""
    points = grid_points(arguments.grid)
    runs = [
        Run(name, seed, arguments.out, arguments.config, [*arguments.set, *overrides])
        for seed in arguments.seeds
        for name, overrides in points.items()
    ]
    baseline = arguments.baseline or next(iter(points))
    if baseline not in points:
        raise InputError(f"--baseline {baseline}: no such row; expected one of {', '.join(points)}")
    if not arguments.table_only:
        train(runs, jobs=arguments.jobs)
    tabulate(runs, baseline=baseline if len(points) > 1 else None, output=arguments.out / "sweep.md")


def grid_points(grid: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Returns the overrides of each point of a grid by its name, `fusion_concat_margin_0.1` for example.

    Args:
      grid: keys, each with its values.

    Raises:
      InputError: a key has no value or is given twice, or two points would have one name.
    """
    keys = [key for key, *_ in grid]
    for key, *values in grid:
        if not values:
            raise InputError(f"--grid {key}: no value; expected a key and its values")
        if keys.count(key) > 1 or len(set(values)) < len(values):
            raise InputError(f"--grid {key}: a key or value twice; expected each once")
    short = [key.rpartition(".")[2] for key in keys]
    names = short if len(set(short)) == len(short) else keys
    points = {}
    for values in itertools.product(*(values for _, *values in grid)):
        name = "_".join(f"{name}_{value}" for name, value in zip(names, values, strict=True)) or "runs"
        safe = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
        if safe in points:
            raise InputError(
                f"--grid: two points are named {safe}, as letters that no file name should hold become -; expected "
                "values whose names differ"
            )
        points[safe] = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
    return points


def train(runs: Sequence[Run], *, jobs: int) -> None:
    """Trains every run that is not finished, in their order, `jobs` at a time.

    One at a time they print here; several each into `WORKDIR.log`.

    Raises:
      InputError: a configuration cannot be used; nothing was started.
      RunFailedError: a run failed; the others have saved themselves.
      KeyboardInterrupt: a run was stopped, or this program; all have saved themselves.
    """
    for run in runs:
        check_run(run)
    waiting = [run for run in runs if not run.is_finished]
    num_before = len(runs) - len(waiting)
    if num_before:
        print(f"{num_before} of {len(runs)} runs are finished already", flush=True)
    shares = gpu_shares(jobs)
    running: dict[int, tuple[Run, subprocess.Popen]] = {}
    try:
        while waiting or running:
            for place in range(jobs):
                if waiting and place not in running:
                    run = waiting.pop(0)
                    number = len(runs) - len(waiting)
                    print(f"\nrun {number} of {len(runs)}: {run.name}, seed {run.seed}", flush=True)
                    running[place] = run, start(run, shares[place], jobs=jobs)
            for place, (run, process) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[place]
                if code == command_line.EXIT_STOPPED:
                    raise KeyboardInterrupt
                if code:
                    log = f"; see {run.workdir}.log" if jobs > 1 else ""
                    raise RunFailedError(
                        f"{run.name}, seed {run.seed}: mhcvse_jax.main left with exit code {code}{log}"
                    )
            time.sleep(POLL_SECONDS)
    finally:
        for _, process in running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in running.values():
            process.wait()


def check_run(run: Run) -> None:
    """Raises InputError where a run cannot be used, or its workdir holds one of another configuration or of other data.

    Data that a finished run was trained on may have been moved since, but nothing tells those from others.
    """
    config = config_lib.read(run.config, run.arguments[4:])
    check_workdir(run.workdir, config)
    if run.is_finished:
        trained_on = config_lib.load(run.workdir / "config.json").data.dir
        if pathlib.Path(trained_on).resolve() != pathlib.Path(config.data.dir).resolve():
            raise InputError(
                f"{run.workdir} is finished, with config.data.dir={trained_on!r}, not {config.data.dir!r}; expected "
                "the same, or another --out; --table_only tabulates what there is"
            )


def start(run: Run, gpus: str | None, *, jobs: int) -> subprocess.Popen:
    """Returns the process of a run, which Ctrl-C at the terminal does not reach: it is told once, by this one."""
    environment = os.environ | ({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}) | {RUNS_VARIABLE: str(jobs)}
    command = [sys.executable, "-m", "mhcvse_jax.main", *run.arguments]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "env": environment, "start_new_session": True}
    if jobs == 1:
        return subprocess.Popen(command, **options)
    run.directory.mkdir(parents=True, exist_ok=True)
    with pathlib.Path(f"{run.workdir}.log").open("a", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, **options)


def gpu_shares(jobs: int) -> list[str | None]:
    """Returns the GPUs of each of several jobs as CUDA names them; None where a job has what there is.

    Raises:
      InputError: there are fewer GPUs than jobs.
    """
    if jobs == 1:
        return [None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = [gpu for gpu in visible.split(",") if gpu]
    else:
        try:
            listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            listed = ""
        gpus = [str(number) for number, _ in enumerate(listed.splitlines())]
    if not gpus:
        return [None] * jobs
    if len(gpus) < jobs:
        raise InputError(f"--jobs {jobs}: there are {len(gpus)} GPUs; expected one a job at least")
    share = len(gpus) // jobs
    return [",".join(gpus[i * share : (i + 1) * share]) for i in range(jobs)]


def tabulate(
    runs: Sequence[Run], *, baseline: str | None, output: pathlib.Path, more_sources: Sequence[str] = ()
) -> None:
    """Prints the table of the finished runs and writes it as Markdown; a row for each name, over its seeds.

    Args:
      runs: finished or not.
      baseline: the row that others are compared with, if it exists; None for none.
      output: the file.
      more_sources: further sources for `mhcvse_jax.compare`, each NAME=SOURCE.

    Raises:
      InputError: no run is finished.
    """
    finished = [run for run in runs if run.is_finished]
    if not finished:
        raise InputError(f"{output.parent}: no run is finished; expected at least one")
    sources = [*(f"{run.name}={run.workdir}" for run in finished), *more_sources]
    if not any(run.name == baseline for run in finished):
        baseline = None
    comparison = side_by_side.compare(sources, Wanted(), baseline=baseline)
    with whole_file(output) as partial:
        partial.write_text(formats.render(comparison, "markdown"), encoding="utf-8")
    print(f"{len(comparison.entries)} rows in {output}")
    print(formats.render(comparison, "terminal"), end="")


if __name__ == "__main__":
    sys.exit(main())
