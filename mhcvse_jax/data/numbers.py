"""Whole numbers that belong to pictures or captions, in an .npy file."""

import pathlib

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_unpacked


def read_whole_numbers(path: pathlib.Path, num: int, owner: str) -> np.ndarray:
    """Returns <int>[num] of a file.

    Args:
      path: the file.
      num: how many numbers it must hold.
      owner: what each number belongs to, for messages: "picture" or "caption".

    Raises:
      InputError: the file is damaged, or holds anything else.
    """
    check_unpacked(path)
    try:
        numbers = np.load(path, allow_pickle=False)
        found = f"{numbers.dtype} {numbers.shape}"
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise InputError(f"{path}: not a whole .npy array of numbers ({error})") from error
    if numbers.shape != (num,) or numbers.dtype.kind not in "iu":
        raise InputError(f"{path} holds {found}; expected whole numbers, one per {owner} ({num})")
    return numbers
