"""Where a split's regions are in their pictures; it is shown to users, and no model reads it."""

import pathlib
from typing import NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_unpacked


class RegionBoxes(NamedTuple):
    """What a data directory says about the places of regions; None if it does not say."""

    boxes: np.ndarray | None  # <float32>[images, regions, 4] x1, y1, x2, y2 in pixels; the file, memory-mapped
    sizes: np.ndarray | None  # <int32>[images, 2] width and height of the pictures that these pixels are of


def read(directory: pathlib.Path, split: str, num_images: int, num_regions: int) -> RegionBoxes:
    """Returns what `{split}_boxes.npy` and `{split}_image_sizes.npy` hold.

    Args:
      directory: the data.
      split: the name of the split.
      num_images: how many pictures are asked for, from the first of the split on.
      num_regions: rows of a picture's features.

    Raises:
      InputError: a file is damaged, or holds another number of pictures, regions or coordinates.
    """
    boxes = map_rows(directory / f"{split}_boxes.npy", num_images, (num_regions, 4))
    return RegionBoxes(boxes, map_rows(directory / f"{split}_image_sizes.npy", num_images, (2,)))


def map_rows(path: pathlib.Path, num_images: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the first rows of a file beside the features, memory-mapped [num_images, *shape]; None where not there.

    Raises:
      InputError: it is damaged, or of another shape.
    """
    if not path.exists():
        return None
    check_unpacked(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a whole .npy array of numbers ({error})") from error
    if array.ndim != 1 + len(shape) or len(array) < num_images or array.shape[1:] != shape:
        raise InputError(f"{path} is {array.shape}; expected {(num_images, *shape)}")
    return array[:num_images]
