"""SCAN: stacked cross attention (ECCV 2018), text-to-image and image-to-text.

A word looks at the regions (or a region at the words), and the pair scores by how alike each is to what it saw. What it
saw, a = sum_c alpha_c x_c, is never made: its product with the query is sum_c alpha_c (q . x_c), and its length is the
square root of alpha G alpha with G the products of the x_c among each other, computed once per side. So a
pair costs one product of its regions and words, half of what it costs to make a, and none of its memory.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.layers.text_gru import word_mask
from mhcvse_jax.models.fragments import AttentionMaps, own_map, region_mask
from mhcvse_jax.models.pair_scores import PairModel


class Side(NamedTuple):
    """The fragments of a picture or caption; with a batch axis before, those of several."""

    vectors: jax.Array  # <dtype>[fragments, D] unit vectors
    products: jax.Array  # <float32>[fragments, fragments] of the vectors among each other
    mask: jax.Array  # <bool>[fragments], false at padding


class SCAN(PairModel):
    """The model. `config.base()` documents each attribute under the same name."""

    scan_direction: str
    scan_pooling: str
    scan_attention_temperature: float
    scan_lse_temperature: float

    def encode_images(
        self,
        regions: jax.Array,
        graph: ConceptGraph,
        *,
        num_regions: jax.Array | None = None,
        train: bool = False,
    ) -> Side:
        mask = region_mask(regions, num_regions)
        vectors = self.unit_regions(regions, mask)
        return self._side(vectors, jnp.ones(regions.shape[:2], bool) if mask is None else mask)

    def encode_texts(self, captions: Captions, graph: ConceptGraph, *, train: bool = False) -> Side:
        return self._side(self.unit_words(captions.tokens, captions.lengths, train=train), captions.mask)

    def score_pair(self, image: Side, text: Side) -> jax.Array:
        query, context = (text, image) if self.scan_direction == "t2i" else (image, text)
        relevance = attended_cosines(query, context, self.scan_attention_temperature)
        if self.scan_pooling == "avg":
            return jnp.sum(jnp.where(query.mask, relevance, 0.0)) / jnp.sum(query.mask)
        scaled = jnp.where(query.mask, self.scan_lse_temperature * relevance, -jnp.inf)
        return jax.nn.logsumexp(scaled) / self.scan_lse_temperature

    def attention_maps(
        self, regions: jax.Array, tokens: jax.Array, lengths: jax.Array, *, num_regions: jax.Array | None = None
    ) -> AttentionMaps:
        """See `Fragments`; the direction that the score is of."""
        mask, is_word = region_mask(regions, num_regions), word_mask(lengths, tokens.shape[1])
        regions = self.unit_regions(regions, mask).astype(self.dtype)
        words = self.unit_words(tokens, lengths, train=False).astype(self.dtype)
        maps = AttentionMaps(regions.astype(jnp.float32), words.astype(jnp.float32))
        cosines = jnp.einsum("bwd,brd->bwr", words, regions, preferred_element_type=jnp.float32)
        weights = jax.vmap(attention_weights, in_axes=(0, None))
        if self.scan_direction == "t2i":
            found = weights(cosines, self.scan_attention_temperature)[:, None]
            return maps._replace(text_to_image=own_map(found, is_word, mask))
        found = weights(jnp.swapaxes(cosines, 1, 2), self.scan_attention_temperature)[:, None]
        return maps._replace(image_to_text=own_map(found, mask, is_word))

    def _side(self, vectors: jax.Array, mask: jax.Array) -> Side:
        vectors = vectors.astype(self.dtype)
        products = jnp.einsum("bnd,bmd->bnm", vectors, vectors, preferred_element_type=jnp.float32)
        return Side(vectors, products, mask)


def attended_cosines(query: Side, context: Side, temperature: float) -> jax.Array:
    """Returns <float32>[queries], the cosine of each query with what it attends to (SCAN Eqs. 1-4, 7-9).

    That is the cosine of q with sum_c alpha_qc x_c; alpha comes from `attention_weights`.
    """
    cosines = jnp.einsum("qd,cd->qc", query.vectors, context.vectors, preferred_element_type=jnp.float32)
    # No mask: words and regions at padding are zero vectors, whose cosines are 0; what they take of the weights
    # shortens the sum of the others, and its length cancels.
    weights = attention_weights(cosines, temperature)
    squared = jnp.einsum("qc,cd,qd->q", weights, context.products, weights)
    return jnp.sum(weights * cosines, axis=-1) / jnp.sqrt(jnp.maximum(squared, jnp.finfo(jnp.float32).eps))


def attention_weights(cosines: jax.Array, temperature: float) -> jax.Array:
    """Returns <float32>[queries, context], how much each query attends to each of the context (SCAN Eqs. 1, 2, 7, 8).

    s_qc the cosine of query q and context c; s'_qc = [s_qc]+ / sqrt(sum_q [s_qc]+^2), over the queries;
    alpha_q = softmax over c of temperature * s'_qc.
    """
    return jax.nn.softmax(temperature * l2_normalize(jnp.maximum(cosines, 0.0).T).T, axis=-1)
