"""The interface of every feature format: an index of its pictures, and the regions of each."""

import abc
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.directory import Made
from mhcvse_jax.precompute.regions import Regions

BEYOND = 2  # pixels by which a box may reach out of its picture, for rounding


class Entry(NamedTuple):
    """A picture in a source; sorted, entries are in the order in which they are read fastest."""

    place: tuple[Any, ...]
    num_regions: int


Index = Iterator[tuple[str, Entry] | InputError]
"""Id and entry of each picture, or what is wrong with it."""


class Importer(abc.ABC):
    """Files of one format. Its arguments are their paths and, by name, what `add_options` adds."""

    name: ClassVar[str]
    summary: ClassVar[str]  # of the layout, in some words

    @classmethod  # noqa: B027 - most formats have none
    def add_options(cls, options: Any) -> None:
        """Adds the options that this format alone has to a group of the command line's."""

    @abc.abstractmethod
    def __init__(self, paths: Sequence[pathlib.Path], **options: Any): ...

    @abc.abstractmethod
    def size(self) -> tuple[int, str]:
        """Returns how much there is to index, and its unit."""

    @abc.abstractmethod
    def index(self, done: Callable[[int], None]) -> Index:
        """Yields all pictures, reading features only if necessary. Calls `done` with how much it has read.

        Raises:
          InputError: the files are missing, or of another format.
        """

    def names(self) -> dict[str, list[str]]:
        """Returns the names of "classes" and "attributes" that the files themselves have; complete after `index`."""
        return {}

    @abc.abstractmethod
    def read(self, entry: Entry) -> Made:
        """Returns the regions of a picture, and its size or 0, 0.

        Raises:
          InputError: they are damaged.
        """


def checked(
    where: str,
    features: np.ndarray,
    boxes: np.ndarray | None,
    size: tuple[int, int],
    **more: np.ndarray,
) -> Made:
    """Returns what was read of a picture, its shapes and numbers checked.

    Args:
      where: names the picture in messages.
      features: [n, F], of floating-point numbers.
      boxes: [n, 4 or more], x1 y1 x2 y2 in pixels; None where not known.
      size: width and height in pixels; 0, 0 where not known.
      more: further fields of `Regions`, [n] each.

    Raises:
      InputError: a shape or a number is wrong.
    """
    if features.ndim != 2 or not features.size or features.dtype.kind != "f":
        raise InputError(f"{where}: features {features.dtype} {features.shape}; expected float32 [regions, features]")
    features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise InputError(f"{where}: features that are not finite")
    num = len(features)
    boxes = np.zeros((num, 4)) if boxes is None else boxes
    if boxes.ndim != 2 or len(boxes) != num or boxes.shape[1] < 4:
        raise InputError(f"{where}: {num} regions and boxes {boxes.shape}; expected [{num}, 4]")
    boxes = boxes[:, :4].astype(np.float32)
    if not np.isfinite(boxes).all():
        raise InputError(f"{where}: boxes that are not finite")
    if any(size) and min(size) < 1:
        raise InputError(f"{where}: a picture of {size[0]} x {size[1]} pixels")
    right, bottom = boxes[:, 2].max(), boxes[:, 3].max()
    width, height = (side + BEYOND for side in size)
    if any(size) and (right > width or bottom > height) and right <= height and bottom <= width:
        raise InputError(
            f"{where}: boxes reach to {right:.0f}, {bottom:.0f} in a picture of width {size[0]} and height {size[1]}; "
            "expected within it: the format has width and height the other way round"
        )
    if any(values.shape != (num,) for values in more.values()):
        raise InputError(f"{where}: {', '.join(more)} {[v.shape for v in more.values()]}; expected [{num}] each")
    return Made(Regions(features, boxes, **more), size)


def files_in(paths: Sequence[pathlib.Path], suffix: str) -> list[pathlib.Path]:
    """Returns the files of a suffix in the one folder that is given, sorted.

    Raises:
      InputError: more than one path is given, it is not a folder, or it holds no such file.
    """
    if len(paths) != 1 or not paths[0].is_dir():
        raise InputError(f"{', '.join(map(str, paths))}: no such directory; expected one, of {suffix} files")
    found = sorted(path for path in paths[0].iterdir() if path.suffix == suffix)
    if not found:
        raise InputError(f"{paths[0]}: no {suffix} file in it; expected one per picture")
    return found


def whole_number(where: str, text: Any) -> int:
    """Returns the whole number, 0 or more, that a text, a number or an array of one holds.

    Raises:
      InputError: it is not a whole number.
    """
    try:
        value = float(text.item() if isinstance(text, np.ndarray) else text)
        number = int(value) if value.is_integer() else -1
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise InputError(f"{where}: {str(text)[:40]!r}; expected a whole number")
    return number
