"""Picture files of a folder, and their pixels: upright RGB, whatever the file holds."""

import os
import pathlib
import warnings

import numpy as np
from PIL import Image, ImageOps

from mhcvse_jax.errors import InputError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".avif")
)
MAX_PIXELS = 150_000_000  # 450 MB as RGB: more than any camera's, less than a decompression bomb


def find_pictures(directory: pathlib.Path) -> list[str]:
    """Returns the paths of all picture files in a folder and its subfolders, relative to it, sorted.

    Raises:
      InputError: there is no such folder, or no picture in it.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected a folder of pictures")
    names = sorted(
        (pathlib.Path(folder) / file).relative_to(directory).as_posix()
        for folder, _, files in os.walk(directory)
        for file in files
        if pathlib.PurePath(file).suffix.lower() in SUFFIXES and not file.startswith(".")
    )
    if not names:
        raise InputError(f"{directory}: no picture in it; expected files such as .jpg or .png")
    return names


def read_picture(path: pathlib.Path) -> np.ndarray:
    """Returns <uint8>[height, width, 3], RGB: the first frame, turned as its EXIF data say, on white where clear.

    Raises:
      InputError: the file is missing or damaged, no picture, or larger than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # of metadata out of order
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{path}: {width:,} x {height:,} pixels; expected {MAX_PIXELS:,} at most")
            return _rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: more than {MAX_PIXELS:,} pixels; expected that many at most") from error
    except Exception as error:  # damage shows in almost any way
        reason = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "") or type(error).__name__
        raise InputError(f"{path}: not a whole picture ({reason})") from error


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() >= 2**16 or image.mode == "F":
            raise ValueError(f"pixels of mode {image.mode} from {grey.min()} to {grey.max()}; expected 8 or 16 bits")
        return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
