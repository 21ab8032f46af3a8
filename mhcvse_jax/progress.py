"""Progress of long work that is counted: a bar on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

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
            print(f"          {done:,}/{total:,} {unit}s  {rate:,.0f} {unit}s/s  {left} left", flush=True)

    with bar:
        yield add


def say(line: str) -> None:
    """Prints a line without breaking a bar."""
    with tqdm.tqdm.external_write_mode():
        print(line, flush=True)
