"""The similarity of all pictures and captions, a block of pictures at a time: saved, averaged, ranked.

similarity[i, j] is picture i, caption j; higher is better. For COCO's 5,000 pictures the whole is 500 MB: no function
here holds it.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.files.downloads import check_unpacked
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.retrieval import ties
from mhcvse_jax.retrieval.folds import fold_size
from mhcvse_jax.retrieval.recall import Ranks

if TYPE_CHECKING:
    import jax

BLOCK = 256  # pictures whose similarities with all captions are held at once


class Similarity(NamedTuple):
    """A matrix that is read or computed on demand."""

    num_images: int
    num_captions: int
    rows: Callable[[int, int], np.ndarray]  # start, stop -> <float32>[stop - start, captions]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the first picture of each block, and its rows."""
        for start in range(0, self.num_images, BLOCK):
            yield start, self.rows(start, min(start + BLOCK, self.num_images))


def of_embeddings(image: "jax.Array", text: "jax.Array") -> Similarity:
    """Returns the dot products <float32>[images, captions] of two sets of vectors, at the highest precision.

    Raises:
      RunFailedError: an embedding is not finite.
    """
    import jax.numpy as jnp  # here, as matrices of files are read and ranked without JAX
    from jax.lax import Precision

    from mhcvse_jax.retrieval.ranks import check_finite

    check_finite(image, text)

    def rows(start: int, stop: int) -> np.ndarray:
        return np.asarray(jnp.matmul(image[start:stop], text.T, precision=Precision.HIGHEST))

    return Similarity(len(image), len(text), rows)


def of_file(path: pathlib.Path, captions_per_image: int | None) -> Similarity:
    """Returns the matrix of a .npy file, memory-mapped; any floating type is read as float32.

    Args:
      path: the file.
      captions_per_image: captions of every picture; None where they vary.

    Raises:
      InputError: it is missing, damaged, of another type or shape, or holds values that are not numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a similarity matrix")
    check_unpacked(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy array of numbers ({error})") from error
    expected = f"floating-point [pictures, {f'{captions_per_image} x pictures' if captions_per_image else 'captions'}]"
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise InputError(f"{path} holds {found}; expected {expected}")
    images, captions = array.shape
    if captions_per_image and captions != images * captions_per_image:
        hint = "--captions_per_image says how many a picture has"
        if images == captions * captions_per_image:
            hint = "it seems to be transposed"
        raise InputError(f"{path} holds {array.dtype} {array.shape}; expected {expected}; {hint}")

    def rows(start: int, stop: int) -> np.ndarray:
        return np.asarray(array[start:stop], np.float32)

    similarity = Similarity(images, captions, rows)
    for start, block in similarity.blocks():
        if not np.isfinite(block).all():
            row, column = np.argwhere(~np.isfinite(block))[0]
            raise InputError(f"{path}: row {start + row}, column {column} is {block[row, column]}; expected a number")
    return similarity


def mean(parts: Sequence[Similarity]) -> Similarity:
    """Returns the mean of matrices of one shape.

    Raises:
      InputError: their shapes differ.
    """
    shapes = {(part.num_images, part.num_captions) for part in parts}
    if len(shapes) > 1:
        found = ", ".join(f"{images} x {captions}" for images, captions in sorted(shapes))
        raise InputError(f"similarities of unlike shapes cannot be averaged: pictures x captions are {found}")

    def rows(start: int, stop: int) -> np.ndarray:
        total = np.zeros((stop - start, parts[0].num_captions), np.float32)
        for part in parts:
            total += part.rows(start, stop)
        return total / np.float32(len(parts))

    return Similarity(parts[0].num_images, parts[0].num_captions, rows)


def save(path: pathlib.Path, similarity: Similarity) -> None:
    """Writes the matrix as a float32 .npy file, block by block."""
    shape = (similarity.num_images, similarity.num_captions)
    with whole_file(path) as partial:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        for start, block in similarity.blocks():
            array[start : start + len(block)] = block
        array.flush()
        del array


def ranks_of(similarity: Similarity, image_of_caption: np.ndarray, folds: int = 1) -> Ranks:
    """Returns the ranks of both directions, in the order of the matrix; `ties` says how they are counted.

    Args:
      similarity: read twice.
      image_of_caption: <int>[captions].
      folds: consecutive, equal parts of the pictures; a query is ranked in its own.

    Raises:
      InputError: the pictures cannot be divided into that many parts.
      RunFailedError: a similarity is not finite.
    """
    size = fold_size(similarity.num_images, folds)
    fold_of_caption = image_of_caption // size
    i2t = np.zeros(similarity.num_images, np.int32)
    right = np.zeros(similarity.num_captions, np.float32)
    for start, block in similarity.blocks():
        if not np.isfinite(block).all():
            raise RunFailedError(f"a similarity of the pictures {start} to {start + len(block) - 1} is not finite")
        images = np.arange(start, start + len(block))
        own = images[:, None] == image_of_caption
        wrong = ~own & ((images // size)[:, None] == fold_of_caption)
        i2t[images] = ties.best_ranks(block, own, wrong)
        row, caption = np.nonzero(own)
        right[caption] = block[row, caption]
    t2i = np.ones(similarity.num_captions, np.int32)
    for start, block in similarity.blocks():
        images = np.arange(start, start + len(block))
        wrong = (images[:, None] != image_of_caption) & ((images // size)[:, None] == fold_of_caption)
        t2i += ties.num_ahead(right, block, wrong, axis=0).astype(np.int32)
    return Ranks(i2t, t2i)
