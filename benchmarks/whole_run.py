"""A whole training as its user starts it, from the command to the results: seconds, and memory of the host.

    python -m benchmarks.synthetic data/synthetic
    python -m benchmarks.whole_run --data data/synthetic --epochs 30

Once for each of `--placements`, one after another, in a process of its own that is watched while it runs. The first
is compared with the next. Memory is the process's own, beside the page cache (RssAnon of Linux); on a CPU the model,
its optimiser and what a step computes are in it.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import timing
from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.run import command_line


class Watched:
    """A finished run."""

    def __init__(self, command: Sequence[str], workdir: pathlib.Path):
        started = time.perf_counter()
        process = subprocess.Popen(command)
        self.most_memory = 0.0  # GB
        self.first_values = float("nan")  # seconds

        def watch() -> None:
            while process.poll() is None:
                self.most_memory = max(self.most_memory, _anonymous_memory(process.pid))
                if np.isnan(self.first_values) and _has_lines(workdir / "metrics.jsonl"):
                    self.first_values = time.perf_counter() - started
                time.sleep(0.1)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait(60)  # it has had the signal too, and saves
            raise
        watching.join()
        self.seconds = time.perf_counter() - started
        if code:
            raise RunFailedError(f"{' '.join(command)} left with exit code {code}")
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        rates = [line["examples_per_second"] for line in lines if line["kind"] == "train"]
        self.rate = float(np.median(rates[len(rates) // 2 :]))  # pairs a second, when all is warm
        self.rsum = json.loads((workdir / "results.json").read_text(encoding="utf-8"))["results"][0]["rsum"]


def _anonymous_memory(pid: int) -> float:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return 0.0
    return max(
        (int(line.split()[1]) * 1024 / 1e9 for line in status.splitlines() if line.startswith("RssAnon")), default=0
    )


def _has_lines(path: pathlib.Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=1)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a directory in SCAN's layout")
    parser.add_argument("--config", default="configs/f30k.py")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--placements", nargs="+", choices=("device", "host"), default=["device", "host"])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides")
    options = parser.parse_args(arguments)
    runs: dict[str, Watched] = {}
    for placement in options.placements:
        root = pathlib.Path(tempfile.mkdtemp(prefix="whole_run_"))
        values = {
            "data.dir": options.data,
            "data.placement": placement,
            "num_epochs": options.epochs,
            "patience_epochs": options.epochs,
        }
        overrides = [f"--config.{key}={value}" for key, value in values.items()]
        overrides += [f"--config.{override}" for override in options.set]
        command = [sys.executable, "-m", "mhcvse_jax.main", "--config", options.config, "--workdir", str(root / "run")]
        print(f"\nfeatures on the {placement}", flush=True)
        try:
            runs[placement] = Watched([*command, *overrides], root / "run")
        finally:
            shutil.rmtree(root)
    print(f"\ndevice    {timing.device_name()}; {options.epochs} epochs of {options.data}, {options.config}")
    print(f"{'features on the':<16}{'whole s':>9}{'first values s':>16}{'pairs/s':>10}{'host GB':>9}{'rsum':>7}")
    for name, run in runs.items():
        print(
            f"{name:<16}{run.seconds:>9.1f}{run.first_values:>16.1f}{run.rate:>10.0f}{run.most_memory:>9.2f}{run.rsum:>7.1f}"
        )
    ours, theirs = runs[options.placements[0]], runs[options.placements[-1]]
    against = f", features on the {options.placements[0]} against the {options.placements[-1]}"
    what = f"{options.epochs} epochs, {options.config}"
    timing.save(
        options.output,
        [
            timing.row(f"{what}, {measure}{against}", ours=a, theirs=b, ratio=b / a, unit=unit, spread="one run")
            for measure, a, b, unit in (
                ("start to results", ours.seconds, theirs.seconds, "s"),
                ("memory of the host", ours.most_memory, theirs.most_memory, "GB"),
            )
        ],
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main))
