"""Multi-head attention from one side's fragments to the other's, without a D x D product per pair.

Queries, keys and values are projections of one side, computed once per picture or caption. For a picture of M regions
and a caption of L words each layer then needs only the products of queries with keys and of weights with values, in
both directions: 8 L M D operations.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.layers.normalize import l2_normalize


class Projected(NamedTuple):
    """A layer's projections of a side: <dtype>[fragments, heads, d]; with a batch axis before, of several sides."""

    queries: jax.Array
    keys: jax.Array  # unit vectors, head by head
    values: jax.Array  # unit vectors over all heads


class Projections(nn.Module):
    """The queries, keys and values of a side's fragments, for one layer.

    The kernels begin as the identity: both sides lie in one space, in which a matching picture and caption come to be
    alike, so from the start a fragment attends to what is like it. At random every head would begin with a space of its
    own for either side, in which likeness means nothing.

    Attributes:
      num_heads: heads; they share the width equally.
      dtype: the type of the arithmetic.
    """

    num_heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, fragments: jax.Array) -> Projected:
        """Returns the projections of <float32>[batch, fragments, D]."""
        shape = (*fragments.shape[:-1], self.num_heads, fragments.shape[-1] // self.num_heads)
        queries, keys, values = (
            nn.Dense(fragments.shape[-1], kernel_init=_identity, dtype=self.dtype, name=name)(fragments)
            for name in ("query", "key", "value")
        )
        return Projected(
            queries.reshape(shape),
            l2_normalize(keys.reshape(shape)).astype(self.dtype),
            l2_normalize(values).reshape(shape).astype(self.dtype),
        )


def _identity(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype) -> jax.Array:
    del key
    return jnp.eye(*shape, dtype=dtype)


def attend(
    queries: jax.Array, context: Projected, mask: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns what each query gathers, <float32>[queries, heads, d], and by which weights, [heads, queries, context].

    The weights are the softmax over the context of the cosines, head by head.

    Args:
      queries: <dtype>[queries, heads, d], of any length.
      context: the other side.
      mask: <bool>[fragments] of the context, false at padding, which nothing attends to.
      temperature: <float32>[heads] factor on the cosines.
    """
    queries = l2_normalize(queries).astype(context.keys.dtype)
    cosines = jnp.einsum("qhd,chd->hqc", queries, context.keys, preferred_element_type=jnp.float32)
    logits = jnp.where(mask, temperature[:, None, None] * cosines, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(context.values.dtype)
    return jnp.einsum("hqc,chd->qhd", weights, context.values, preferred_element_type=jnp.float32), weights


def pair_operations(num_regions: int, num_words: int, dim: int, num_layers: int) -> int:
    """Returns the multiplications and additions of a pair's attention, both directions."""
    return 8 * num_regions * num_words * dim * num_layers
