"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import tqdm

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
            print(f"          {_shown(done, total, rate, unit)}  {left} left", flush=True)

    with bar:
        yield add


def _shown(done: int, total: int, rate: float, unit: str) -> str:
    """Returns how much is done and how fast, such as "7/8,000 pictures  2.5 pictures/min"."""
    if unit == "byte":
        return f"{done / 1e6:,.0f}/{total / 1e6:,.0f} MB  {rate / 1e6:,.1f} MB/s"
    speed = f"{rate:,.0f} {unit}s/s" if rate >= 10 else f"{rate:.1f} {unit}s/s" if rate >= 1 else None
    return f"{done:,}/{total:,} {unit}s  {speed or f'{60 * rate:.1f} {unit}s/min'}"


def say(line: str) -> None:
    """Prints a line without breaking a bar."""
    with tqdm.tqdm.external_write_mode():
        print(line, flush=True)


class ProgressBar:
    """Epoch, steps, rate, time left, each loss and its weight."""

    def __init__(self, total_steps: int, first_step: int, *, is_first: bool):
        """Takes the steps of the whole training, those done before this start, and whether this process may print."""
        self._total = total_steps
        self._last_line = time.monotonic()
        self._measured_from: tuple[int, float] | None = None  # step and time, once the first steps are compiled
        self._bar = None
        if sys.stderr.isatty() and is_first:
            self._bar = tqdm.tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True, smoothing=0.1)
            self._bar.set_description("compiling")

    def update(self, step: int, epoch: str, values: Mapping[str, float]) -> None:
        """Shows that `step` steps are done, with the newest known values of a step."""
        terms = [key.removeprefix("loss_") for key in values if key.startswith("loss_")]
        losses = "  ".join(f"{name} {values[f'loss_{name}']:.3g} x{values[f'weight_{name}']:.3g}" for name in terms)
        now = time.monotonic()
        if self._bar is not None:
            if self._measured_from is None:  # the bar, too, measures from here on
                self._bar.reset(self._total)
                self._bar.initial = self._bar.n = self._bar.last_print_n = step
            self._bar.set_description(f"epoch {epoch}", refresh=False)
            self._bar.set_postfix_str(losses, refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            print(f"epoch {epoch}  step {step}/{self._total}  {self._speed(step, now)}  {losses}", flush=True)
        if self._measured_from is None:
            self._measured_from = step, now

    def _speed(self, step: int, now: float) -> str:
        """Returns rate and time left by the steps after the first that were shown, which waited for the compiler."""
        if self._measured_from is None:
            return "compiling"
        first, since = self._measured_from
        rate = (step - first) / (now - since)
        return f"{rate:.2f} steps/s  {tqdm.tqdm.format_interval((self._total - step) / rate)} left"

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
