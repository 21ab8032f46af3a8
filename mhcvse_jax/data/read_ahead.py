"""Reading ahead, by threads."""

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def read_ahead(read: Callable[[int], T], number: int, *, start: int = 0, threads: int, prefetch: int) -> Iterator[T]:
    """Yields read(start), read(start + 1), ..., read(number - 1), in order.

    Args:
      read: reads one number; several threads call it at once.
      number: one more than the last that is read.
      start: the first that is read.
      threads: the number of threads that read.
      prefetch: how many results may wait to be used.
    """
    if number - start <= 1:  # nothing to read ahead of
        yield from map(read, range(start, number))
        return
    import grain  # here, as it takes a third of a second that a command which reads no features need not wait

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    yield from grain.MapDataset.range(start, number).map(read).to_iter_dataset(options)
