"""The loss terms of embeddings, pair by pair (MH-CVSE Eq. 4 and the text around it). `pairs`: of pair scores."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.models.embeddings import Embeddings


class LossTerms(NamedTuple):
    """A value for each term: a loss, its weight lambda, or a base weight; None for a term that the model lacks."""

    fusion: jax.Array  # of the similarity that retrieval uses
    instance: jax.Array | None
    consensus: jax.Array | None
    kl: jax.Array | None
    matching: jax.Array | None = None  # of pair scores

    def present(self) -> dict[str, jax.Array]:
        """Returns the terms that there are, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


CONTRASTIVE = ("fusion", "instance", "consensus")
"""The terms that compare similarities."""


def contrastive_loss(
    similarity: jax.Array, *, margin: float, is_negative: jax.Array, hardest: jax.Array | bool
) -> jax.Array:
    """Hinge loss of each pair against its negatives, both directions (VSE++ Eq. 6).

    Args:
      similarity: <float32>[image, text] cosine in [-1, 1]; pair i is (i, i).
      margin: cosine by which a pair must lead its negatives.
      is_negative: <bool>[image, text], false on the diagonal and where picture and caption may belong together.
      hardest: true: the hardest negative of each direction counts; false: all are summed.

    Returns:
      <float32>[batch], 0 where the margin holds in both directions.
    """
    positive = jnp.diagonal(similarity)
    against_texts = jnp.where(is_negative, jnp.maximum(margin + similarity - positive[:, None], 0.0), 0.0)
    against_images = jnp.where(is_negative, jnp.maximum(margin + similarity - positive[None, :], 0.0), 0.0)
    of_hardest = jnp.max(against_texts, axis=1) + jnp.max(against_images, axis=0)
    of_all = jnp.sum(against_texts, axis=1) + jnp.sum(against_images, axis=0)
    return jnp.where(hardest, of_hardest, of_all)


def contrastive_loss_in_blocks(
    images: jax.Array,
    texts: jax.Array,
    owner: jax.Array,
    *,
    margin: float,
    hardest: jax.Array | bool,
    block: int,
) -> jax.Array:
    """`contrastive_loss` that never holds the whole similarity: [block, batch] of it at a time, over all devices.

    Each direction is computed separately and recomputed in the backward pass, so a block's memory is freed at
    once: eight products [batch, D] x [D, batch] instead of three.

    Args:
      images: <float32>[batch, D] unit vectors.
      texts: <float32>[batch, D] likewise, pair by pair.
      owner: <int32>[batch] two pairs are each other's negatives where these differ.
      margin: see `contrastive_loss`.
      hardest: see `contrastive_loss`.
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
            violation = jnp.maximum(margin + similarity - positive[:, None], 0.0)
            violation = jnp.where(own[:, None] != owner[None, :], violation, 0.0)
            return jnp.where(hardest, jnp.max(violation, axis=1), jnp.sum(violation, axis=1))

        # Each block takes a share of every device's queries, which lie side by side in the batch.
        blocks = jax.tree.map(lambda x: x.reshape(block, -1, *x.shape[1:]).swapaxes(0, 1), (queries, owner, positive))
        return jax.lax.map(of_block, blocks).swapaxes(0, 1).reshape(-1)

    return against(images, texts) + against(texts, images)


def kl_divergence(text: jax.Array, image: jax.Array) -> jax.Array:
    """KL(text || image) of each pair's distributions <float32>[batch, concepts]; <float32>[batch], 0 or more."""
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.sum(text * (jnp.log(jnp.maximum(text, tiny)) - jnp.log(jnp.maximum(image, tiny))), axis=-1)


def negatives(image_index: jax.Array | np.ndarray, *, mask_same_image: bool) -> jax.Array:
    """Returns <bool>[image, text], the pairs of a batch that are no match.

    Args:
      image_index: <int32>[batch] the picture of each pair.
      mask_same_image: whether the other captions of a pair's picture are left out, or only the pair itself.

    Deviation: CVSE takes the other captions of a pair's picture for negatives, though they describe it.
    """
    if mask_same_image:
        return jnp.asarray(image_index[:, None] != image_index[None, :])
    return ~jnp.eye(len(image_index), dtype=bool)


def loss_terms(
    image: Embeddings,
    text: Embeddings,
    image_index: jax.Array | np.ndarray,
    *,
    margin: float,
    mask_same_image: bool,
    hardest: jax.Array | bool,
    reduction: str,
    similarity_block: int = 0,
) -> LossTerms:
    """Returns the losses of a batch, each a <float32> scalar; None where the model has no such embedding.

    Args:
      image: embeddings of the batch's pictures.
      text: embeddings of its captions, pair by pair.
      image_index: <int32>[batch] the picture of each pair.
      margin: see `contrastive_loss`.
      mask_same_image: see `negatives`.
      hardest: see `contrastive_loss`.
      reduction: "sum" over the batch, or "mean".
      similarity_block: see `contrastive_loss_in_blocks`; 0: the similarity is held whole.
    """
    is_negative = negatives(image_index, mask_same_image=mask_same_image)
    owner = jnp.asarray(image_index) if mask_same_image else jnp.arange(len(image_index))
    reduce = {"sum": jnp.sum, "mean": jnp.mean}[reduction]

    def contrast(images, texts):
        if similarity_block:
            return reduce(
                contrastive_loss_in_blocks(images, texts, owner, margin=margin, hardest=hardest, block=similarity_block)
            )
        similarity = jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST)
        return reduce(contrastive_loss(similarity, margin=margin, is_negative=is_negative, hardest=hardest))

    def where_there(term: Callable, images: jax.Array | None, texts: jax.Array | None) -> jax.Array | None:
        return None if images is None or texts is None else term(images, texts)

    return LossTerms(
        fusion=contrast(image.fused, text.fused),
        instance=where_there(contrast, image.instance, text.instance),
        consensus=where_there(contrast, image.consensus, text.consensus),
        kl=where_there(lambda images, texts: reduce(kl_divergence(texts, images)), image.concepts, text.concepts),
    )


def collapse_value(batch_size: int, margin: float, reduction: str, *, num_negatives: int) -> float:
    """Returns what a contrastive loss is when all scores are one: each negative violates the margin in full.

    `num_negatives` are those that count for a query, 1 with the hardest alone.
    """
    return 2 * margin * num_negatives * (batch_size if reduction == "sum" else 1)
