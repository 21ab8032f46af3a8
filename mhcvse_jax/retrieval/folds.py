"""A split in folds: consecutive parts with equal numbers of pictures, and their captions."""

from collections.abc import Iterator

import numpy as np

from mhcvse_jax.errors import InputError


def fold_size(num_images: int, folds: int, split: str = "") -> int:
    """Returns how many pictures a fold has.

    Raises:
      InputError: the pictures cannot be divided into that many folds; the message names the split.
    """
    if num_images % folds:
        raise InputError(f"{folds} folds do not divide the {num_images} pictures{f' of {split}' if split else ''}")
    return num_images // folds


def fold_parts(
    image_of_caption: np.ndarray, num_images: int, folds: int, split: str = ""
) -> Iterator[tuple[int, slice, np.ndarray]]:
    """Yields the first picture of each fold, its pictures and its captions.

    Raises:
      InputError: the pictures cannot be divided into that many folds, or a fold has no captions.
    """
    size = fold_size(num_images, folds, split)
    for first in range(0, num_images, size):
        captions = np.flatnonzero(image_of_caption // size == first // size)
        if not len(captions):
            raise InputError(
                f"the pictures {first} to {first + size - 1}, one of {folds} folds, have no captions; "
                "expected fewer folds"
            )
        yield first, slice(first, first + size), captions
