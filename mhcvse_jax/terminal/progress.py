"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import tqdm

LINE_SECONDS = 10.0  # between two plain lines


class ProgressBar:
    """How much is done out of how much, the rate, and the time left."""

    def __init__(self, total: int, unit: str, *, done: int = 0, compiles: bool = False, is_shown: bool = True):
        """Begins to measure.

        Args:
          total: all there is to do, in units.
          unit: the name of one, such as "picture".
          done: how much of it an earlier process did.
          compiles: whether the first units wait for the compiler; then the rest alone gives rate and time left.
          is_shown: whether this process may print.
        """
        self._total, self._unit, self._is_shown = total, unit, is_shown
        self._last_line = time.monotonic()
        self._measured_from = None if compiles else (done, self._last_line)
        self._bar = None
        if is_shown and sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=total,
                initial=done,
                unit=unit,
                unit_scale=total >= 1e6,
                dynamic_ncols=True,
                leave=compiles,  # a training's stays
            )
            if compiles:
                self._bar.set_description("compiling")

    def update(self, done: int, before: str = "", after: str = "") -> None:
        """Shows that `done` units are done, with words before and after that."""
        now = time.monotonic()
        if self._bar is not None:
            if self._measured_from is None:  # the bar, too, measures from here on
                self._bar.reset(self._total)
                self._bar.initial = self._bar.n = self._bar.last_print_n = done
            self._bar.set_description(before, refresh=False)
            self._bar.set_postfix_str(after, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._is_shown and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            line = "  ".join(filter(None, (before, self._amount(done), self._speed(done, now), after)))
            print(line if before else f"          {line}", flush=True)
        if self._measured_from is None:
            self._measured_from = done, now

    def _amount(self, done: int) -> str:
        if self._unit == "byte":
            return f"{done / 1e6:,.0f}/{self._total / 1e6:,.0f} MB"
        return f"{done:,}/{self._total:,} {self._unit}s"

    def _speed(self, done: int, now: float) -> str:
        if self._measured_from is None:
            return "compiling"
        first, since = self._measured_from
        rate = (done - first) / (now - since)
        left = tqdm.tqdm.format_interval((self._total - done) / rate)
        if self._unit == "byte":
            return f"{rate / 1e6:,.1f} MB/s  {left} left"
        number, period = (rate, "s") if rate >= 1 else (60 * rate, "min")
        return f"{number:,.{0 if rate >= 10 else 1}f} {self._unit}s/{period}  {left} left"

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def counted(total: int, unit: str, *, compiles: bool = False, is_shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Context with a function to call after each part of the work, with the number of units done."""
    bar, done = ProgressBar(total, unit, compiles=compiles, is_shown=is_shown), 0

    def add(number: int) -> None:
        nonlocal done
        done += number
        bar.update(done)

    try:
        yield add
    finally:
        bar.close()


def say(text: str) -> None:
    """Prints a line or more without breaking a bar."""
    with tqdm.tqdm.external_write_mode():
        print(text, flush=True)
