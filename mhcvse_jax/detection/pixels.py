"""A picture as the detector takes it: scaled, minus its channels' means, on a canvas of one of a few sizes."""

from typing import NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError

SHORT_SIDE = 600  # pixels that the short side is scaled to,
LONG_SIDE = 1000  # unless the long side then had more than so many
MEANS = (102.9801, 115.9465, 122.7717)  # of blue, green and red, from 0 to 255
CANVASES = ((600, 800), (800, 600), (600, 1000), (1000, 600))
"""Heights and widths. Each costs a compilation, and each pixel beside the picture is wasted work."""


class Canvas(NamedTuple):
    """A scaled picture in the upper left of its canvas."""

    pixels: np.ndarray  # <float32>[height, width, 3]: blue, green, red; 0 beside the picture
    size: np.ndarray  # <int32>[2], height and width of the picture
    scale: np.float32  # pixels here a pixel of the original


def prepare(picture: np.ndarray, canvases: tuple[tuple[int, int], ...] = CANVASES) -> Canvas:
    """Returns a picture on the smallest canvas that holds it.

    Args:
      picture: <uint8>[height, width, 3]: red, green, blue.
      canvases: heights and widths to choose from.

    Raises:
      InputError: the picture fits no canvas: `canvases` lacks the largest sizes.
    """
    height, width = picture.shape[:2]
    scale = scale_of(height, width)
    # A picture 1,000 times as wide as high keeps a row. NumPy rounds halves to even, as OpenCV does.
    size = np.maximum(np.round(np.array([height, width]) * scale), 1).astype(np.int32)
    fitting = [canvas for canvas in canvases if (canvas >= size).all()]
    if not fitting:
        raise InputError(
            f"a picture of {width} x {height} scaled to {size[1]} x {size[0]} fits on no canvas: {canvases}"
        )
    pixels = np.zeros((*min(fitting, key=np.prod), 3), np.float32)
    pixels[: size[0], : size[1]] = resize(picture[..., ::-1], size, scale) - np.array(MEANS, np.float32)
    return Canvas(pixels, size, np.float32(scale))


def scale_of(height: int, width: int) -> float:
    """Returns what a picture's sides are multiplied by."""
    short, long = sorted((height, width))
    scale = SHORT_SIDE / short
    return LONG_SIDE / long if round(scale * long) > LONG_SIDE else scale


def resize(picture: np.ndarray, size: np.ndarray, scale: float) -> np.ndarray:
    """Returns <float32>[*size, channels] by bilinear interpolation of <uint8>[height, width, channels].

    The centres of the pixels are mapped by the scale, and the two nearest along each axis are mixed, also where the
    picture shrinks (OpenCV's INTER_LINEAR, with which the features of this field were made).
    """
    rows, columns = (_neighbours(n, to, scale) for n, to in zip(picture.shape[:2], size, strict=True))
    # Whole rows first: of a large picture most are never read.
    upper, lower, share = rows
    share = share[:, None, None]
    mixed = picture[upper] * (1 - share) + picture[lower] * share
    left, right, share = columns
    share = share[:, None]
    return mixed[:, left] * (1 - share) + mixed[:, right] * share


def _neighbours(num: int, to: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each pixel of the result the two that it is mixed of, and the second's share <float32>."""
    centres = np.clip((np.arange(to) + 0.5) / scale - 0.5, 0, num - 1)
    first = np.floor(centres).astype(np.int64)
    return first, np.minimum(first + 1, num - 1), (centres - first).astype(np.float32)
