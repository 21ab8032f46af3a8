"""The values of each step, written as JSON lines and TensorBoard events."""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mhcvse_jax.files.whole import whole_file


class MetricsLog:
    """`metrics.jsonl`, one line a step or a validation, and TensorBoard events beside it."""

    def __init__(self, workdir: pathlib.Path, *, resume_step: int):
        """Opens both for appending; drops what they hold of steps after `resume_step`."""
        path = workdir / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= resume_step]
            if kept != lines:
                with whole_file(path) as partial:
                    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._workdir = workdir
        self._file = path.open("a", encoding="utf-8")
        # Here, as tensorboardX imports PyTorch where that is installed, which takes seconds.
        from mhcvse_jax.training.event_log import EventLog

        self._events = EventLog(workdir / "tensorboard", resume_step=resume_step)

    def write(self, step: int, values: Mapping[str, Any], *, kind: str) -> None:
        """Writes a line {step, kind, **values}, and each number as an event `kind/name`.

        JSON knows no NaN nor infinity: they are written as text.
        """
        line = {name: value if _is_json(value) else str(value) for name, value in values.items()}
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        with self._named():
            self._file.write(json.dumps({"step": step, "kind": kind, **line}, allow_nan=False) + "\n")
            self._events.write(step, numbers, kind=kind)

    def flush(self) -> None:
        """Flushes what was written to the operating system."""
        with self._named():
            self._file.flush()
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes both."""
        with self._named():
            self._file.close()
            self._events.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Context that names the file in a disk error."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or f"{self._workdir}: metrics not written"
            raise


class NoLog(MetricsLog):
    """Writes nothing: with several processes, one writes for all."""

    def __init__(self):
        pass

    def write(self, step: int, values: Mapping[str, Any], *, kind: str) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def _step(line: str) -> float:
    """Returns the step of a line; a line cut off by a crash counts as later than any step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf


def _is_json(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
