"""The picture files of a folder, and their pixels as upright RGB, whatever a file contains."""

import collections
import os
import pathlib
import warnings
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from mhcvse_jax.errors import InputError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".avif")
)
UNREAD = frozenset((".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"))
"""Suffixes of pictures that Pillow does not read."""
MAX_PIXELS = 150_000_000  # 450 MB as RGB: more than any camera's, less than a decompression bomb


class Found(NamedTuple):
    """The files of a folder."""

    names: list[str]  # paths relative to it, sorted
    odd: list[str]  # what is left out, in words


def find_pictures(directory: pathlib.Path) -> Found:
    """Returns all picture files in a folder and its subfolders, and a line about each that it has to leave out.

    Links to folders are followed, to each folder once.

    Raises:
      InputError: there is no such folder, or no picture in it.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected a folder of pictures")
    names, unread, misnamed = [], collections.Counter(), []
    walked: set[str] = set()
    errors: list[OSError] = []
    for folder, subfolders, files in os.walk(directory, onerror=errors.append, followlinks=True):
        if os.path.realpath(folder) in walked:
            subfolders.clear()
            continue
        walked.add(os.path.realpath(folder))
        subfolders.sort(key=lambda each: (os.path.islink(os.path.join(folder, each)), each))
        for file in files:
            suffix = pathlib.PurePath(file).suffix.lower()
            name = (pathlib.Path(folder) / file).relative_to(directory).as_posix()
            if file.startswith("."):
                continue
            if suffix in SUFFIXES:
                (names if is_name(name) else misnamed).append(name)
            elif suffix in UNREAD:
                unread[suffix] += 1
    odd = [
        f"{count:,} of kind {suffix}, which is not read; expected JPEG or PNG"
        for suffix, count in sorted(unread.items())
    ]
    odd += [f"{name!r}: expected a name in UTF-8, of one line, without blanks at its ends" for name in sorted(misnamed)]
    if not names:
        found = f" that can be read ({odd[0]})" if odd else ""
        raise InputError(f"{directory}: no picture in it{found}; expected files such as .jpg or .png")
    return Found(sorted(names), odd)


def is_name(text: str) -> bool:
    """Returns whether a text can stand in a line of a file of names."""
    return text == text.strip() and len(text.splitlines()) == 1 and not any("\ud800" <= c <= "\udfff" for c in text)


def num_pixels(path: pathlib.Path) -> int:
    """Returns how many pixels a picture says it has; 0 where it cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return image.width * image.height
    except Exception:  # `read_picture` says why
        return 0


def read_picture(
    file: pathlib.Path | IO[bytes],
    *,
    name: str | None = None,
    max_pixels: int | None = None,
    longer_side: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Returns <uint8>[height, width, 3], RGB: the first frame, rotated as its EXIF data say, transparency on white.

    Args:
      file: the picture.
      name: the picture's name in messages; None: its path.
      max_pixels: the most pixels that it may have; None: `MAX_PIXELS`.
      longer_side: pixels wanted there; a JPEG may then be decoded smaller, but no smaller than this. None: all.
      formats: Pillow's names of the formats that are read; None: all.

    Raises:
      InputError: the file is missing, damaged, not a picture, or larger than `max_pixels`.
    """
    name, max_pixels = name or str(file), max_pixels or MAX_PIXELS
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(f"{name}: {width:,} x {height:,} pixels; expected {max_pixels:,} at most")
            if longer_side:
                image.draft("RGB", (longer_side, longer_side))
            return _rgb(_upright(image), name)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than {max_pixels:,} pixels; expected that many at most") from error
    except Exception as error:  # damage shows in almost any way
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from error
        as_shown = str(file) if isinstance(file, pathlib.Path) else file
        reason = str(error).replace(f" {as_shown!r}", "") or type(error).__name__
        raise InputError(f"{name}: not a whole picture ({reason})") from error


def _upright(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)  # a copy of a large picture takes as much memory again
    return image


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() >= 2**16 or image.mode == "F":
            raise InputError(
                f"{name}: pixels {grey.dtype}, from {grey.min():g} to {grey.max():g}; expected 8 or 16 bits"
            )
        return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
