"""The features of a split while it is made: a .npy of known size whose rows are written in any order."""

import os
import pathlib
from collections.abc import Iterable
from typing import IO

import numpy as np
from numpy.lib import format as npy_format


def write_array(path: pathlib.Path, values: np.ndarray) -> None:
    """Writes what `np.save` does; unlike NumPy's own writing, a full disk raises an OSError that says so."""
    with path.open("wb") as file:
        npy_format.write_array_header_1_0(file, npy_format.header_data_from_array_1_0(values))
        file.write(values.tobytes())


class FeatureFile:
    """<float32>[pictures, regions, features], zeros at first; rows that nobody writes take no space on the disk.

    Written by seeking, not by a memory map, so that a full disk is an OSError and not the end of the process.
    """

    def __init__(self, path: pathlib.Path, row_shape: tuple[int, int]):
        """Names the file; `row_shape` is (regions, features)."""
        self.path = path
        self._row_shape = row_shape
        self._row_bytes = 4 * row_shape[0] * row_shape[1]

    def allocate(self, rows: int) -> None:
        """Makes the file, with zeros."""
        with self.path.open("wb") as file:
            self._write_header(file, rows)
            file.truncate(file.tell() + rows * self._row_bytes)

    def write(self, rows: Iterable[tuple[int, np.ndarray]]) -> None:
        """Writes <float32>[n, features] to the start of each row, n at most regions; returns when they are on disk."""
        with self.path.open("r+b") as file:
            start = self._start(file)
            for place, features in rows:
                row = np.zeros(self._row_shape, "<f4")
                row[: len(features)] = features
                file.seek(start + place * self._row_bytes)
                file.write(row.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def keep(self, is_kept: np.ndarray) -> np.ndarray:
        """Leaves out rows: the last fill their places, in place; what was stopped half-way can be done again.

        Args:
          is_kept: <bool>[rows] of the file as it was allocated.

        Returns:
          <int64>[kept], the row that each row of the file now was.
        """
        num = int(is_kept.sum())
        kept = np.arange(num)
        kept[~is_kept[:num]] = num + np.flatnonzero(is_kept[num:])
        if num < len(is_kept) and self.path.exists():
            with self.path.open("r+b") as file:
                start = self._start(file)
                for place in np.flatnonzero(~is_kept[:num]):
                    file.seek(start + int(kept[place]) * self._row_bytes)
                    row = file.read(self._row_bytes)
                    file.seek(start + int(place) * self._row_bytes)
                    file.write(row)
                file.seek(0)
                self._write_header(file, num)  # as long as before: NumPy leaves room for larger numbers
                file.truncate(start + num * self._row_bytes)
        return kept

    def _start(self, file: IO[bytes]) -> int:
        npy_format.read_magic(file)
        npy_format.read_array_header_1_0(file)
        return file.tell()

    def _write_header(self, file: IO[bytes], rows: int) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, *self._row_shape)}
        npy_format.write_array_header_1_0(file, header)
