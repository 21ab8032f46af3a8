"""Region features of a split, read picture by picture, however they are stored."""

from typing import Any, NamedTuple, Protocol

import numpy as np


class RegionFeatures(Protocol):
    """The features of a split's pictures on disk; no split is ever held whole."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Pictures, regions of a picture, features of a region."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """What is stored; what is read is float32."""
        ...

    def read(self, images: np.ndarray) -> np.ndarray:
        """Returns <float32>[images, regions, features] of the pictures with these indices, and reads no other's.

        Threads may read at the same time.

        Raises:
          InputError: the file is damaged there.
        """
        ...

    def place(self, image: int) -> tuple[str, int]:
        """Returns the file that holds a picture, empty where there is none, and its row or record there."""
        ...


def count_regions(features: Any) -> Any:
    """Returns <int32>[pictures], the regions before the trailing ones that are all zero; all where every one is zero.

    Args:
      features: <float>[pictures, regions, features], of NumPy or JAX.
    """
    is_region = (features != 0).any(axis=-1)
    return (features.shape[1] - is_region[:, ::-1].argmax(axis=1)).astype(np.int32)


class MappedRegions(NamedTuple):
    """Region features in rows of one array."""

    array: np.ndarray  # <float>[rows, regions, features], memory-mapped where it is large
    rows: np.ndarray  # <int64>[images] the row of each picture

    @property
    def shape(self) -> tuple[int, int, int]:
        """Pictures, regions of a picture, features of a region."""
        return (len(self.rows), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """What is stored."""
        return self.array.dtype

    def read(self, images: np.ndarray) -> np.ndarray:
        """Returns <float32>[images, regions, features] of the pictures with these indices.

        Costs a read of regions * features * 4 bytes a picture where the file is not in the page cache.
        """
        with np.errstate(over="ignore"):  # of float64: infinite in float32, which whoever reads looks for
            return np.asarray(self.array[self.rows[images]], np.float32)

    def place(self, image: int) -> tuple[str, int]:
        """Returns the file that holds a picture, empty where there is none, and its row there."""
        return str(getattr(self.array, "filename", None) or ""), int(self.rows[image])
