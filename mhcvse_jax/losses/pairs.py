"""The loss terms of a model that scores pairs, pair by pair: a contrastive term of the score, and a matching term."""

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.losses.embedding import (
    Contrast,
    LossTerms,
    against_negatives,
    contrastive_loss,
    hardness,
    negatives,
)
from mhcvse_jax.models.pair_scores import Candidates, PairScores


def pair_contrast(scores: Candidates, is_text: jax.Array, is_image: jax.Array, contrast: Contrast) -> jax.Array:
    """Loss of each pair against its negatives, both directions, <float32>[batch] (SCAN Eq. 13).

    Args:
      scores: the batch's scores. If they cover all its pairs, this is `losses.contrastive_loss`.
      is_text: <bool>[batch, texts] which of the other captions are negatives.
      is_image: <bool>[batch, images] which of the other pictures are negatives.
      contrast: how they are compared.
    """
    of_texts = against_negatives(scores.texts, scores.positive, is_text, contrast)
    return of_texts + against_negatives(scores.images, scores.positive, is_image, contrast)


def matching_loss(matching: Candidates, is_text: jax.Array, is_image: jax.Array) -> jax.Array:
    """Cross-entropy of "this caption is of this picture", <float32>[batch].

    That of each pair, and half of that of its hardest negative of each direction; one that has no negative counts for
    its positive alone.

    Args:
      matching: logits.
      is_text: <bool>[batch, texts] which of the other captions are negatives.
      is_image: <bool>[batch, images] which of the other pictures are negatives.
    """

    def hardest(logits: jax.Array, is_negative: jax.Array) -> jax.Array:
        # Of a large negative number, not of -inf: where there is none the gradient is 0, not undefined.
        return jax.nn.softplus(jnp.max(jnp.where(is_negative, logits, -1e30), axis=1))

    wrong = hardest(matching.texts, is_text) + hardest(matching.images, is_image)
    return jax.nn.softplus(-matching.positive) + wrong / 2


def pair_loss_terms(
    outputs: PairScores,
    image_index: jax.Array | np.ndarray,
    contrast: Contrast,
    *,
    mask_same_image: bool,
    reduction: str,
) -> tuple[LossTerms, dict[str, jax.Array]]:
    """Returns the losses of a batch, each a <float32> scalar, and how hard negatives were, as `losses.loss_terms` does.

    `fusion` is that of the pair score, in the mean with those of what it is made of; `matching` and, of whole pictures
    and captions over the whole batch, `instance` where the model has them.
    """
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[reduction]
    of_pairs, of_wholes = contrast, contrast
    if contrast.scale is not None:
        of_pairs, of_wholes = (contrast._replace(scale=scale) for scale in contrast.scale[:2])
    contrasts = [
        reduce(pair_contrast(scores, outputs.is_text, outputs.is_image, of_pairs))
        for scores in (outputs.scores, *outputs.alone)
    ]
    hard = {"fusion": hardness(outputs.scores.texts, outputs.is_text, of_pairs)}
    instance = matching = None
    if outputs.whole is not None:
        is_negative = negatives(image_index, mask_same_image=mask_same_image)
        instance = reduce(contrastive_loss(outputs.whole, is_negative, of_wholes))
        hard |= {"instance": hardness(outputs.whole, is_negative, of_wholes)}
    if outputs.matching is not None:
        matching = reduce(matching_loss(outputs.matching, outputs.is_text, outputs.is_image))
    losses = LossTerms(
        fusion=sum(contrasts[1:], contrasts[0]) / len(contrasts),
        instance=instance,
        consensus=None,
        kl=None,
        matching=matching,
    )
    return losses, hard
