"""Region features of a split, read picture by picture, however they are stored."""

from typing import Any, Protocol

import numpy as np

from mhcvse_jax.errors import InputError


class RegionFeatures(Protocol):
    """The features of a split's pictures on disk; no split is ever loaded as a whole."""

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
    """Returns <int32>[pictures], the number of regions before trailing all-zero ones; all if every region is zero.

    Args:
      features: <float>[pictures, regions, features], a NumPy or JAX array.
    """
    is_region = (features != 0).any(axis=-1)
    return (features.shape[1] - is_region[:, ::-1].argmax(axis=1)).astype(np.int32)


class MappedRegions:
    """Region features in rows of one array, memory-mapped where it is large."""

    def __init__(self, array: np.ndarray, rows: np.ndarray, repeats: int = 1):
        """Takes <float>[rows, regions, features] and <int64>[images], the first of the `repeats` rows of a picture."""
        self.array, self.rows, self._repeats = array, rows, repeats
        self._compared = np.full(len(rows), repeats == 1)

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

        Costs a read of regions * features * 4 bytes a picture where the file is not in the page cache; where a picture
        stands there several times, all of these when it is first read: they are compared.

        Raises:
          InputError: the rows of a picture differ: pictures were mixed up.
        """
        rows = self.rows[images]
        features = self.array[rows]
        is_new = ~self._compared[images]
        if is_new.any():
            for repeat in range(1, self._repeats):
                differs = ~_same(features[is_new], self.array[rows[is_new] + repeat])
                if differs.any():
                    row = int(rows[is_new][np.argmax(differs)])
                    raise InputError(
                        f"{self.array.filename if isinstance(self.array, np.memmap) else 'the features'} has one row "
                        f"per caption, but rows {row} to {row + self._repeats - 1} differ; expected one picture, "
                        "repeated for each of its captions"
                    )
            self._compared[images] = True
        with np.errstate(over="ignore"):  # of float64: infinite in float32, which whoever reads looks for
            return np.asarray(features, np.float32)

    def place(self, image: int) -> tuple[str, int]:
        """Returns the file that holds a picture, empty where there is none, and its row there."""
        return str(getattr(self.array, "filename", None) or ""), int(self.rows[image])


class ChosenRegions:
    """The regions of some of a split's pictures."""

    def __init__(self, regions: RegionFeatures, images: np.ndarray):
        """Takes all pictures' and <int>[images], which of them."""
        self._regions, self._images = regions, images

    @property
    def shape(self) -> tuple[int, int, int]:
        """Pictures, regions of a picture, features of a region."""
        return (len(self._images), *self._regions.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """What is stored."""
        return self._regions.dtype

    def read(self, images: np.ndarray) -> np.ndarray:
        """Returns <float32>[images, regions, features] of the pictures with these indices among the chosen.

        Raises:
          InputError: the file is damaged there.
        """
        return self._regions.read(self._images[images])

    def place(self, image: int) -> tuple[str, int]:
        """Returns the file that holds a picture, empty where there is none, and its row or record there."""
        return self._regions.place(int(self._images[image]))


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns <bool>[pictures], whether features are equal bit for bit: NaN equals itself."""
    return (one.view(np.uint8) == other.view(np.uint8)).all(axis=(1, 2))
