"""The values of each step, written as JSON lines and TensorBoard events."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorboardX

from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.losses import CONTRASTIVE


class MetricsLog:
    """`metrics.jsonl`, one line a step or a validation, and TensorBoard events beside it."""

    def __init__(self, workdir: pathlib.Path, *, resume_step: int):
        """Opens both for appending; what they hold of later steps than `resume_step` is dropped."""
        path = workdir / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= resume_step]
            if kept != lines:
                partial = path.with_suffix(".partial")
                partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
                partial.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, Any], *, kind: str) -> None:
        """Writes a line {step, kind, **values}, and each number as an event `kind/name`."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Hands what was written to the operating system."""
        self._file.flush()
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes both."""
        self.flush()
        self._file.close()
        self._events.close()


def _step(line: str) -> float:
    """Returns the step of a line; a line cut off by a crash counts as later than any."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf


def check_finite(step: int, values: Mapping[str, float]) -> None:
    """Raises RunFailedError, naming the first term that is not a finite number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise RunFailedError(
                f"step {step}: {name} is {value}; a lower config.optimizer.learning_rate or a look at the "
                "features may help"
            )


class CollapseWatch:
    """Notices a contrastive loss that stays where it is when all embeddings are one."""

    TOLERANCE = 0.01  # relative

    def __init__(self, value_at: Callable[[int], float], patience_steps: int):
        """Takes the collapse value by step, and the steps there before it is reported, once a term."""
        self._value_at = value_at
        self._patience = patience_steps
        self._steps: dict[str, int] = {}

    def update(self, step: int, values: Mapping[str, float]) -> str | None:
        """Returns a warning when a term of this step has been collapsed for long, else None."""
        collapse = self._value_at(step)
        for name in CONTRASTIVE:
            collapsed = abs(values[f"loss_{name}"] - collapse) <= self.TOLERANCE * collapse
            self._steps[name] = self._steps.get(name, 0) + 1 if collapsed else 0
            if self._steps[name] == self._patience:
                return (
                    f"the {name} loss has been at its collapse value, {collapse:.4g}, for {self._patience} steps: "
                    "all embeddings are alike. Try more config.loss.all_negatives_epochs, a lower "
                    "config.optimizer.learning_rate or config.optimizer.warmup_epochs=1"
                )
        return None
