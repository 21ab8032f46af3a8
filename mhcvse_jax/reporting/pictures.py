"""The pictures of a page: each embedded once, small enough to keep the page small, and shown any number of times."""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.pictures import read_picture

BYTES = 3_000_000  # of all pictures in a page
SIDES = (224, 176, 128, 96, 64)  # pixels of the longer side, the first at which they fit
QUALITY = 76
BLANK = (4.0, 3.0)  # width and height of a picture that nobody can say the size of


class Picture(NamedTuple):
    """A picture as the page refers to it."""

    key: str  # of its symbol, of letters and digits alone
    name: str  # file name, or id where that is not known
    width: float  # in the unit of its regions' boxes
    height: float
    is_known: bool  # false: the file is missing or damaged


class Symbol(NamedTuple):
    """What the page holds of a picture."""

    picture: Picture
    data: str | None  # a data URI, None where there is no picture


@dataclasses.dataclass
class Album:
    """All pictures of a page; runs share a picture if it comes from the same file."""

    _pictures: dict[tuple[str, str], tuple[Picture, Image.Image | None]] = dataclasses.field(default_factory=dict)

    def add(
        self, path: pathlib.Path | None, name: str, size: Sequence[float] | None, extent: Sequence[float] = BLANK
    ) -> Picture:
        """Returns the picture of a file, read the first time that it is asked for.

        Args:
          path: the file; None where it is not known.
          name: what the picture is called.
          size: the width and height that its boxes refer to; None: those of the file.
          extent: the width and height if nothing else gives them.
        """
        place = str(path), name
        if place not in self._pictures:
            image = None if path is None else _read(path)
            width, height = size if size is not None else image.size if image else extent
            key = f"picture{len(self._pictures)}"
            picture = Picture(key, name, float(width), float(height), image is not None)
            self._pictures[place] = picture, image and _shrunk(image, SIDES[0])
        return self._pictures[place][0]

    @property
    def num_missing(self) -> int:
        """Pictures whose file is missing or damaged."""
        return sum(image is None for _, image in self._pictures.values())

    def symbols(self) -> list[Symbol]:
        """Returns all pictures, at the largest of SIDES at which they take no more than BYTES together."""
        found = []
        for side in SIDES:
            found = [Symbol(picture, image and _as_data(_shrunk(image, side))) for picture, image in self._all()]
            if sum(len(symbol.data or "") for symbol in found) <= BYTES:
                break
        return found

    def _all(self) -> Sequence[tuple[Picture, Image.Image | None]]:
        return list(self._pictures.values())


def _read(path: pathlib.Path) -> Image.Image | None:
    try:
        return Image.fromarray(read_picture(path))
    except InputError:  # the page says which are missing
        return None


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))


def _as_data(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


class Overlays:
    """Pictures that are lit where a weight is high, each as its own <svg>."""

    def __init__(self):
        self._number = 0

    def lit(self, picture: Picture, weights: np.ndarray, boxes: np.ndarray | None) -> str:
        """Returns the picture behind a veil that is open where a region counts, the most important region outlined.

        If the regions' boxes are unknown, bars below the picture stand for them.

        Args:
          picture: whose symbol the page has.
          weights: <float>[regions] from 0, dark, to 1.
          boxes: <float32>[regions, 4] x1, y1, x2, y2, or None.
        """
        width, height = picture.width, picture.height
        if boxes is None:
            return _barred(picture, weights)
        self._number += 1
        mask = f"mask{self._number}"
        holes = "".join(
            f'<rect {_corners(box)} opacity="{weight:.2f}"/>'
            for box, weight in zip(boxes, weights, strict=True)
            if weight > 0.03
        )
        whole = f'width="{width:g}" height="{height:g}"'
        most = f'<rect class="most" {_corners(boxes[int(np.argmax(weights))])}/>' if np.max(weights) > 0.03 else ""
        return (
            f'<svg class="picture" viewBox="0 0 {width:g} {height:g}"><use href="#{picture.key}" {whole}/>'
            f'<mask id="{mask}"><rect {whole} fill="#fff"/>{holes}</mask>'
            f'<rect class="veil" {whole} mask="url(#{mask})"/>{most}</svg>'
        )


def _corners(box: np.ndarray) -> str:
    x1, y1, x2, y2 = (round(float(value), 1) for value in box)
    return f'x="{x1:g}" y="{y1:g}" width="{max(x2 - x1, 0):g}" height="{max(y2 - y1, 0):g}"'


def _barred(picture: Picture, weights: np.ndarray) -> str:
    width, height = picture.width, picture.height
    step, tall = width / len(weights), height / 4
    bars = "".join(
        f'<rect x="{i * step:.2f}" y="{height + tall * (1 - w):.2f}" width="{0.8 * step:.2f}" height="{tall * w:.2f}"/>'
        for i, w in enumerate(weights.tolist())
    )
    return (
        f'<svg class="picture" viewBox="0 0 {width:g} {height + tall:g}">'
        f'<use href="#{picture.key}" width="{width:g}" height="{height:g}"/><g class="bars">{bars}</g></svg>'
    )
