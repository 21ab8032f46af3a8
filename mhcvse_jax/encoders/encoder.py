"""The interface of every encoder: pictures in, regions out."""

import abc
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.directory import PART_SIZE
from mhcvse_jax.precompute.regions import Regions


class Encoder(abc.ABC):
    """Makes regions of pictures. Its arguments are a file of weights and, by name, what `add_options` adds.

    If the weights are None, it takes those of a package, if there is one. Bad weights are an InputError.
    """

    name: ClassVar[str]
    part_size: ClassVar[int] = PART_SIZE  # pictures that are done or lost together: fewer where one takes seconds
    weights_sha256: str  # of the file that the weights came from
    regions_width: int  # F
    max_regions: int  # the most regions that a picture gets

    @classmethod
    @abc.abstractmethod
    def add_options(cls, options: Any) -> None:
        """Adds the options that this encoder alone has, where any, to a group of the command line's."""

    @abc.abstractmethod
    def __init__(self, weights: pathlib.Path | None, **options: Any): ...

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns all that changes the features beside the weights, as JSON can hold it."""

    @abc.abstractmethod
    def encode(self, pictures: Sequence[np.ndarray]) -> list[Regions]:
        """Returns the regions of each picture, in order.

        Args:
          pictures: RGB, upright, <uint8>[height, width, 3] each, of any sizes.
        """


def file_sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal.

    Raises:
      InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
