"""The loss terms of embeddings, pair by pair (MH-CVSE Eq. 4 and the text around it). `pairs`: of pair scores."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.models.embeddings import Embeddings


class LossTerms(NamedTuple):
    """A value for each term: a loss, its weight lambda, or a base weight; None for terms that the model lacks."""

    fusion: jax.Array | None  # of the similarity that retrieval uses
    instance: jax.Array | None
    consensus: jax.Array | None
    kl: jax.Array | None
    matching: jax.Array | None = None  # of pair scores

    def present(self) -> dict[str, jax.Array]:
        """Returns the terms that are present, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


CONTRASTIVE = ("fusion", "instance", "consensus")
"""The terms that compare similarities."""


def soft_weights(similarity: jax.Array, is_negative: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Returns the weight of each negative, <float32>[queries, candidates]; a query's weights sum to 1.

    The softmax over a query's negatives of similarity / temperature; no gradient passes through it. Negatives whose
    similarities differ by far less than the temperature count alike; those that stand out count almost alone.

    That is why training with these weights does not collapse. Write each embedding as what all have in common plus a
    deviation. If the negatives that count are more similar to a query than its match is, the loss falls as all
    deviations shrink, until all embeddings are equal. The hardest of many negatives are like that until a model is
    good; the mean of all negatives never is. As deviations shrink, these weights approach the mean; as a model learns
    to tell pairs apart, they approach the hardest. No schedule is needed.

    Args:
      similarity: <float32>[queries, candidates].
      is_negative: <bool>[queries, candidates].
      temperature: more than 0, in the unit of the similarity.
    """
    logits = jnp.where(is_negative, jax.lax.stop_gradient(similarity) / temperature, -1e30)
    return jax.nn.softmax(logits, axis=1)


class Contrast(NamedTuple):
    """How a pair is compared with its negatives."""

    margin: float = 0.2  # cosine by which a pair must lead its negatives
    hardest: jax.Array | bool = True  # at temperature 0: the hardest negative counts, or all are summed
    temperature: float = 0.0  # above 0 every negative counts, by `soft_weights`
    scale: jax.Array | None = None  # <float32>[], inverse of InfoNCE's temperature; None: the hinge


def against_negatives(
    similarity: jax.Array, positive: jax.Array, is_negative: jax.Array, contrast: Contrast
) -> jax.Array:
    """Returns the loss of each query in one direction, <float32>[queries].

    The hinge is how far a query's match falls short of leading its negatives by the margin (VSE++ Eq. 6, SCAN Eq. 13).
    InfoNCE is the cross-entropy of the match among the negatives (CLIP, ICML 2021, section 2.3).

    Args:
      similarity: <float32>[queries, candidates].
      positive: <float32>[queries], the similarity of each query with its match.
      is_negative: <bool>[queries, candidates].
      contrast: how they are compared.
    """
    if contrast.scale is not None:
        logits = jnp.where(is_negative, contrast.scale * similarity, -1e30)
        positive = contrast.scale * positive
        return jnp.logaddexp(positive, jax.nn.logsumexp(logits, axis=1)) - positive
    excess = jnp.where(is_negative, jnp.maximum(contrast.margin + similarity - positive[:, None], 0.0), 0.0)
    if contrast.temperature:
        return jnp.sum(soft_weights(similarity, is_negative, contrast.temperature) * excess, axis=1)
    return jnp.where(contrast.hardest, jnp.max(excess, axis=1), jnp.sum(excess, axis=1))


def contrastive_loss(similarity: jax.Array, is_negative: jax.Array, contrast: Contrast) -> jax.Array:
    """Loss of each pair against its negatives, both directions, <float32>[batch] (MH-CVSE Eq. 4).

    Args:
      similarity: <float32>[image, text] cosine in [-1, 1]; pair i is (i, i).
      is_negative: <bool>[image, text], false on the diagonal and where picture and caption may belong together.
      contrast: how they are compared.
    """
    positive = jnp.diagonal(similarity)
    of_texts = against_negatives(similarity, positive, is_negative, contrast)
    return of_texts + against_negatives(similarity.T, positive, is_negative.T, contrast)


def hardness(similarity: jax.Array, is_negative: jax.Array, contrast: Contrast) -> jax.Array:
    """Returns how hard the negatives that count are, from 0 (the mean of all) to 1 (the hardest): <float32>[].

    Of InfoNCE, by its gradient's weights. The mean over pictures whose negatives differ. Arguments as of
    `contrastive_loss`.
    """
    similarity = jax.lax.stop_gradient(similarity)
    mean = jnp.sum(jnp.where(is_negative, similarity, 0.0), axis=1) / jnp.maximum(jnp.sum(is_negative, axis=1), 1)
    hardest = jnp.max(jnp.where(is_negative, similarity, -jnp.inf), axis=1)
    if contrast.scale is not None or contrast.temperature:
        temperature = contrast.temperature if contrast.scale is None else 1 / contrast.scale
        weights = soft_weights(similarity, is_negative, jax.lax.stop_gradient(temperature))
        counting = jnp.sum(weights * similarity, axis=1)
    else:
        counting = jnp.where(contrast.hardest, hardest, mean)
    differ = hardest - mean > jnp.finfo(jnp.float32).eps
    places = jnp.where(differ, (counting - mean) / jnp.where(differ, hardest - mean, 1.0), 0.0)
    return jnp.sum(places) / jnp.maximum(jnp.sum(differ), 1)


def contrastive_loss_in_blocks(
    images: jax.Array, texts: jax.Array, owner: jax.Array, contrast: Contrast, *, block: int
) -> jax.Array:
    """`contrastive_loss` that never holds the full similarity matrix: [block, batch] at a time, over all devices.

    Each direction is computed separately and recomputed in the backward pass, so a block's memory is freed at once.
    That takes eight products [batch, D] x [D, batch] instead of three.

    Args:
      images: <float32>[batch, D] unit vectors.
      texts: <float32>[batch, D] likewise, pair by pair.
      owner: <int32>[batch] two pairs are each other's negatives where these differ.
      contrast: how they are compared.
      block: queries at a time; it divides the batch, and the devices divide it.

    Returns:
      <float32>[batch].
    """
    positive = jnp.sum(images * texts, axis=1)

    def against(queries: jax.Array, candidates: jax.Array) -> jax.Array:
        @jax.checkpoint
        def of_block(block_of: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            queries, own, positive = block_of
            similarity = jnp.matmul(queries, candidates.T, precision=jax.lax.Precision.HIGHEST)
            return against_negatives(similarity, positive, own[:, None] != owner[None, :], contrast)

        # Each block takes a share of every device's queries, which lie side by side in the batch.
        blocks = jax.tree.map(lambda x: x.reshape(block, -1, *x.shape[1:]).swapaxes(0, 1), (queries, owner, positive))
        return jax.lax.map(of_block, blocks).swapaxes(0, 1).reshape(-1)

    return against(images, texts) + against(texts, images)


def kl_divergence(text: jax.Array, image: jax.Array) -> jax.Array:
    """KL(text || image) of each pair's distributions <float32>[batch, concepts]; <float32>[batch], 0 or more."""
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.sum(text * (jnp.log(jnp.maximum(text, tiny)) - jnp.log(jnp.maximum(image, tiny))), axis=-1)


def negatives(image_index: jax.Array | np.ndarray, *, mask_same_image: bool) -> jax.Array:
    """Returns <bool>[image, text], the pairs of a batch that do not match.

    Args:
      image_index: <int32>[batch] the picture of each pair.
      mask_same_image: whether the other captions of a pair's picture are left out, or only the pair itself.

    Deviation: CVSE uses the other captions of a pair's picture as negatives, although they describe it.
    """
    if mask_same_image:
        return jnp.asarray(image_index[:, None] != image_index[None, :])
    return ~jnp.eye(len(image_index), dtype=bool)


def loss_terms(
    image: Embeddings,
    text: Embeddings,
    image_index: jax.Array | np.ndarray,
    contrast: Contrast,
    *,
    mask_same_image: bool,
    reduction: str,
    similarity_block: int = 0,
) -> tuple[LossTerms, dict[str, jax.Array]]:
    """Returns the losses of a batch, each a <float32> scalar, and how hard the negatives of each were, by its name.

    Args:
      image: embeddings of the batch's pictures.
      text: embeddings of its captions, pair by pair.
      image_index: <int32>[batch] the picture of each pair.
      contrast: how they are compared; `scale` <float32>[3], one for each of `CONTRASTIVE`, where there is one.
      mask_same_image: see `negatives`.
      reduction: "sum" over the batch, or "mean".
      similarity_block: see `contrastive_loss_in_blocks`; 0: the similarity is held whole, and hardness is returned.
    """
    is_negative = negatives(image_index, mask_same_image=mask_same_image)
    owner = jnp.asarray(image_index) if mask_same_image else jnp.arange(len(image_index))
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[reduction]
    hard = {}

    def compare(term: str, images: jax.Array | None, texts: jax.Array | None) -> jax.Array | None:
        if images is None or texts is None:
            return None
        scale = None if contrast.scale is None else contrast.scale[CONTRASTIVE.index(term)]
        compared = contrast._replace(scale=scale)
        if similarity_block:
            return reduce(contrastive_loss_in_blocks(images, texts, owner, compared, block=similarity_block))
        similarity = jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST)
        hard[term] = hardness(similarity, is_negative, compared)
        return reduce(contrastive_loss(similarity, is_negative, compared))

    kl = None
    if image.concepts is not None and text.concepts is not None:
        kl = reduce(kl_divergence(text.concepts, image.concepts))
    losses = LossTerms(
        fusion=compare("fusion", image.fused, text.fused),
        instance=compare("instance", image.instance, text.instance),
        consensus=compare("consensus", image.consensus, text.consensus),
        kl=kl,
    )
    return losses, hard


def collapse_value(batch_size: int, margin: float, reduction: str, *, num_negatives: int) -> float:
    """Returns the hinge loss when all scores are equal: each negative violates the full margin.

    `num_negatives` are those that are summed for a query: 1 with the hardest alone, or with soft ones.
    """
    return 2 * margin * num_negatives * (batch_size if reduction == "sum" else 1)


def infonce_collapse_value(batch_size: int, reduction: str, *, num_negatives: int) -> float:
    """Returns the InfoNCE loss when all scores are equal: all of a query's candidates are equally likely."""
    return 2 * math.log(1 + num_negatives) * (batch_size if reduction == "sum" else 1)
