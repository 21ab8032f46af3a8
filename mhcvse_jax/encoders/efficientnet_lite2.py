"""EfficientNet-Lite2, with ImageNet weights from the package index: 36 regions of 1,280 features per picture."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mhcvse_jax.encoders.encoder import Encoder, file_sha256
from mhcvse_jax.precompute.regions import Regions

SIZE = 224  # pixels per side, to which a picture is squashed
CELLS = 7  # of the feature map, a side
BATCH = 8  # pictures at once: one compilation


class EfficientNetLite2(Encoder):
    """Regions are means over boxes of the 7 x 7 feature map: a 6 x 6 grid, or boxes of five sizes."""

    name = "efficientnet_lite2"
    regions_width = 1280
    max_regions = 36

    @classmethod
    def add_options(cls, options: Any) -> None:
        """Adds which boxes are the regions."""
        options.add_argument(
            "--regions",
            choices=("grid", "pyramid"),
            default="grid",
            help="grid: 36 equal boxes that overlap; pyramid: the whole picture, its quarters, strips, ninths and "
            "sixteenths (default %(default)s)",
        )

    def __init__(self, weights: pathlib.Path | None, *, regions: str = "grid"):
        import jax

        from mhcvse_jax.backbones import efficientnet_lite2 as network

        path = weights or network.packaged_weights()
        self.weights_sha256 = file_sha256(path)
        self._regions = regions
        self._variables = jax.device_put(network.read_weights(path))
        cells = grid() if regions == "grid" else pyramid()
        self._boxes = cells.astype(np.float32) / CELLS
        self._mean = jax.device_put(mean_over(cells))
        self._means_of = network.means_of

    def settings(self) -> dict[str, Any]:
        return {"regions": self._regions, "size": SIZE}

    def encode(self, pictures: Sequence[np.ndarray]) -> list[Regions]:
        regions = []
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            squashed = np.zeros((BATCH, SIZE, SIZE, 3), np.uint8)
            for place, picture in zip(squashed, batch, strict=False):
                place[:] = _squash(picture)
            features = np.asarray(self._means_of(self._variables, self._mean, squashed))
            for picture, its_features in zip(batch, features, strict=False):
                height, width, _ = picture.shape
                regions.append(Regions(its_features, self._boxes * np.array([width, height] * 2, np.float32)))
        return regions


def _squash(picture: np.ndarray) -> np.ndarray:
    """Returns <uint8>[224, 224, 3]; one of that size as it is."""
    if picture.shape[:2] == (SIZE, SIZE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def grid() -> np.ndarray:
    """Returns <int64>[36, 4], x1 y1 x2 y2 in cells: all boxes of 2 x 2, row by row."""
    return np.array([(x, y, x + 2, y + 2) for y in range(CELLS - 1) for x in range(CELLS - 1)])


def pyramid() -> np.ndarray:
    """Returns <int64>[36, 4], x1 y1 x2 y2 in cells: the whole, quarters, strips, ninths, sixteenths; they overlap."""
    whole, halves, thirds = [(0, 7)], [(0, 4), (3, 7)], [(0, 3), (2, 5), (4, 7)]
    quarters = [(0, 2), (2, 4), (3, 5), (5, 7)]
    levels = (whole, whole), (halves, halves), (thirds, whole), (whole, thirds), (thirds, thirds), (quarters, quarters)
    return np.array([(x1, y1, x2, y2) for rows, columns in levels for y1, y2 in rows for x1, x2 in columns])


def mean_over(boxes: np.ndarray) -> np.ndarray:
    """Returns <float32>[boxes, 49], which takes the cells of the map, row by row, to their mean over each box."""
    inside = np.zeros((len(boxes), CELLS, CELLS), np.float32)
    for place, (x1, y1, x2, y2) in zip(inside, boxes, strict=True):
        place[y1:y2, x1:x2] = 1 / ((y2 - y1) * (x2 - x1))
    return inside.reshape(len(boxes), CELLS**2)
