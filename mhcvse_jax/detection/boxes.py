"""Boxes x1, y1, x2, y2 whose last pixel is inside: x2 - x1 + 1 wide (the "+1" rule of R-CNN's Caffe programs)."""

import jax
import jax.numpy as jnp
import numpy as np

_LARGEST_GROWTH = np.log(1000 / 16)  # as in Detectron: no exponential runs away


def sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the widths and heights, each <float32>[...], of boxes <float32>[..., 4]."""
    return boxes[..., 2] - boxes[..., 0] + 1, boxes[..., 3] - boxes[..., 1] + 1


def overlaps(these: jax.Array, those: jax.Array) -> jax.Array:
    """Returns intersection over union <float32>[these, those], in [0, 1]."""
    these, those = these[:, None], those[None]
    corners = jnp.concatenate(
        [jnp.maximum(these[..., :2], those[..., :2]), jnp.minimum(these[..., 2:], those[..., 2:])], axis=-1
    )
    width, height = sides(corners)
    intersection = jnp.maximum(width, 0) * jnp.maximum(height, 0)
    areas = [width * height for width, height in map(sides, (these, those))]
    return intersection / (areas[0] + areas[1] - intersection)


def regress(boxes: jax.Array, deltas: jax.Array) -> jax.Array:
    """Returns boxes moved and stretched by deltas (R-CNN, Girshick et al. 2014, appendix C).

    Args:
      boxes: <float32>[..., 4].
      deltas: <float32>[..., 4]: shifts of the centre in widths and heights, logarithms of the growth of the sides.

    Deviation: a side grows at most 62.5 times, where the Caffe program has no limit.
    """
    width, height = sides(boxes)
    centre_x = boxes[..., 0] + 0.5 * width + deltas[..., 0] * width
    centre_y = boxes[..., 1] + 0.5 * height + deltas[..., 1] * height
    half_width = 0.5 * width * jnp.exp(jnp.minimum(deltas[..., 2], _LARGEST_GROWTH))
    half_height = 0.5 * height * jnp.exp(jnp.minimum(deltas[..., 3], _LARGEST_GROWTH))
    return jnp.stack(
        [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height], axis=-1
    )


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Returns boxes <float32>[..., 4] with all corners on a pixel of a picture of `size`, <int32>[2] height, width."""
    last_y, last_x = size[0] - 1.0, size[1] - 1.0
    return jnp.clip(boxes, 0.0, jnp.stack([last_x, last_y, last_x, last_y]))
