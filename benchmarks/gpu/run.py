"""Runs the list of measurements on a machine with a GPU, as far as the time of a call goes, and keeps what there is.

    python3 -m benchmarks.gpu.run --wheels wheels --out out                                      # the first call
    python3 -m benchmarks.gpu.run --wheels wheels --out out --done earlier/results.json          # the next ones

Wheels of packages that are not installed are unpacked into a directory that lasts as long as the call. `results.json`
is written anew after each step and holds the steps of `--done` too; `log.txt` holds all that the steps print. A step
that is done is not done again; one that would not fit into what is left of the call is not begun; one that fails is
named, and the next goes on. Exit code 3: a step failed, a package is missing, or there is no GPU.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.collect import package
from benchmarks.gpu.plan import STEPS, Step

ROOT = pathlib.Path(__file__).parents[2]
TAIL = 6_000  # characters of a step's output that are kept with its rows
SEES_DEVICES = "import jax; print(jax.__version__, jax.default_backend(), jax.devices())"
DONE, FAILED, STOPPED = "done", "failed", "stopped"


class Call:
    """One call on the machine: its time, its directories, and the results so far."""

    def __init__(self, out: pathlib.Path, work: pathlib.Path, seconds: float, results: dict[str, Any], *, toy: bool):
        """Begins the call's time."""
        self._ends = time.monotonic() + seconds
        results["toy"] = toy
        self._out, self._work, self._toy = out, work, toy
        self.results = results
        out.mkdir(parents=True, exist_ok=True)
        (work / "rows").mkdir()

    @property
    def left(self) -> float:
        """Seconds."""
        return self._ends - time.monotonic()

    def environment(self) -> dict[str, str]:
        """Returns what the steps see: the unpacked wheels, and memory that JAX and PyTorch share."""
        path = os.pathsep.join(filter(None, [str(self._work / "site"), os.environ.get("PYTHONPATH")]))
        more = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if self._toy else {}
        return os.environ | {"PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | more

    def unpack(self, wheels: pathlib.Path) -> list[str]:
        """Returns the names of the packages that were not installed, whose wheels are on the steps' path from now on.

        A wheel is a zip archive of what belongs on the path: so no pip is needed, and nothing is asked of an index.
        """
        missing = [path for path in sorted(wheels.glob("*.whl")) if not _is_installed(package(path))]
        for path in missing:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(self._work / "site")
        return [package(path) for path in missing]

    def look(self) -> dict[str, str]:
        """Returns what the machine says of itself: devices, which modules fail, the driver, unmet requirements."""
        modules = sorted({command.split()[0] for step in STEPS for command in step.commands})
        commands = {
            "jax": [sys.executable, "-c", SEES_DEVICES],
            "imports": [sys.executable, "-c", f"import {', '.join(modules)}"],
            "driver": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv"],
            "pip check": [sys.executable, "-m", "pip", "check"],
        }
        return {name: self._say(command) for name, command in commands.items()}

    def _say(self, command: list[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), timeout=60, cwd=ROOT)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return (done.stdout + done.stderr).strip()[-2_000:]

    def take(self, step: Step) -> None:
        """Takes a step within the call's time, and keeps what came of it."""
        limit = min(self.left, max(3 * step.seconds, 60))
        started = time.monotonic()
        rows = self._work / "rows" / f"{step.name}.json"
        rows.unlink(missing_ok=True)
        log = self._out / "log.txt"
        begins = log.stat().st_size if log.exists() else 0
        state, code = DONE, 0
        for template in step.toy if self._toy else step.commands:
            arguments = [part.format(rows=rows, work=self._work) for part in shlex.split(template)]
            code = self._run([sys.executable, "-m", *arguments], log, limit - (time.monotonic() - started))
            if code:
                state = STOPPED if code == -signal.SIGKILL else FAILED
                break
        with log.open("rb") as file:
            file.seek(begins)
            tail = file.read().decode(errors="replace")[-TAIL:]
        self.results["steps"][step.name] = {
            "state": state,
            "exit_code": code,
            "seconds": round(time.monotonic() - started, 1),
            "rows": json.loads(rows.read_text(encoding="utf-8")) if state == DONE and rows.exists() else [],
            "tail": tail,
        }
        self.save()

    def _run(self, command: list[str], log: pathlib.Path, seconds: float) -> int:
        """Returns the exit code; that of SIGKILL where the time was over and the command, with its children, ended."""
        with log.open("ab") as file:
            file.write(f"\n$ {shlex.join(command)}\n".encode())
            file.flush()
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env=self.environment(), cwd=ROOT, start_new_session=True
            )
            try:
                return process.wait(max(seconds, 0))
            except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(error, KeyboardInterrupt):
                    raise
                return -signal.SIGKILL

    def save(self) -> None:
        """Writes the results; a kill leaves the ones before."""
        partial = self._out / "results.partial"
        partial.write_text(json.dumps(self.results, indent=1), encoding="utf-8")
        partial.replace(self._out / "results.json")


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def wanted_seconds(step: Step, results: dict[str, Any]) -> float:
    """Returns what a step is thought to take: more than it had when it was stopped for time."""
    before = results["steps"].get(step.name, {})
    return max(step.seconds, 1.2 * before["seconds"]) if before.get("state") == STOPPED else step.seconds


def in_order(steps: Sequence[Step], results: dict[str, Any]) -> list[Step]:
    """Returns the steps that are not done: first what was never begun, then what was stopped, then what failed."""
    order = {None: 0, STOPPED: 1, FAILED: 2}
    states = {step.name: results["steps"].get(step.name, {}).get("state") for step in steps}
    return sorted((step for step in steps if states[step.name] != DONE), key=lambda step: order[states[step.name]])


def take_all(call: Call, steps: Sequence[Step]) -> list[str]:
    """Takes what is not done and fits; returns the names of the steps that failed."""
    failed = []
    for step in in_order(steps, call.results):
        seconds = wanted_seconds(step, call.results)
        if step.needs and importlib.util.find_spec(step.needs) is None:
            print(f"{step.name:<24}left out: {step.needs} is not installed", flush=True)
        elif seconds > call.left:
            print(f"{step.name:<24}not begun: about {seconds:.0f} s, {max(call.left, 0):.0f} s are left", flush=True)
        else:
            call.take(step)
            found = call.results["steps"][step.name]
            print(f"{step.name:<24}{found['state']} in {found['seconds']:.0f} s, {len(found['rows'])} rows", flush=True)
            if found["state"] == FAILED:
                failed.append(step.name)
                print("\n".join(f"    {line}" for line in found["tail"].splitlines()[-5:]), flush=True)
    return failed


def read_results(path: pathlib.Path | None) -> dict[str, Any]:
    """Returns the results of earlier calls, or none.

    Raises:
      ValueError: the file is not one that this command wrote.
    """
    if path is None:
        return {"calls": [], "steps": {}}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); expected the results.json of an earlier call") from error
    if not isinstance(results, dict) or not {"calls", "steps"} <= set(results):
        raise ValueError(f"{path} is no results.json of an earlier call: it has no calls and steps")
    return results


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any], list[Step]]:
    """Returns the arguments, the earlier results and the steps that are asked for."""
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    path = pathlib.Path
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="gets results.json and log.txt")
    parser.add_argument("--wheels", type=path, metavar="DIR", help="of benchmarks.gpu.collect (default: none)")
    parser.add_argument("--done", type=path, metavar="FILE", help="results.json of the call before")
    parser.add_argument("--minutes", type=float, default=8.5, help="of this call (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS], metavar="STEP", help="default: all")
    parser.add_argument("--commit", default="", help="of this code, for results made outside of a git checkout")
    parser.add_argument("--toy", action="store_true", help="a dry run on the CPU, at sizes that mean nothing")
    parser.add_argument("--list", action="store_true", help="print the steps and their seconds, and exit")
    arguments = parser.parse_args(argv)
    if arguments.wheels is not None and not any(arguments.wheels.glob("*.whl")):
        parser.error(f"{arguments.wheels} holds no wheels; expected those of benchmarks.gpu.collect")
    try:
        results = read_results(arguments.done)
    except ValueError as error:
        parser.error(str(error))
    if results.get("toy", arguments.toy) != arguments.toy:
        parser.error(f"{arguments.done} is of a {'dry' if results['toy'] else 'real'} run, and this is none")
    steps = [step for step in STEPS if not arguments.only or step.name in arguments.only]
    return arguments, results, [step for step in steps if step.toy or not arguments.toy]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 nothing failed, 2 bad input, 3 a step failed or there is no GPU."""
    arguments, results, steps = parse(argv)
    if arguments.list:
        for step in steps:
            print(f"{step.name:<24}{step.seconds:>5.0f} s  {' && '.join(step.toy if arguments.toy else step.commands)}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = pathlib.Path(tempfile.mkdtemp(prefix="gpu_"))
    try:
        call = Call(arguments.out, work, 60 * arguments.minutes, results, toy=arguments.toy)
        unpacked = call.unpack(arguments.wheels) if arguments.wheels else []
        facts = call.look() | {"unpacked": " ".join(unpacked), "commit": arguments.commit}
        results["calls"].append(facts)
        call.save()
        print(f"device    {facts['jax']}\ndriver    {facts['driver']}\nunpacked  {len(unpacked)} wheels", flush=True)
        if facts["imports"]:
            print(f"imports   {facts['imports']}", flush=True)
        if not arguments.toy and " gpu " not in facts["jax"]:
            print("JAX sees no GPU here; expected one, or --toy", file=sys.stderr)
            return 3
        failed = take_all(call, steps)
    except KeyboardInterrupt:
        print(f"stopped; {arguments.out / 'results.json'} holds what was done", file=sys.stderr)
        return 75
    finally:
        shutil.rmtree(work, ignore_errors=True)
    undone = [step.name for step in in_order(steps, results)]
    print(f"written   {arguments.out / 'results.json'}; {len(steps) - len(undone)} of {len(steps)} steps are done")
    if undone:
        print(f"not done  {', '.join(undone)}")
    return 3 if failed or facts["imports"] else 0


if __name__ == "__main__":
    sys.exit(main())
