"""The loss terms of a model that scores pairs, pair by pair: the hinge of VSE++ and SCAN, and a matching term."""

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.losses.embedding import LossTerms, contrastive_loss, negatives
from mhcvse_jax.models.pair_scores import Candidates, PairScores


def pair_hinge(
    scores: Candidates, is_text: jax.Array, is_image: jax.Array, *, margin: float, hardest: jax.Array | bool
) -> jax.Array:
    """Hinge loss of each pair against its negatives, both directions (SCAN Eq. 13), <float32>[batch].

    Args:
      scores: the batch's. Where they are of all its pairs, this is `losses.contrastive_loss`.
      is_text: <bool>[batch, texts] which of the other captions are negatives.
      is_image: <bool>[batch, images] which of the other pictures are.
      margin: score by which a pair must lead its negatives.
      hardest: true: the hardest negative of each direction counts; false: all are summed.
    """

    def against(candidates: jax.Array, is_negative: jax.Array) -> jax.Array:
        excess = jnp.maximum(margin + candidates - scores.positive[:, None], 0.0)
        excess = jnp.where(is_negative, excess, 0.0)
        return jnp.where(hardest, jnp.max(excess, axis=1), jnp.sum(excess, axis=1))

    return against(scores.texts, is_text) + against(scores.images, is_image)


def matching_loss(matching: Candidates, is_text: jax.Array, is_image: jax.Array) -> jax.Array:
    """Cross-entropy of "this caption is of this picture", <float32>[batch].

    That of each pair, and half of that of its hardest negative of each direction; one that has no negative counts for
    its positive alone.

    Args:
      matching: logits.
      is_text: <bool>[batch, texts] which of the other captions are negatives.
      is_image: <bool>[batch, images] which of the other pictures are.
    """

    def hardest(logits: jax.Array, is_negative: jax.Array) -> jax.Array:
        # Of a large negative number, not of -inf: where there is none the gradient is 0, not undefined.
        return jax.nn.softplus(jnp.max(jnp.where(is_negative, logits, -1e30), axis=1))

    wrong = hardest(matching.texts, is_text) + hardest(matching.images, is_image)
    return jax.nn.softplus(-matching.positive) + wrong / 2


def pair_loss_terms(
    outputs: PairScores,
    image_index: jax.Array | np.ndarray,
    *,
    margin: float,
    mask_same_image: bool,
    hardest: jax.Array | bool,
    reduction: str,
) -> LossTerms:
    """Returns the losses of a batch, each a <float32> scalar; the arguments are those of `losses.loss_terms`.

    `fusion` is the hinge on the pair score, in the mean with those of what it is made of; `matching` and, of whole
    pictures and captions over the whole batch, `instance` where the model has them.
    """
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[reduction]
    instance = matching = None
    if outputs.whole is not None:
        is_negative = negatives(image_index, mask_same_image=mask_same_image)
        options = {"margin": margin, "is_negative": is_negative, "hardest": hardest}
        instance = reduce(contrastive_loss(outputs.whole, **options))
    if outputs.matching is not None:
        matching = reduce(matching_loss(outputs.matching, outputs.is_text, outputs.is_image))
    hinges = [
        reduce(pair_hinge(scores, outputs.is_text, outputs.is_image, margin=margin, hardest=hardest))
        for scores in (outputs.scores, *outputs.alone)
    ]
    return LossTerms(
        fusion=sum(hinges[1:], hinges[0]) / len(hinges),
        instance=instance,
        consensus=None,
        kl=None,
        matching=matching,
    )
