"""RoIPool: the part of a feature map under a box, as the maxima of a grid of bins (Fast R-CNN, Girshick 2015)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mhcvse_jax.detection.anchors import STRIDE


class RoIPool:
    """Pools boxes of one feature map.

    The map's maxima over all windows of 1, 2, 4, ... cells per side are tabulated once. A bin of any size is then the
    maximum of four such windows, one in each of its corners: four rows to fetch, whatever its size.

    Args:
      feature_map: <float>[height, width, channels].
      size: <int32>[2], the rows and columns of the map that belong to the picture; the rest is not read.
      num_bins: bins per side.
    """

    def __init__(self, feature_map: jax.Array, size: jax.Array, num_bins: int):
        height, width = self._shape = feature_map.shape[:2]
        self._size = size
        self._borders = [bin_borders(side + 1, num_bins) for side in self._shape]
        self._num_levels = [
            min(side, int(np.max(end - start))).bit_length()
            for side, (start, end) in zip(self._shape, self._borders, strict=True)
        ]
        levels = []
        for by_rows in _doublings(feature_map, 0, self._num_levels[0]):
            levels += _doublings(by_rows, 1, self._num_levels[1])
        self._table = jnp.stack(levels).reshape(len(levels) * height * width, feature_map.shape[2])

    def __call__(self, boxes: jax.Array) -> jax.Array:
        """Returns <float>[boxes, bins, bins, channels] of boxes <float32>[boxes, 4] in pixels; an empty bin is 0.

        Corners are divided by 16 and rounded to cells, halves up; a box has at least one cell a side.
        """
        corners = _round_half_up(boxes / STRIDE).astype(jnp.int32)
        rows = self._ranges(corners[:, 1], corners[:, 3], axis=0)
        columns = self._ranges(corners[:, 0], corners[:, 2], axis=1)
        row_level, first_row, last_row, no_row = (x[:, :, None] for x in rows)
        column_level, first_column, last_column, no_column = (x[:, None, :] for x in columns)
        level = row_level * self._num_levels[1] + column_level

        def windows(row: jax.Array, column: jax.Array) -> jax.Array:
            return self._table[(level * self._shape[0] + row) * self._shape[1] + column]

        upper = jnp.maximum(windows(first_row, first_column), windows(first_row, last_column))
        lower = jnp.maximum(windows(last_row, first_column), windows(last_row, last_column))
        return jnp.where((no_row | no_column)[..., None], 0, jnp.maximum(upper, lower))

    def _ranges(self, first: jax.Array, last: jax.Array, *, axis: int) -> tuple[jax.Array, ...]:
        """Returns each bin's range along an axis: the level of two windows that cover it, their starts, if it is empty.

        Args:
          first: <int32>[boxes], the first cell of each box.
          last: <int32>[boxes], the last cell of each box.
          axis: 0 for rows, 1 for columns.

        Returns:
          Four arrays [boxes, bins].
        """
        side = self._shape[axis]
        length = jnp.clip(last - first + 1, 1, side + 1)  # the last cell of a box may lie just past the map
        start, end = (
            jnp.clip(jnp.asarray(borders)[length] + first[:, None], 0, self._size[axis])
            for borders in self._borders[axis]
        )
        level = 31 - lax.clz(jnp.maximum(end - start, 1))  # the window is the largest that fits
        is_empty = end <= start
        start = jnp.minimum(start, side - 1)  # an empty bin reads something all the same
        return level, start, jnp.maximum(end - (1 << level), start), is_empty


def bin_borders(longest: int, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where bins start and end, for boxes of 0, 1, ..., `longest` cells; neighbours may share a cell.

    A table, in NumPy, for the reference's float32 rounding is part of the result: XLA would divide by multiplying.

    Returns:
      <int32>[longest + 1, bins] the first cell of each bin, and the one after its last.
    """
    step = np.arange(longest + 1, dtype=np.float32)[:, None] / np.float32(num_bins)
    bins = np.arange(num_bins, dtype=np.float32)
    return np.floor(bins * step).astype(np.int32), np.ceil((bins + 1) * step).astype(np.int32)


def _doublings(x: jax.Array, axis: int, num: int) -> list[jax.Array]:
    """Returns maxima over windows of 1, 2, 4, ... along an axis, `num` of them, each of x's shape.

    A window that passes the end goes on at the beginning; no bin asks for one.
    """
    levels = [x]
    for level in range(num - 1):
        levels.append(jnp.maximum(levels[-1], jnp.roll(levels[-1], -(1 << level), axis)))
    return levels


def _round_half_up(x: jax.Array) -> jax.Array:
    """Returns whole numbers <float32>, C's `round` for x >= 0; the sum in `floor(x + 0.5)` would be rounded itself."""
    below = jnp.floor(x)
    return jnp.where(x - below >= 0.5, below + 1, below)
