"""Folders with one file per picture: MILVLG's .npz, SGAE's .npz with boxes in another folder, any .npy."""

import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_no_web_page
from mhcvse_jax.importers.importer import Entry, Importer, Index, checked, files_in, whole_number
from mhcvse_jax.precompute.directory import Made


class _Folder(Importer):
    """One file per picture, named by its id."""

    suffix = ".npz"
    key = ""  # of the features in an archive

    def __init__(self, paths: Sequence[pathlib.Path], **options: Any):
        self._files = files_in(paths, self.suffix)
        self.folder = paths[0]

    def size(self) -> tuple[int, str]:
        return len(self._files), "picture"

    def index(self, done: Callable[[int], None]) -> Index:
        for path in self._files:
            try:
                yield path.name.removesuffix(self.suffix), Entry((path.name,), self._num_regions(path))
            except InputError as error:
                yield error
            done(1)

    def _num_regions(self, path: pathlib.Path) -> int:
        """Returns how many regions a file has, by the head of its array alone."""
        if self.suffix == ".npy":
            return len(self.arrays(path)[self.key])
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{self.key}.npy") as file:
                is_first = npy_format.read_magic(file) == (1, 0)
                read = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
                shape, _, _ = read(file)
        except Exception as error:  # damage shows in almost any way
            check_no_web_page(path)
            raise InputError(f"{path}: not of {self.summary} ({error})") from error
        return shape[0] if len(shape) == 2 else 1

    def arrays(self, path: pathlib.Path, *more: str) -> dict[str, np.ndarray]:
        """Returns the features of a file, [n, F], and of an archive what else is asked for, by key.

        Raises:
          InputError: the file is damaged, or lacks one of them; none is unpickled.
        """
        try:
            if self.suffix == ".npy":
                found = {self.key: np.load(path, mmap_mode="r", allow_pickle=False)}
            else:
                with np.load(path, allow_pickle=False) as archive:
                    found = {key: archive[key] for key in (self.key, *more)}
        except Exception as error:  # damage shows in almost any way
            check_no_web_page(path)
            raise InputError(f"{path}: not of {self.summary} ({error})") from error
        features = found[self.key]
        found[self.key] = features[None] if features.ndim == 1 else features
        if found[self.key].ndim != 2:
            raise InputError(f"{path}: features {features.shape}; expected [regions, features]")
        return found


class Milvlg(_Folder):
    """GitHub repository MILVLG/bottom-up-attention.pytorch. Its `info`, an object, is not read.

    The same group's features for MCAN and OpenVQA have the same keys, but x as [F, n]: it is transposed.
    """

    name = "milvlg_npz"
    summary = "a folder of .npz, one per picture: x [n, F], bbox [n, 4], num_bbox, image_h, image_w"
    key = "x"

    def read(self, entry: Entry) -> Made:
        path = self.folder / entry.place[0]
        found = self.arrays(path, "bbox", "num_bbox", "image_h", "image_w")
        num, height, width = (whole_number(f"{path}: {key}", found[key]) for key in ("num_bbox", "image_h", "image_w"))
        features = found["x"].T if num == found["x"].shape[1] != len(found["x"]) else found["x"]
        if num != len(features):
            raise InputError(f"{path}: num_bbox is {num}, and x is {found['x'].shape}; expected {num} rows")
        return checked(str(path), features, found["bbox"], (width, height))

    def _num_regions(self, path: pathlib.Path) -> int:
        try:
            with np.load(path, allow_pickle=False) as archive:
                num = archive["num_bbox"]
        except Exception as error:  # damage shows in almost any way
            check_no_web_page(path)
            raise InputError(f"{path}: not of {self.summary} ({error})") from error
        return whole_number(f"{path}: num_bbox", num)


class Sgae(_Folder):
    """Yang et al., "Auto-Encoding Scene Graphs", CVPR 2019: PREFIX_att, and PREFIX_box where there."""

    name = "sgae"
    summary = "a folder PREFIX_att of .npz with feat [n, F], and PREFIX_box of .npy [n, 4] beside it"
    key = "feat"

    def read(self, entry: Entry) -> Made:
        path = self.folder / entry.place[0]
        boxes_path = self.folder.with_name(self.folder.name.removesuffix("_att") + "_box") / f"{path.stem}.npy"
        try:
            boxes = np.load(boxes_path, allow_pickle=False) if boxes_path.parent.is_dir() else None
        except Exception as error:  # damage shows in almost any way
            raise InputError(f"{boxes_path}: not boxes [n, 4] ({error})") from error
        return checked(str(path), self.arrays(path)[self.key], boxes, (0, 0))


class NpyFolder(_Folder):
    """What any program can write."""

    name = "npy"
    summary = "a folder of .npy, one per picture: [n, F] or [F]"
    suffix = ".npy"

    def read(self, entry: Entry) -> Made:
        path = self.folder / entry.place[0]
        return checked(str(path), self.arrays(path)[self.key], None, (0, 0))
