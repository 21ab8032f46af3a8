"""Which of the proposals become a picture's regions: those with the highest confidence for some class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mhcvse_jax.detection.boxes import overlaps

OVERLAP = 0.3  # intersection over union above which a class keeps only the better of two proposals


class Choice(NamedTuple):
    """How many regions a picture gets: those of confidence `threshold` and more, within limits."""

    fewest: int
    most: int
    threshold: float


FIXED_36 = Choice(36, 36, 0.2)
"""36 regions per picture, as in SCAN's features."""
ADAPTIVE_10_TO_100 = Choice(10, 100, 0.2)
"""10 to 100 regions, as many as are confident enough."""
CHOICES = {"36": FIXED_36, "10_to_100": ADAPTIVE_10_TO_100}
"""By the name that `--num_regions` takes."""


class Chosen(NamedTuple):
    """The proposals chosen, by confidence; on a tie, the better proposal first."""

    num: jax.Array  # <int32>[]: so many of `places` are chosen
    places: jax.Array  # <int32>[most], among the proposals


def confidences(boxes: jax.Array, valid: jax.Array, scores: jax.Array) -> jax.Array:
    """Returns <float32>[proposals], the best score of each valid one over the classes that keep it; 0 where none does.

    Each class has its own suppression, by its own scores; equal scores are ordered as the proposals are. All classes go
    through their orders at once, a place after another, so [classes, proposals] is the most that is held.

    Args:
      boxes: <float32>[proposals, 4] in pixels of the original picture: the "+1" in a box's sides depends on the scale.
      valid: <bool>[proposals].
      scores: <float32>[proposals, classes] in [0, 1], without the background.
    """
    suppresses = overlaps(boxes, boxes) > OVERLAP
    # Those that are not there come last, so they suppress none that is; argsort is stable.
    order = jnp.argsort(-jnp.where(valid[:, None], scores, -1.0), axis=0)
    classes = jnp.arange(scores.shape[1])

    def one_place(suppressed: jax.Array, best: jax.Array) -> tuple[jax.Array, jax.Array]:
        keeps = ~suppressed[classes, best]
        return suppressed | (keeps[:, None] & suppresses[best]), keeps

    _, keeps = lax.scan(one_place, jnp.zeros(scores.T.shape, bool), order)
    kept_scores = jnp.where(keeps, jnp.take_along_axis(scores, order, axis=0), 0.0)
    return jnp.zeros(len(boxes)).at[order].max(kept_scores)


def choose(confidence: jax.Array, valid: jax.Array, choice: Choice) -> Chosen:
    """Returns the proposals that become regions; fewer than `fewest` where there are fewer proposals.

    Deviation: the reference leaves the proposals' order where it cuts none off; here confidence always orders them.

    Args:
      confidence: <float32>[proposals].
      valid: <bool>[proposals].
      choice: how many regions are chosen.
    """
    ordered, places = lax.top_k(jnp.where(valid, confidence, -1.0), min(choice.most, len(confidence)))
    num_sure = jnp.sum(ordered >= choice.threshold)
    return Chosen(jnp.maximum(num_sure, jnp.minimum(choice.fewest, valid.sum())), places)
