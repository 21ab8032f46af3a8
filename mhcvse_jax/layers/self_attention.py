"""Multi-head self-attention over regions or words (MH-CVSE Eqs. 2 and 5-11)."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.devices.platform import platform
from mhcvse_jax.layers.pooling import mean_pool

ENTROPY_SAMPLE = 16  # the first pairs of a batch, from which the entropy is read: all would cost time


class SelfAttention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d_k)) V over several heads.

    Elements are unit vectors. At D = 1024 a unit vector's features are of size 1/32 and the first attention logits of
    size 0.001: every head attends uniformly and hardly learns. So the input may be scaled.

    Deviation: the paper's Figure 2 shows neither a scale nor a residual connection nor layer norm; "unit"
    without a residual is the paper as drawn. Its Eq. 8 prints Q^T K where Eq. 9 has Q K^T: the second is meant.

    Attributes:
      num_heads: heads; they share the width equally.
      input_form: "unit" (as it comes), "scaled" (by sqrt(D): features of unit variance) or "layer_norm".
      residual: whether what Q, K and V were made from is added to the output.
      dropout_rate: the dropout rate of the attention weights.
      dtype: the type of the arithmetic; the softmax is float32.
      start: "random", "zero" or "gate". At random, attention scatters what the layers before it have aligned. With
        "zero" (output projection) and a residual connection, elements start unchanged; but Adam's steps have the same
        size whatever the gradient, and after ten of them the attention weighs as much as the element. With "gate", a
        learned factor per feature that starts at zero (ReZero, arXiv:2003.04887), it grows by a thousandth per step.
      masks_are_prefixes: whether a mask only ever keeps the first elements: cuDNN takes their number.
    """

    num_heads: int
    input_form: str
    residual: bool
    dropout_rate: float
    dtype: jnp.dtype
    start: str = "random"
    masks_are_prefixes: bool = True

    def setup(self):
        if self.input_form == "layer_norm":
            self.norm = nn.LayerNorm(dtype=self.dtype)
        self.attention = nn.MultiHeadDotProductAttention(
            self.num_heads,
            dropout_rate=self.dropout_rate,
            broadcast_dropout=False,
            dtype=self.dtype,
            force_fp32_for_softmax=True,
            out_kernel_init=nn.initializers.zeros if self.start == "zero" else nn.initializers.lecun_normal(),
        )
        if self.start == "gate":
            self.gate = Gate()

    def __call__(self, elements: jax.Array, mask: jax.Array | None, *, train: bool, pooled: bool = False) -> jax.Array:
        """Returns <dtype>[batch, elements, D], or <float32>[batch, D], their mean over what `mask` keeps.

        Args:
          elements: <float32>[batch, elements, D] unit vectors.
          mask: <bool>[batch, elements], false at padding, which nothing attends to; or None.
          train: whether dropout is on.
          pooled: whether to return the mean. It takes half of the products: the weights are averaged over the queries,
            so that V and the output are computed once per head, not once per element.
        """
        elements = self.scaled(elements)
        if mask is not None:
            self.sow("intermediates", "num_elements", jnp.sum(mask, axis=1))
        if pooled and not self.is_initializing():
            attended = self._let_in(self._mean_attended(elements, mask, train))
            return mean_pool(elements, mask) + attended if self.residual else attended
        if self._by_cudnn(elements, train) and not self.is_initializing():
            attended = self._attended_by_cudnn(elements, mask)
        else:
            attended = self.attention(elements, mask=_of_keys(mask), deterministic=not train, sow_weights=True)
        attended = self._let_in(attended)
        attended = elements.astype(self.dtype) + attended if self.residual else attended
        return mean_pool(attended, mask) if pooled else attended

    def weights(self, elements: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Returns <dtype>[batch, heads, elements, elements], how much each (row) attends to each (column).

        Args:
          elements: <float32>[batch, elements, D] unit vectors.
          mask: <bool>[batch, elements], false at padding, which nothing attends to; or None.
        """
        return self._weights(self.scaled(elements), mask, train=False)

    def scaled(self, elements: jax.Array) -> jax.Array:
        """Returns elements as `input_form` has them: what looks, is looked at and, with `residual`, is added."""
        if self.input_form == "scaled":
            return elements * math.sqrt(elements.shape[-1])
        return self.norm(elements) if self.input_form == "layer_norm" else elements

    def _let_in(self, attended: jax.Array) -> jax.Array:
        return self.gate(attended) if self.start == "gate" else attended

    def _weights(self, elements: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
        params = self.attention.variables["params"]
        elements = elements.astype(self.dtype)
        return nn.dot_product_attention_weights(
            _project(elements, params["query"]),
            _project(elements, params["key"]),
            mask=_of_keys(mask),
            dropout_rng=self.make_rng("dropout") if train and self.dropout_rate else None,
            dropout_rate=self.dropout_rate,
            broadcast_dropout=False,
            deterministic=not train,
            dtype=self.dtype,
            force_fp32_for_softmax=True,
        )

    def _mean_attended(self, elements: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """Returns <float32>[batch, D], the mean of what the queries attend to, which is linear in their weights."""
        params = self.attention.variables["params"]
        weights = self._weights(elements, mask, train=train)
        elements = elements.astype(self.dtype)
        self.attention.sow("intermediates", "attention_weights", weights)
        # [batch, heads, keys]: how much of each element is in the mean; a sum other than 1 is dropout's.
        shares = mean_pool(jnp.swapaxes(weights, 1, 2).reshape(*elements.shape[:2], -1), mask)
        shares = shares.reshape(len(elements), self.num_heads, -1).astype(self.dtype)
        seen = jnp.einsum("bhn,bnd->bhd", shares, elements)
        value, out = params["value"], params["out"]
        values = jnp.einsum("bhd,dhk->bhk", seen, value["kernel"].astype(self.dtype))
        values += jnp.sum(shares, axis=-1, keepdims=True) * value["bias"].astype(self.dtype)
        attended = jnp.einsum("bhk,hkd->bd", values, out["kernel"].astype(self.dtype))
        return attended.astype(jnp.float32) + out["bias"]

    def _by_cudnn(self, elements: jax.Array, train: bool) -> bool:
        """Returns whether cuDNN has this attention: on GPUs, in bfloat16, without dropout; backward if even."""
        head_dim = elements.shape[-1] // self.num_heads
        fits = self.dtype == jnp.bfloat16 and head_dim <= 128 and head_dim % 8 == 0
        fits = fits and (not train or (self.masks_are_prefixes and elements.shape[1] % 2 == 0))
        return fits and platform() == "gpu" and not (train and self.dropout_rate)

    def _attended_by_cudnn(self, elements: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Returns the same as Flax's attention, holding only those weights that the entropy is computed from."""
        params = self.attention.variables["params"]
        elements = elements.astype(self.dtype)
        query, key, value = (_project(elements, params[name]) for name in ("query", "key", "value"))
        few = slice(ENTROPY_SAMPLE)
        sample = self._weights(elements[few], None if mask is None else mask[few], train=False)
        self.attention.sow("intermediates", "attention_weights", sample)
        lengths = None if mask is None else jnp.sum(mask, axis=1, dtype=jnp.int32)
        attended = jax.nn.dot_product_attention(
            query, key, value, key_value_seq_lengths=lengths, implementation="cudnn"
        )
        kernel, bias = params["out"]["kernel"].astype(self.dtype), params["out"]["bias"].astype(self.dtype)
        return jnp.einsum("bnhk,hkd->bnd", attended, kernel) + bias


class Gate(nn.Module):
    """Returns each feature times a learned factor that starts at zero."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.param("factor", nn.initializers.zeros, x.shape[-1:]).astype(x.dtype)


def _of_keys(mask: jax.Array | None) -> jax.Array | None:
    """Returns a mask <bool>[batch, elements] as Flax's attention takes it: for each key, whatever looks at it."""
    return None if mask is None else mask[:, None, None, :]


def _project(elements: jax.Array, dense: Any) -> jax.Array:
    """Returns [batch, elements, heads, d_k] of a projection's {kernel, bias}."""
    kernel, bias = dense["kernel"].astype(elements.dtype), dense["bias"].astype(elements.dtype)
    return jnp.einsum("bnd,dhk->bnhk", elements, kernel) + bias


def attention_entropy(intermediates: Any) -> dict[str, jax.Array]:
    """Returns the mean entropy of each attention's weights, by module: 1 is uniform, 0 attends to one element.

    A head that stays at 1 has not learned to attend. Read from the first pairs of the batch.

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
