"""Pictures to show: those of an index, made small, and those that a visitor uploads, read with care."""

import collections
import io
import pathlib
import threading

import numpy as np
from PIL import Image

from mhcvse_jax.errors import InputError
from mhcvse_jax.indexing.index import Index
from mhcvse_jax.precompute.pictures import read_picture

THUMBNAIL, WHOLE = 384, 1600  # pixels of the longer side
KEPT_BYTES = 64_000_000  # of thumbnails in memory: some three thousand
MAX_UPLOAD_BYTES, MAX_UPLOAD_PIXELS = 20_000_000, 50_000_000
UPLOADS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that a visitor may send: none that Pillow hands to another program, as it does EPS."""


class PictureFiles:
    """The pictures of an index as JPEG. A file is read only if it lies in the folder that the index names."""

    def __init__(self, index: Index):
        """Takes the index whose pictures are shown."""
        self._index = index
        self._kept: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def thumbnail(self, place: int) -> bytes:
        """Returns a picture of `THUMBNAIL` pixels; the latest are kept in memory. Raises as `whole` does."""
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        encoded = _jpeg(self._path(place), THUMBNAIL)
        with self._lock:
            self._bytes += len(encoded) - len(self._kept.get(place, b""))
            self._kept[place] = encoded
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return encoded

    def whole(self, place: int) -> bytes:
        """Returns a picture of `WHOLE` pixels at most.

        Raises:
          InputError: it is missing or damaged, or lies outside of the index's folder.
        """
        return _jpeg(self._path(place), WHOLE)

    def size(self, place: int) -> tuple[int, int]:
        """Returns width and height of a picture, as its boxes count them. Raises as `whole` does."""
        height, width, _ = read_picture(self._path(place)).shape
        return width, height

    def _path(self, place: int) -> pathlib.Path:
        picture = self._index.pictures[place]
        if picture.file is None:
            raise InputError(f"the index does not say where the picture {picture.id} is")
        number, _ = self._index.pictures.locate(place)
        folder = pathlib.Path(self._index.header.parts[number].images or "").resolve()
        path = pathlib.Path(picture.file).resolve()  # through links, so that none leads out of the folder
        if not path.is_relative_to(folder) or not path.is_file():
            raise InputError(f"the picture {picture.id} is not in the folder of the index")
        return path


def _jpeg(path: pathlib.Path, longer_side: int) -> bytes:
    """Returns a picture re-encoded, so that nothing but the pixels leaves the machine, and no metadata."""
    picture = Image.fromarray(read_picture(path, longer_side=longer_side))
    picture.thumbnail((longer_side, longer_side))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def read_upload(content: bytes) -> np.ndarray:
    """Returns the pixels of a picture that a visitor uploaded, <uint8>[height, width, 3].

    Raises:
      InputError: it is no picture, damaged, or larger than `MAX_UPLOAD_PIXELS`.
    """
    return read_picture(io.BytesIO(content), name="the picture", max_pixels=MAX_UPLOAD_PIXELS, formats=UPLOADS)
