"""HDF5: the files of hengyuan-hu's bottom-up-attention-vqa, and those of VLP."""

import pathlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files import safe_pickle
from mhcvse_jax.files.downloads import check_unpacked
from mhcvse_jax.importers.importer import Entry, Importer, Index, checked
from mhcvse_jax.precompute.directory import Made


class ButdHdf5(Importer):
    """Arrays of all pictures, and a pickle {image id: row}; with `pos_boxes`, regions of varying number."""

    name = "butd_hdf5"
    summary = "image_features [N, 36, F], image_bb, spatial_features; --ids is the pickle {image id: row}"

    @classmethod
    def add_options(cls, options: Any) -> None:
        options.add_argument(
            "--ids", type=pathlib.Path, metavar="FILE.pkl", help="image id to row (default: NAME_imgid2idx.pkl)"
        )

    def __init__(self, paths: Sequence[pathlib.Path], *, ids: pathlib.Path | None = None):
        if len(paths) != 1:
            raise InputError(f"{len(paths)} files; expected one of {self.name}")
        (path,) = paths
        self._path, self._file = path, _open(path)
        self._ids_path = ids or path.with_name(f"{path.stem}_imgid2idx.pkl")
        missing = [name for name in ("image_features", "image_bb") if name not in self._file]
        if missing:
            raise InputError(f"{path}: no {missing[0]} in it; expected {self.summary}")
        self._rows = safe_pickle.load_arrays(self._ids_path)
        if not isinstance(self._rows, dict) or not all(_is_row(row) for row in self._rows.values()):
            raise InputError(f"{self._ids_path}: expected a dict, image id to row")

    def size(self) -> tuple[int, str]:
        return len(self._rows), "picture"

    def index(self, done: Callable[[int], None]) -> Index:
        features = self._file["image_features"]
        bounds = self._file["pos_boxes"][:] if "pos_boxes" in self._file else None
        num = len(features) if bounds is None else len(bounds)
        for image_id, row in self._rows.items():
            if row >= num:
                yield InputError(f"{self._ids_path}: row {row} of {image_id}; expected below {num}")
            else:
                start, end = (row, row + 1) if bounds is None else map(int, bounds[row])
                yield str(image_id), Entry((start, end), features.shape[1] if bounds is None else end - start)
            done(1)

    def read(self, entry: Entry) -> Made:
        rows = slice(*entry.place)
        where = f"{self._path} rows {rows.start} to {rows.stop - 1}"
        features, boxes, shares = (
            self._read(name, rows) for name in ("image_features", "image_bb", "spatial_features")
        )
        return checked(where, features, boxes, _size(boxes, shares))

    def _read(self, name: str, rows: slice) -> Any:
        """Returns [n, width] of a picture; None where the file has no such array."""
        if name not in self._file:
            return None
        found = _values(self._path, self._file[name], rows)
        return found[0] if found.ndim == 3 else found


class VlpHdf5(Importer):
    """Zhou et al., "Unified Vision-Language Pre-Training", AAAI 2020: a data set per picture, in files by id."""

    name = "vlp_hdf5"
    summary = "a folder of PREFIX_featNNN.h5 with [n, F] by image id; --boxes is the file of boxes"

    @classmethod
    def add_options(cls, options: Any) -> None:
        options.add_argument("--boxes", type=pathlib.Path, metavar="FILE.h5", help="boxes [n, 4 or more] by image id")

    def __init__(self, paths: Sequence[pathlib.Path], *, boxes: pathlib.Path | None = None):
        if len(paths) != 1 or not paths[0].is_dir():
            raise InputError(f"{', '.join(map(str, paths))}: no such directory; expected {self.summary}")
        names = sorted(paths[0].glob("*_feat*.h5"))
        if not names:
            raise InputError(f"{paths[0]}: no _featNNN.h5 in it; expected {self.summary}")
        self._files = {path.name: _open(path) for path in names}
        self._boxes = _open(boxes) if boxes else None

    def size(self) -> tuple[int, str]:
        return len(self._files), "file"

    def index(self, done: Callable[[int], None]) -> Index:
        for name, file in self._files.items():
            for image_id, features in file.items():
                yield image_id, Entry((name, image_id), features.shape[0])
            done(1)

    def read(self, entry: Entry) -> Made:
        name, image_id = entry.place
        if self._boxes is not None and image_id not in self._boxes:
            raise InputError(f"{self._boxes.filename}: no boxes of {image_id}")
        every = slice(None)
        boxes = None if self._boxes is None else _values(self._boxes.filename, self._boxes[image_id], every)
        features = _values(name, self._files[name][image_id], every)
        return checked(f"{name}, picture {image_id}", features, boxes, (0, 0))


def _open(path: pathlib.Path) -> Any:
    import h5py  # here, so that the other formats do not wait for it

    if not path.is_file():
        raise InputError(f"{path}: no such file; expected HDF5")
    check_unpacked(path)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a whole HDF5 file ({_shortened(error)})") from error


def _values(path: Any, dataset: Any, rows: slice) -> np.ndarray:
    try:
        return dataset[rows]
    except OSError as error:
        raise InputError(f"{path}: {dataset.name} cannot be read ({_shortened(error)})") from error


def _shortened(error: OSError) -> str:
    return textwrap.shorten(str(error), 120)


def _is_row(row: Any) -> bool:
    return isinstance(row, int | np.integer) and int(row) >= 0


def _size(boxes: np.ndarray, shares: np.ndarray | None) -> tuple[int, int]:
    """Returns width and height, by boxes in pixels and the same as shares of the picture; 0, 0 where not known."""
    if shares is None or shares.shape[0] != boxes.shape[0] or not (shares[:, 2:4] > 0).all():
        return 0, 0
    width, height = np.rint(np.median(boxes[:, 2:4] / shares[:, 2:4], axis=0))
    return int(width), int(height)
