"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import tqdm

from mhcvse_jax.devices import distributed

LINE_SECONDS = 10.0  # between two plain lines


@contextlib.contextmanager
def counted(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Context with a function to call after each part of the work, with how many units it was."""
    bar = tqdm.tqdm(total=total, unit=unit, unit_scale=True, dynamic_ncols=True, leave=False, disable=None)
    started = last_line = time.monotonic()
    done = 0

    def add(number: int) -> None:
        nonlocal done, last_line
        done += number
        bar.update(number)
        now = time.monotonic()
        if bar.disable and now - last_line >= LINE_SECONDS:
            last_line = now
            rate = done / (now - started)
            left = tqdm.tqdm.format_interval((total - done) / rate)
            print(f"          {done:,}/{total:,} {unit}s  {rate:,.0f} {unit}s/s  {left} left", flush=True)

    with bar:
        yield add


def say(line: str) -> None:
    """Prints a line without breaking a bar."""
    with tqdm.tqdm.external_write_mode():
        print(line, flush=True)


class ProgressBar:
    """Epoch, steps, rate, time left, each loss and its weight."""

    def __init__(self, total_steps: int, first_step: int):
        """Takes the steps of the whole training and those done before this start."""
        self._total, self._first, self._step = total_steps, first_step, first_step
        self._started = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and distributed.is_first():
            self._bar = tqdm.tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True, smoothing=0.1)

    def update(self, step: int, epoch: str, values: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, with the newest known values of a step."""
        terms = [key.removeprefix("loss_") for key in values if key.startswith("loss_")]
        losses = "  ".join(f"{name} {values[f'loss_{name}']:.3g} x{values[f'weight_{name}']:.3g}" for name in terms)
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch}", refresh=False)
            self._bar.set_postfix_str(losses, refresh=False)
            self._bar.update(step - self._step)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            rate = (step - self._first) / (self._last_line - self._started)
            left = tqdm.tqdm.format_interval((self._total - step) / rate)
            print(
                f"epoch {epoch}  step {step}/{self._total}  {rate:.2f} steps/s  {left} left  {losses}",
                flush=True,
            )
        self._step = step

    def say(self, text: str) -> None:
        """Prints a line or more without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
