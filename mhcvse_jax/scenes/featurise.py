"""Region boxes and region features, in place of a detector's.

The boxes follow the objects, as a detector's would. The features come from the pixels and the boxes alone, through
random filters that are the same for every data set. No label ever reaches them.
"""

import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from mhcvse_jax.scenes.scene import Scene

_CROP = 16  # pixels per side to which every region is scaled
_FILTER = 5  # pixels per side of a filter
_NUM_FILTERS = 48
_CELLS = 4  # per side of the grid in which the filters' responses are pooled
_NUM_BUMPS = 6  # per coordinate
_NUM_MIXTURES = 512


class _Weights(NamedTuple):
    filters: np.ndarray  # <float32>[pixels and colours of a patch, filter]
    thresholds: np.ndarray  # <float32>[filter]
    cells: np.ndarray  # <float32>[cell, filter, feature]
    core: np.ndarray  # <float32>[filter, feature]
    places: np.ndarray  # <float32>[bump, feature]
    mixing: np.ndarray  # <float32>[feature, mixture]
    mixed: np.ndarray  # <float32>[mixture, feature]


def propose_boxes(scene: Scene, rng: random.Random, num_regions: int, image_size: int) -> np.ndarray:
    """Returns boxes in random order: rough ones of most objects, once or twice; the rest are any part of the picture.

    Returns:
      <float32>[num_regions, 4] x0, y0, x1, y1 in pixels, within the picture.
    """
    boxes = []
    for thing in scene.things:
        copies = rng.choices((0, 1, 2), weights=(2, 68, 30))[0]
        for _ in range(copies):
            x, y = (c + rng.gauss(0, 0.07) * thing.radius for c in (thing.x, thing.y))
            boxes.append((x, y, 1.12 * thing.radius * rng.uniform(0.94, 1.12)))
    rng.shuffle(boxes)
    del boxes[num_regions:]
    while len(boxes) < num_regions:
        boxes.append((rng.random(), rng.random(), rng.uniform(0.09, 0.3)))
    rng.shuffle(boxes)
    corners = np.array([(x - half, y - half, x + half, y + half) for x, y, half in boxes], np.float32)
    return np.clip(corners, 0, 1) * np.float32(image_size)


def featurise(image: Image.Image, boxes: np.ndarray, feature_dim: int) -> np.ndarray:
    """Returns features of a picture's regions: what each looks like, and where in the picture it is.

    A region is scaled to a small square, passed through random filters, pooled, and projected at random together with
    its place. A random layer then mixes looks and place, as a deep detector's layers do: a sum over regions can still
    tell a red square above a blue one from a blue one above a red one.

    Args:
      image: RGB.
      boxes: <float32>[region, 4] x0, y0, x1, y1 in pixels.
      feature_dim: features per region.

    Returns:
      <float32>[region, feature_dim] of either sign, most of them within [-2, 2].
    """
    weights = _weights(feature_dim)
    crops = [np.asarray(image.resize((_CROP, _CROP), Image.Resampling.BILINEAR, tuple(box))) for box in boxes.tolist()]
    pixels = np.stack(crops).astype(np.float32) / 255 - 0.5
    patches = sliding_window_view(pixels, (_FILTER, _FILTER), axis=(1, 2))
    side = _CROP - _FILTER + 1
    # Products of small matrices: BLAS does not spread these over threads, which would cost more than they gain.
    patches = patches.reshape(len(boxes), side, side, -1)
    responses = np.maximum(patches @ weights.filters - weights.thresholds, 0)

    cells = responses.reshape(len(boxes), _CELLS, side // _CELLS, _CELLS, side // _CELLS, -1).mean((2, 4))
    cells = cells.reshape(len(boxes), _CELLS**2, -1).swapaxes(0, 1)
    core = responses[:, side // 4 : -side // 4, side // 4 : -side // 4].mean((1, 2))
    places = _bumps(boxes, image.size)
    linear = (cells @ weights.cells).sum(0) + core @ weights.core + places @ weights.places
    return linear + np.maximum(linear @ weights.mixing, 0) @ weights.mixed


def _bumps(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns <float32>[region, bump]: how near the centre, width and height of each box are to fixed values."""
    x0, y0, x1, y1 = (boxes / np.array(size * 2, np.float32)).T
    values = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1)
    centres = np.linspace(0, 1, _NUM_BUMPS, dtype=np.float32)
    return np.exp(-((values[:, :, None] - centres) ** 2) * (_NUM_BUMPS**2 / 2)).reshape(len(boxes), -1)


@lru_cache(maxsize=4)
def _weights(feature_dim: int) -> _Weights:
    rng = np.random.default_rng(2024)

    def projection(num_inputs: int, num_outputs: int = feature_dim) -> np.ndarray:
        return (rng.standard_normal((num_inputs, num_outputs)) / num_inputs**0.5).astype(np.float32)

    filters = rng.standard_normal((3, _FILTER, _FILTER, _NUM_FILTERS)) / _FILTER
    # A third of the filters see only a patch's mean colour.
    third = _NUM_FILTERS // 3
    filters[..., :third] = rng.standard_normal((3, 1, 1, third)) * (2 / _FILTER**2)
    return _Weights(
        filters.reshape(-1, _NUM_FILTERS).astype(np.float32),
        rng.uniform(-0.5, 0.5, _NUM_FILTERS).astype(np.float32),
        projection(_CELLS**2 * _NUM_FILTERS).reshape(_CELLS**2, _NUM_FILTERS, feature_dim),
        projection(_NUM_FILTERS),
        projection(4 * _NUM_BUMPS),
        2 * projection(feature_dim, _NUM_MIXTURES),
        projection(_NUM_MIXTURES),
    )
