"""The values of each step, written as JSON lines and TensorBoard events."""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.losses import CONTRASTIVE
from mhcvse_jax.workdir import whole_file


class MetricsLog:
    """`metrics.jsonl`, one line a step or a validation, and TensorBoard events beside it."""

    def __init__(self, workdir: pathlib.Path, *, resume_step: int):
        """Opens both for appending; what they hold of later steps than `resume_step` is dropped."""
        path = workdir / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= resume_step]
            if kept != lines:
                with whole_file(path) as partial:
                    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._workdir = workdir
        self._file = path.open("a", encoding="utf-8")
        directory = workdir / "tensorboard"
        directory.mkdir(exist_ok=True)
        # Not SummaryWriter: its thread takes an error of the disk with it, and the run would never know.
        self._events = EventsWriter(str(directory / "events"))
        # TensorBoard hides what an earlier start logged from this step on.
        self._events.write_event(Event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, Any], *, kind: str) -> None:
        """Writes a line {step, kind, **values}, and each number as an event `kind/name`.

        JSON knows no NaN nor infinity: they are written as text.
        """
        line = {name: value if _is_json(value) else str(value) for name, value in values.items()}
        numbers = [
            Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in values.items()
            if isinstance(value, int | float)
        ]
        with self._named():
            self._file.write(json.dumps({"step": step, "kind": kind, **line}, allow_nan=False) + "\n")
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=numbers)))

    def flush(self) -> None:
        """Hands what was written to the operating system."""
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
        """Context in which an error of the disk says where it is."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or f"{self._workdir}: metrics not written"
            raise


class NoLog(MetricsLog):
    """Writes nothing: of several processes one writes for all."""

    def __init__(self):
        pass

    def write(self, step: int, values: Mapping[str, Any], *, kind: str) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def _step(line: str) -> float:
    """Returns the step of a line; a line cut off by a crash counts as later than any."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf


def _is_json(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class NonFiniteWatch:
    """What is done about a step with a loss or gradient that is not a finite number.

    The step itself leaves the parameters as they were; so does every one after it, until someone looks.
    """

    def __init__(self, policy: str, limit: int, pictures_of: Callable[[int], Sequence[str]]):
        """Takes "stop" or "skip", the steps that may be skipped, and how to find the picture ids of a step."""
        self._policy, self._limit, self._pictures_of = policy, limit, pictures_of

    def update(self, step: int, values: Mapping[str, float], skipped_before: int) -> str | None:
        """Returns a warning where this step was skipped, None where all its values are finite.

        Raises:
          RunFailedError: the policy is "stop", or too many have been skipped. Names step, term and pictures.
        """
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if not wrong:
            return None
        terms = ", ".join(
            f"{name} {values[name]}" for name in sorted(wrong, key=lambda name: not name.startswith("loss_"))
        )
        what = f"step {step}: not finite: {terms}; pictures of its batch: {' '.join(self._pictures_of(step))}"
        if self._policy == "skip":
            if skipped_before < self._limit:
                return f"{what}; skipped, {skipped_before + 1} of {self._limit} that may be"
            what += f"; config.optimizer.nonfinite_limit, {self._limit}, was reached"
        raise RunFailedError(
            f"{what}. The last checkpoint is from before it; a lower config.optimizer.learning_rate or a look at "
            "the features may help"
        )


class CollapseWatch:
    """Notices a contrastive loss that stays where it is when all embeddings are one."""

    TOLERANCE = 0.01  # relative

    def __init__(self, value_at: Callable[[str, int], float], patience_steps: int):
        """Takes the collapse value by term and step, and the steps there before it is reported, once a term."""
        self._value_at = value_at
        self._patience = patience_steps
        self._steps: dict[str, int] = {}

    def update(self, step: int, values: Mapping[str, float]) -> str | None:
        """Returns a warning when a term of this step has been collapsed for long, else None."""
        for name in CONTRASTIVE:
            if f"loss_{name}" not in values:
                continue
            collapse = self._value_at(name, step)
            collapsed = abs(values[f"loss_{name}"] - collapse) <= self.TOLERANCE * collapse
            self._steps[name] = self._steps.get(name, 0) + 1 if collapsed else 0
            if self._steps[name] == self._patience:
                return (
                    f"the {name} loss has been at its collapse value, {collapse:.4g}, for {self._patience} steps: "
                    "all embeddings are alike. Try more config.loss.all_negatives_epochs, a lower "
                    "config.optimizer.learning_rate or config.optimizer.warmup_epochs=1"
                )
        return None
