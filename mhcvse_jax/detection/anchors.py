"""Anchors: the boxes that the proposal network starts from, 12 at each cell of the feature map."""

import numpy as np

STRIDE = 16  # pixels from a cell of the feature map to the next
RATIOS = (0.5, 1.0, 2.0)  # height to width
SCALES = (4, 8, 16, 32)  # of a cell
NUM_ANCHORS = len(RATIOS) * len(SCALES)


def cell_anchors() -> np.ndarray:
    """Returns <float32>[12, 4], the anchors of the first cell, by ratio and then by scale.

    Of a box of 16 x 16 pixels, 0 to 15, each ratio first makes a box of nearly equal area with whole sides; these are
    then scaled about their centre (generate_anchors of py-faster-rcnn).
    """
    centre = (STRIDE - 1) / 2
    anchors = []
    for ratio in RATIOS:
        width = np.round(np.sqrt(STRIDE * STRIDE / ratio))
        height = np.round(width * ratio)
        for scale in SCALES:
            half = np.array([width * scale - 1, height * scale - 1]) / 2
            anchors.append(np.concatenate([centre - half, centre + half]))
    return np.stack(anchors).astype(np.float32)


def grid_anchors(height: int, width: int) -> np.ndarray:
    """Returns <float32>[height, width, 12, 4], the anchors of each cell of a feature map, in pixels of the picture."""
    y, x = np.meshgrid(np.arange(height) * STRIDE, np.arange(width) * STRIDE, indexing="ij")
    shifts = np.stack([x, y, x, y], axis=-1).astype(np.float32)
    return shifts[:, :, None] + cell_anchors()
