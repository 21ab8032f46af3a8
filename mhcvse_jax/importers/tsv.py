"""Tables of tab-separated lines, one per picture, with arrays in base64."""

import abc
import base64
import binascii
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_unpacked
from mhcvse_jax.importers.importer import Entry, Importer, Index, checked, whole_number
from mhcvse_jax.precompute.directory import Made

_MORE = {  # columns beside those that all have: field of Regions, type
    "objects_id": ("classes", "<i8"),
    "objects_conf": ("class_scores", "<f4"),
    "attrs_id": ("attributes", "<i8"),
    "attrs_conf": ("attribute_scores", "<f4"),
}


class Lines(Importer):
    """Files of long lines whose positions are remembered; one line at a time is in memory."""

    num_columns: ClassVar[int]

    def __init__(self, paths: Sequence[pathlib.Path], **options: Any):
        for path in paths:
            if not path.is_file():
                what = "a directory" if path.is_dir() else "no such file"
                raise InputError(f"{path}: {what}; expected a file of {self.summary}")
            check_unpacked(path)
        self._paths = paths

    def size(self) -> tuple[int, str]:
        return sum(path.stat().st_size for path in self._paths), "byte"

    def index(self, done: Callable[[int], None]) -> Index:
        for number, path in enumerate(self._paths):
            with path.open("rb") as file:
                start = 0
                for line_number, line in enumerate(file, start=1):
                    try:
                        yield self._entry(f"{path} line {line_number}", line, (number, start))
                    except InputError as error:
                        if line_number == 1:
                            raise
                        yield error
                    start += len(line)
                    done(len(line))

    def _entry(self, where: str, line: bytes, place: tuple[int, int]) -> tuple[str, Entry]:
        cells = _cells(line)
        if len(cells) != self.num_columns:
            raise InputError(f"{where}: {len(cells)} columns; expected {self.num_columns}, as --format {self.name} has")
        try:
            return cells[0].decode("utf-8").strip(), Entry(place, self.num_regions(where, cells))
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 ({error.reason})") from error

    def read(self, entry: Entry) -> Made:
        number, start = entry.place
        with self._paths[number].open("rb") as file:
            file.seek(start)
            cells = _cells(file.readline())
        return self.parse(f"{self._paths[number]}, picture {cells[0].decode()}", cells)

    @abc.abstractmethod
    def num_regions(self, where: str, cells: Sequence[bytes]) -> int:
        """Returns how many regions a line has."""

    @abc.abstractmethod
    def parse(self, where: str, cells: Sequence[bytes]) -> Made:
        """Returns what a line says about its picture."""


def _cells(line: bytes) -> list[bytes]:
    return line.rstrip(b"\r\n").split(b"\t")


class _Columns(Lines):
    """One column per fact; numbers as text, arrays in base64."""

    columns: ClassVar[tuple[str, ...]]

    def num_regions(self, where: str, cells: Sequence[bytes]) -> int:
        return whole_number(f"{where}: num_boxes", cells[self.columns.index("num_boxes")].decode(errors="replace"))

    def parse(self, where: str, cells: Sequence[bytes]) -> Made:
        row = dict(zip(self.columns, cells, strict=True))
        width, height, num = (
            whole_number(f"{where}: {name}", row[name].decode(errors="replace"))
            for name in ("width", "height", "num_boxes")
        )
        more = {
            field: decode(where, row[name], dtype, num, 1)[:, 0]
            for name, (field, dtype) in _MORE.items()
            if name in row
        }
        boxes, features = decode(where, row["boxes"], "<f4", num, 4), decode(where, row["features"], "<f4", num)
        return checked(where, features, boxes, (width, height), **more)


class ButdTsv(_Columns):
    """Anderson et al., "Bottom-Up and Top-Down Attention", CVPR 2018: width comes before height."""

    name = "butd_tsv"
    summary = "6 columns: image_id, image_w, image_h, num_boxes, boxes, features"
    columns = ("image_id", "width", "height", "num_boxes", "boxes", "features")
    num_columns = len(columns)


class LxmertTsv(_Columns):
    """Tan and Bansal, "LXMERT", EMNLP 2019: height comes before width."""

    name = "lxmert_tsv"
    summary = (
        "10 columns: img_id, img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf, num_boxes, boxes, features"
    )
    columns = ("image_id", "height", "width", *_MORE, "num_boxes", "boxes", "features")
    num_columns = len(columns)


def decode(where: str, text: bytes | str, dtype: str, num: int, width: int | None = None) -> np.ndarray:
    """Returns the array [num, width] that base64 holds; the width is what is there where None.

    Raises:
      InputError: it is not base64, or of another size.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: not base64 ({error})") from error
    size, item = len(data), np.dtype(dtype).itemsize
    if not num or size % (num * item) or (width is not None and size != num * width * item):
        raise InputError(f"{where}: {size:,} bytes; expected {num} rows of {dtype} numbers")
    return np.frombuffer(data, dtype).reshape(num, -1)
