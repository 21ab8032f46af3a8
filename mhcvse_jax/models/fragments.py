"""What every model starts with: unit vectors of a picture's regions and of a caption's words."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.layers.text_gru import TextGRU, word_mask

NUM_SCALES = 3  # of the fused, instance and consensus similarity


class AttentionMaps(NamedTuple):
    """Where a model looks in pairs of a picture and a caption, and the vectors that it uses for it.

    A map is <float32>[batch, heads, rows, columns]: how much each row attends to each column. A row sums to 1; rows
    and columns of padding are 0. None where the model has no such attention.
    """

    regions: jax.Array  # <float32>[batch, regions, D] unit vectors, 0 at padding: dot products with words are cosines
    words: jax.Array  # <float32>[batch, words, D] likewise
    image: jax.Array | None = None  # regions over the regions of their picture
    text: jax.Array | None = None  # words over the words of their caption
    image_pooling: jax.Array | None = None  # 1 head, 1 row: what the picture's vector takes of each region
    text_pooling: jax.Array | None = None  # likewise the caption's, of each word
    text_to_image: jax.Array | None = None  # words over the regions of the pair; the heads of all layers in turn
    image_to_text: jax.Array | None = None  # regions over the words of the pair, likewise


class Fragments(nn.Module):
    """Regions by a linear layer, words by a Bi-GRU, both as unit vectors (MH-CVSE Eq. 1 and section 3.1).

    `config.base()` documents each attribute under the same name. A model adds those keys that it has a use for.
    """

    vocabulary_size: int
    embedding_dim: int
    word_dim: int
    region_mlp_dim: int
    dropout_rate: float
    gru: str
    similarity_scale: float  # InfoNCE's learned scales at the start; 0: the model has none
    dtype: jnp.dtype

    @classmethod
    def check(cls, values: Any) -> None:
        """Raises InputError if the values of `config.model` do not fit this model, or each other.

        Each value is within its range. A model with its own rules adds them to these.
        """
        heads, dim = values.num_heads, values.embedding_dim
        if heads and dim % heads:
            raise InputError(f"config.model.num_heads is {heads}, which does not divide model.embedding_dim {dim}")
        if heads and "num_heads" not in {field.name for field in dataclasses.fields(cls)}:
            raise InputError(f"config.model.num_heads is {heads}; expected 0, as {values.name} has no heads")

    def setup(self):
        if self.similarity_scale:
            start = nn.initializers.constant(math.log(self.similarity_scale))
            self.log_scale = self.param("log_scale", start, (NUM_SCALES,))
        self.region_projection = nn.Dense(self.embedding_dim, dtype=self.dtype)
        if self.region_mlp_dim:
            self.region_mlp_hidden = nn.Dense(self.region_mlp_dim, dtype=self.dtype)
            self.region_mlp_out = nn.Dense(self.embedding_dim, dtype=self.dtype)
        self.text_gru = TextGRU(
            self.vocabulary_size, self.word_dim, self.embedding_dim, self.dropout_rate, self.gru, self.dtype
        )

    def unit_regions(self, regions: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Returns <float32>[batch, regions, D] unit vectors of region features [batch, regions, features].

        Where `mask` is false they are zero. Eq. 1 is linear; the MLP beside it is VSE∞'s (CVPR 2021), without its batch
        norms.
        """
        vectors = self.region_projection(regions)
        if self.region_mlp_dim:
            vectors += self.region_mlp_out(nn.relu(self.region_mlp_hidden(regions)))
        vectors = l2_normalize(vectors)
        return vectors if mask is None else jnp.where(mask[..., None], vectors, 0.0)

    def unit_words(self, tokens: jax.Array, lengths: jax.Array, *, train: bool) -> jax.Array:
        """Returns <float32>[batch, words, D] unit vectors of tokens <int32>[batch, words], zero at padding."""
        return self.text_gru(tokens, lengths, train=train)

    def attention_maps(
        self, regions: jax.Array, tokens: jax.Array, lengths: jax.Array, *, num_regions: jax.Array | None = None
    ) -> AttentionMaps:
        """Returns where the model looks in each picture with the caption in its place.

        Args:
          regions: <float32>[batch, regions, features] region features.
          tokens: <int32>[batch, words].
          lengths: <int32>[batch] tokens of each caption.
          num_regions: <int32>[batch], how many of a picture's regions count; None: all.
        """
        raise NotImplementedError


def own_map(weights: jax.Array, rows: jax.Array | None, columns: jax.Array | None) -> jax.Array:
    """Returns a map without its padding: <float32>[batch, heads, rows, columns], 0 there, the other rows summing to 1.

    Args:
      weights: [batch, heads, rows, columns], 0 or more.
      rows: <bool>[batch, rows], false at padding; None: all are true.
      columns: <bool>[batch, columns] likewise.
    """
    weights = weights.astype(jnp.float32)
    if columns is not None:
        weights = jnp.where(columns[:, None, None, :], weights, 0.0)
    weights /= jnp.sum(weights, axis=-1, keepdims=True)
    return weights if rows is None else jnp.where(rows[:, None, :, None], weights, 0.0)


def unit(elements: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns <float32>[batch, elements, D] unit vectors, 0 where `mask` is false."""
    vectors = l2_normalize(elements.astype(jnp.float32))
    return vectors if mask is None else jnp.where(mask[..., None], vectors, 0.0)


def region_mask(regions: jax.Array, num_regions: jax.Array | None) -> jax.Array | None:
    """Returns <bool>[batch, regions], true at the first `num_regions` of each picture; None where all have all."""
    return None if num_regions is None else word_mask(num_regions, regions.shape[1])
