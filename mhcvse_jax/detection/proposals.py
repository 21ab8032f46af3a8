"""The proposal network (RPN): boxes that may hold an object, of any class (Faster R-CNN, Ren et al. 2015)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mhcvse_jax.detection.anchors import NUM_ANCHORS, grid_anchors
from mhcvse_jax.detection.boxes import clip, regress, sides
from mhcvse_jax.detection.nms import nms


class Search(NamedTuple):
    """How proposals are found."""

    num_candidates: int = 6000  # the best by score that enter the suppression
    threshold: float = 0.7  # of the suppression, intersection over union
    num_proposals: int = 300
    shortest_side: float = 16.0  # pixels of the picture as it was before scaling; boxes with a shorter side are dropped


class Proposals(NamedTuple):
    """Boxes on the scaled picture, best first."""

    boxes: jax.Array  # <float32>[proposals, 4]
    valid: jax.Array  # <bool>[proposals]: false after the last


class ProposalHead(nn.Module):
    """Scores and shifts of the anchors at each cell.

    Attributes:
      channels: the channels of the 3 x 3 convolution.
    """

    channels: int
    dtype: Any
    precision: Any

    @nn.compact
    def __call__(self, feature_map: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns objectness <float32>[rows, columns, anchors], a logit, and deltas <float32>[..., anchors, 4].

        Both come of a product in float32: in bfloat16 many scores would be equal.
        """

        def convolution(features: int, kernel: int, dtype: Any, name: str) -> nn.Conv:
            return nn.Conv(
                features, (kernel, kernel), padding=kernel // 2, dtype=dtype, precision=self.precision, name=name
            )

        hidden = nn.relu(convolution(self.channels, 3, self.dtype, "conv")(feature_map[None]))[0]
        objectness = convolution(NUM_ANCHORS, 1, jnp.float32, "objectness")(hidden)
        deltas = convolution(4 * NUM_ANCHORS, 1, jnp.float32, "deltas")(hidden)
        return objectness, deltas.reshape(*deltas.shape[:2], NUM_ANCHORS, 4)


def propose(
    objectness: jax.Array, deltas: jax.Array, map_size: jax.Array, size: jax.Array, scale: jax.Array, search: Search
) -> Proposals:
    """Returns the best boxes that do not overlap much; on a tie, the first by row, column, anchor counts as better.

    Deviation: where no box has sides of `shortest_side`, as in a picture of 10 x 10 pixels, all boxes count; the
    reference has no proposal then.

    Args:
      objectness: <float32>[rows, columns, anchors].
      deltas: <float32>[rows, columns, anchors, 4].
      map_size: <int32>[2], the rows and columns that belong to the picture.
      size: <int32>[2], height and width of the scaled picture.
      scale: <float32>[], pixels of the scaled picture per pixel of the original.
      search: how proposals are found.
    """
    rows, columns = objectness.shape[:2]
    boxes = clip(regress(jnp.asarray(grid_anchors(rows, columns)), deltas), size).reshape(-1, 4)
    is_inside = (jnp.arange(rows)[:, None] < map_size[0]) & (jnp.arange(columns) < map_size[1])
    is_inside = jnp.broadcast_to(is_inside[..., None], objectness.shape).reshape(-1)
    width, height = sides(boxes)
    is_large = is_inside & (jnp.minimum(width, height) >= search.shortest_side * scale)
    counts = jnp.where(is_large.any(), is_large, is_inside)

    scores, best = lax.top_k(
        jnp.where(counts, objectness.reshape(-1), -jnp.inf), min(search.num_candidates, objectness.size)
    )
    boxes = boxes[best]
    kept = nms(boxes, scores > -jnp.inf, threshold=search.threshold, num_kept=search.num_proposals)
    return Proposals(jnp.where(kept.valid[:, None], boxes[kept.places], 0), kept.valid)
