"""Kills a small run again and again at random moments, and compares what it ends with to a run left in peace.

    python -m benchmarks.kills --kills 100 --out runs/kills
    python -m benchmarks.kills --kills 100 --out runs/kills_2 --processes 2

Each time the same command goes on. A third of the SIGKILLs fall into a save, a sixth into the start, the others between
or in steps, of which each is saved. A run that reaches its end before the last kill is compared and begun anew. With
two processes (launch/local.sh) one of them, drawn at random, is killed. Every number of the last checkpoint, parameters
and optimiser state, has to be that of the undisturbed run, bit for bit; so have metrics and recalls.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.run import command_line

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = (
    *("data.scenes.num_train=60", "data.scenes.num_dev=20", "data.scenes.num_test=20"),
    *("data.scenes.num_regions=5", "data.scenes.feature_dim=16", "data.scenes.image_size=48"),
    *("concepts.num=10", "concepts.vector_dim=13", "batch_size=20", "eval.batch_size=32", "num_epochs=2"),
    *("model.embedding_dim=16", "model.num_heads=2", "model.word_dim=8", "data.caption_lengths=(32,)"),
    *("model.dropout_rate=0.3", "log.matches=0", "log.every_steps=1", "checkpoint.every_minutes=0.0001"),
)
MOMENTS = {"in a save": 2, "at the start": 1, "between saves": 3}
"""When a kill falls, and how often of six."""
START_SECONDS = 5.0  # that a start takes, about
RUN_SECONDS = 900  # after which a run hangs


class Job:
    """A run of one or two processes under way."""

    def __init__(self, workdir: pathlib.Path, data: pathlib.Path, processes: int):
        values = [*SMALL, f"data.dir={data}"]
        arguments = ["--config", "configs/demo.py", "--workdir", str(workdir), *(f"--config.{v}" for v in values)]
        command = [sys.executable, "-m", "mhcvse_jax.main"]
        if processes > 1:
            command = [str(ROOT / "launch" / "local.sh"), str(processes)]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={processes}",
            "PYTHON": sys.executable,
            "MHCVSE_GRACE_SECONDS": "1",
        }
        self._log = workdir.with_name(f"{workdir.name}.log")
        self._several = processes > 1
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*command, *arguments], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._started = time.monotonic()

    def is_running(self) -> bool:
        """Whether it has not ended.

        Raises:
          RunFailedError: it takes too long, or has ended by itself before its end.
        """
        code = self._process.poll()
        if code is None and time.monotonic() - self._started > RUN_SECONDS:
            raise RunFailedError(f"{self._log}: the run hangs, after {RUN_SECONDS} seconds")
        if code:
            raise RunFailedError(f"{self._log}: the run left with exit code {code}, and nobody had killed it")
        return code is None

    def kill(self) -> None:
        """Kills the process, or one of several; returns when all are gone."""
        victim = self._process.pid
        if self._several:
            listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(victim)], capture_output=True, text=True)
            children = [int(line) for line in listed.stdout.split()]
            victim = random.choice(children) if children else victim
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait(RUN_SECONDS)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(RUN_SECONDS)

    def wait(self) -> float:
        """Returns the seconds to its end."""
        while self.is_running():
            time.sleep(0.05)
        return time.monotonic() - self._started


def parameters(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns every array of a run's last checkpoint by its path."""
    steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = {}
    for item in ("model", "training"):
        path = (workdir / "checkpoints" / str(max(steps)) / item).absolute()
        with ocp.StandardCheckpointer() as reader:
            # Onto one device: those that it was saved from are another process's.
            like = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one_device),
                reader.metadata(path).item_metadata.tree,
            )
            tree = reader.restore(path, like)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            found[item + jax.tree_util.keystr(path)] = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return found


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the metrics of a run, without what depends on the machine."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "examples_per_second"} for line in found]


def compare(workdir: pathlib.Path, undisturbed: pathlib.Path) -> int:
    """Returns the numbers that are equal in both runs' last checkpoints, all of them.

    Raises:
      RunFailedError: a number, a line of metrics or a recall differs.
    """
    found, wanted = parameters(workdir), parameters(undisturbed)
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found or name not in wanted or not np.array_equal(found[name], wanted[name]):
            raise RunFailedError(f"{workdir}: {name} is not that of {undisturbed}")
    if lines(workdir) != lines(undisturbed):
        raise RunFailedError(f"{workdir}: metrics.jsonl is not that of {undisturbed}")
    results = [json.loads((path / "results.json").read_text(encoding="utf-8")) for path in (workdir, undisturbed)]
    if results[0]["results"] != results[1]["results"]:
        raise RunFailedError(f"{workdir}: results.json is not that of {undisturbed}")
    return sum(array.size for array in found.values())


def moment(kind: str, workdir: pathlib.Path) -> Callable[[], bool]:
    """Returns what tells when the kill is due."""
    started, before = time.monotonic(), _steps(workdir)
    delay = random.uniform(0, START_SECONDS if kind == "at the start" else 0.1)
    more = random.randint(1, 4)
    due: list[float] = []

    def is_due() -> bool:
        if kind == "at the start":
            return time.monotonic() - started > delay
        if kind == "in a save":
            return _steps(workdir) > before and any((workdir / "checkpoints").glob("*tmp*"))
        if not due and _steps(workdir) >= before + more:
            due.append(time.monotonic() + delay)
        return bool(due) and time.monotonic() >= due[0]

    return is_due


def _steps(workdir: pathlib.Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b'"train"') if path.exists() else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all equal, 2 bad input, 3 they differ, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=command_line.positive, default=100, metavar="N", help="(default 100)")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR", help="where the runs are made")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1, help="(default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Makes the undisturbed run, then kills until there were enough, and compares."""
    random.seed(arguments.seed)
    out, processes = arguments.out.absolute(), arguments.processes
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(out / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    undisturbed, killed, data = out / "undisturbed", out / "killed", out / "scenes"
    with Job(undisturbed, data, processes) as job:
        seconds = job.wait()
    print(f"undisturbed: {_steps(undisturbed)} steps, {processes} process(es), {seconds:.1f} seconds", flush=True)
    shutil.rmtree(killed, ignore_errors=True)
    kinds = [kind for kind, often in MOMENTS.items() for _ in range(often)]
    counts = dict.fromkeys(MOMENTS, 0)
    ends = 0
    while sum(counts.values()) < arguments.kills:
        kind = random.choice(kinds)
        with Job(killed, data, processes) as job:
            is_due = moment(kind, killed)
            while job.is_running() and not is_due():
                time.sleep(0.001)
            if job.is_running():
                steps = _steps(killed)
                job.kill()
                counts[kind] += 1
                print(f"kill {sum(counts.values())}: {kind}, {steps} steps logged", flush=True)
                continue
        ends += 1
        print(f"end {ends}: {compare(killed, undisturbed):,} numbers equal bit for bit", flush=True)
        shutil.rmtree(killed)
    with Job(killed, data, processes) as job:
        job.wait()
    number = compare(killed, undisturbed)
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(
        f"{sum(counts.values())} kills ({told}), {ends + 1} ends: {number:,} numbers of the last checkpoint, "
        "metrics and recalls equal those of the undisturbed run, bit for bit"
    )


if __name__ == "__main__":
    sys.exit(main())
