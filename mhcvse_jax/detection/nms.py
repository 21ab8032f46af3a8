"""Non-maximum suppression: of boxes that overlap much, only the best is kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mhcvse_jax.detection.boxes import overlaps


class Kept(NamedTuple):
    """The boxes that are kept."""

    places: jax.Array  # <int32>[num]: among the boxes given, ascending; 0 after the last
    valid: jax.Array  # <bool>[num]: false after the last


class _Progress(NamedTuple):
    block: jax.Array
    num: jax.Array  # kept so far
    places: jax.Array  # <int32>[num_kept]
    boxes: jax.Array  # <float32>[num_kept, 4], those at `places`


def nms(boxes: jax.Array, valid: jax.Array, *, threshold: float, num_kept: int, block_size: int = 256) -> Kept:
    """Returns the first `num_kept` of the boxes that no earlier kept box overlaps by more than the threshold.

    Exactly the greedy rule, a block of boxes after another: first what the kept boxes of earlier blocks suppress, then
    what the block's own boxes do. It ends with the block that fills `num_kept`. What is held at once is
    [block, num_kept] and [block, block], never [boxes, boxes].

    Args:
      boxes: <float32>[boxes, 4], the best first; the caller decides the order of equal scores.
      valid: <bool>[boxes]: a false one neither stays nor suppresses.
      threshold: intersection over union in [0, 1]; at the threshold itself both stay.
      num_kept: the most boxes that may stay.
      block_size: boxes handled at once.
    """
    num_blocks = -(-len(boxes) // block_size)
    padding = num_blocks * block_size - len(boxes)
    boxes = jnp.pad(boxes, ((0, padding), (0, 0)))
    valid = jnp.pad(valid, (0, padding))
    is_earlier = jnp.tri(block_size, k=-1, dtype=bool)  # [i, j]: j comes before i

    def more(progress: _Progress) -> jax.Array:
        return (progress.block < num_blocks) & (progress.num < num_kept)

    def one_block(progress: _Progress) -> _Progress:
        start = progress.block * block_size
        block = lax.dynamic_slice_in_dim(boxes, start, block_size)
        alive = lax.dynamic_slice_in_dim(valid, start, block_size)
        by_kept = (overlaps(block, progress.boxes) > threshold) & (jnp.arange(num_kept) < progress.num)
        alive &= ~by_kept.any(axis=1)
        keep = _greedy(alive, (overlaps(block, block) > threshold) & is_earlier)
        # Places past `num_kept` are dropped.
        place = jnp.where(keep, progress.num + jnp.cumsum(keep) - 1, num_kept)
        return _Progress(
            block=progress.block + 1,
            num=jnp.minimum(progress.num + keep.sum(), num_kept),
            places=progress.places.at[place].set(start + jnp.arange(block_size), mode="drop"),
            boxes=progress.boxes.at[place].set(block, mode="drop"),
        )

    zero = jnp.zeros((), jnp.int32)
    start = _Progress(zero, zero, jnp.zeros(num_kept, jnp.int32), jnp.zeros((num_kept, 4), boxes.dtype))
    end = lax.while_loop(more, one_block, start)
    return Kept(end.places, jnp.arange(num_kept) < end.num)


def _greedy(alive: jax.Array, suppresses: jax.Array) -> jax.Array:
    """Returns <bool>[block], the boxes that stay: alive, and suppressed by none that stays.

    Each round settles at least the first box that is not settled yet, since a box depends on earlier ones alone; the
    rounds end when one changes nothing. There are as many as boxes in the longest chain of suppression: few.

    Args:
      alive: <bool>[block].
      suppresses: <bool>[block, block]: [i, j] where j, if it stays, suppresses i; j comes before i.
    """

    def changes(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return (state[0] != state[1]).any()

    def one_round(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep = state[1]
        return keep, alive & ~(suppresses & keep).any(axis=1)

    first = alive & ~(suppresses & alive).any(axis=1)
    return lax.while_loop(changes, one_round, (alive, first))[1]
