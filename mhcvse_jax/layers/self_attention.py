"""Multi-head self-attention over regions or words (MH-CVSE Eqs. 2 and 5-11)."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

ENTROPY_SAMPLE = 16  # the first pairs of a batch, from which the entropy is read: all would cost time


class SelfAttention(nn.Module):
    """Elements that have looked at each other: softmax(Q K^T / sqrt(d_k)) V over several heads.

    Elements come as unit vectors. At D = 1024 a unit vector's features have a size of 1/32 and the first
    attention logits one of 0.001: every head attends uniformly and hardly learns. So the input may be scaled.

    Deviation: the paper's Figure 2 shows neither a scale nor a residual connection nor layer norm; "unit"
    without a residual is the paper as drawn. Its Eq. 8 prints Q^T K where Eq. 9 has Q K^T: the second is meant.

    Attributes:
      num_heads: heads; they share the width equally.
      input_form: "unit" (as it comes), "scaled" (by sqrt(D): features of unit variance) or "layer_norm".
      residual: adds what Q, K and V were made from to the output.
      dropout_rate: of the attention weights.
      dtype: of the arithmetic; the softmax is float32.
    """

    num_heads: int
    input_form: str
    residual: bool
    dropout_rate: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, elements: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
        """Returns <dtype>[batch, elements, D].

        Args:
          elements: <float32>[batch, elements, D] unit vectors.
          mask: <bool>[batch, elements], false at padding, which nothing attends to; or None.
          train: whether dropout is on.
        """
        if self.input_form == "scaled":
            elements = elements * math.sqrt(elements.shape[-1])
        elif self.input_form == "layer_norm":
            elements = nn.LayerNorm(dtype=self.dtype, name="norm")(elements)
        if mask is not None:
            self.sow("intermediates", "num_elements", jnp.sum(mask, axis=1))
        attended = nn.MultiHeadDotProductAttention(
            self.num_heads,
            dropout_rate=self.dropout_rate,
            broadcast_dropout=False,
            deterministic=not train,
            dtype=self.dtype,
            force_fp32_for_softmax=True,
            name="attention",
        )(elements, mask=None if mask is None else mask[:, None, None, :], sow_weights=True)
        return elements.astype(self.dtype) + attended if self.residual else attended


def attention_entropy(intermediates: Any) -> dict[str, jax.Array]:
    """Returns the mean entropy of each attention's weights, by module: 1 is uniform, 0 looks at one element.

    A head that stays at 1 has not woken. Read from the first pairs of the batch.

    Args:
      intermediates: Flax's collection of that name, as `SelfAttention` fills it: weights [batch, heads, queries,
        keys], and the number of elements of each pair where there is padding.
    """
    entropies = {}
    for module, sown in intermediates.items():
        if "attention" in sown:
            weights = sown["attention"]["attention_weights"][0][:ENTROPY_SAMPLE].astype(jnp.float32)
            (num_elements,) = sown.get("num_elements", (jnp.full(len(weights), weights.shape[-1]),))
            entropies[module] = _normalized_entropy(weights, num_elements[:ENTROPY_SAMPLE])
    return entropies


def _normalized_entropy(weights: jax.Array, num_elements: jax.Array) -> jax.Array:
    entropy = -jnp.sum(weights * jnp.log(jnp.where(weights > 0, weights, 1.0)), axis=-1)
    is_query = jnp.arange(weights.shape[2]) < num_elements[:, None]
    uniform = jnp.log(jnp.maximum(num_elements, 2))
    mean_over_heads = jnp.mean(entropy, axis=1) / uniform[:, None]
    return jnp.sum(mean_over_heads * is_query) / jnp.sum(is_query)
