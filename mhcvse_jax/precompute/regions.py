"""What an encoder or a file of features gives for a picture."""

from typing import NamedTuple

import numpy as np


class Regions(NamedTuple):
    """The regions of one picture, the best first where an encoder ranks them; n is at least 1."""

    features: np.ndarray  # <float32>[n, F]
    boxes: np.ndarray  # <float32>[n, 4], x1 y1 x2 y2 in pixels of the picture
    classes: np.ndarray | None = None  # <int32>[n]
    class_scores: np.ndarray | None = None  # <float32>[n], in [0, 1]
    attributes: np.ndarray | None = None  # <int32>[n]
    attribute_scores: np.ndarray | None = None  # <float32>[n], in [0, 1]
