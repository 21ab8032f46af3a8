"""One vector for a picture or a caption from its regions or words."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.layers.gpo import GeneralizedPooling
from mhcvse_jax.layers.normalize import l2_normalize

MOMENTUM, EPSILON = 0.9, 1e-5  # of batch norms: CVSE's 0.1 as Flax counts it, and the default of both


def mean_pool(elements: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns <float32>[batch, D], the mean over the elements that `mask` <bool>[batch, elements] keeps."""
    elements = elements.astype(jnp.float32)
    if mask is None:
        return jnp.mean(elements, axis=1)
    kept = mask.astype(jnp.float32)[..., None]
    return jnp.sum(elements * kept, axis=1) / jnp.maximum(jnp.sum(kept, axis=1), 1.0)


def make_pooling(
    pooling: str, *, of_regions: bool, dropout_rate: float, gpo_dim: int, gpo_temperature: float, dtype: jnp.dtype
) -> nn.Module | None:
    """Returns the module of `config.model.pooling`; None for "mean", which is `mean_pool` and has none.

    A module takes elements [batch, elements, D], their mask and `train`, and returns unit vectors.
    """
    if pooling == "attention":
        return AttentionPooling(of_regions, dropout_rate, dtype)
    return GeneralizedPooling(gpo_dim, gpo_temperature) if pooling == "gpo" else None


class AttentionPooling(nn.Module):
    """The sum of elements, each weighted by how well it fits their mean (CVSE, ECCV 2020, section 3.2).

    h_i = g1(x_i) * g2(q), q the mean of the elements; weights = softmax over i of Linear(h_i), with
    g = Linear, batch norm, tanh, dropout. CVSE has the batch norm for regions only, and there that of g1
    keeps its statistics by region slot.

    Deviation: the running variance is of the batch as it is, where PyTorch's divides by one less, here as in
    `Consensus`: at a batch of 128, 0.8% less.

    Attributes:
      batch_norm: whether there is batch norm: for regions, not for words.
      dropout_rate: the dropout rate of g1 and g2.
      dtype: the type of the arithmetic.
    """

    batch_norm: bool
    dropout_rate: float
    dtype: jnp.dtype

    def __call__(self, elements: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
        """Returns <float32>[batch, D] unit vectors, from elements [batch, elements, D] and their mask."""
        weights = self.weights(elements, mask, train=train)
        return l2_normalize(jnp.einsum("bn,bnd->bd", weights, elements.astype(jnp.float32)))

    @nn.compact
    def weights(self, elements: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
        """Returns <float32>[batch, elements], how much each counts; 0 where `mask` is false."""
        query = mean_pool(elements, mask)
        if not self.batch_norm:  # CVSE normalises a caption's mean, not a picture's
            query = l2_normalize(query)
        of_elements = self._branch(elements, 1, "element", mask, train)
        fit = of_elements * self._branch(query, -1, "query", None, train)[:, None]
        scores = nn.Dense(1, dtype=self.dtype, name="score")(fit)[..., 0].astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        return nn.softmax(scores)

    def _branch(self, x: jax.Array, norm_axis: int, name: str, mask: jax.Array | None, train: bool) -> jax.Array:
        x = nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(x)
        if self.batch_norm and mask is not None:
            x = SlotNorm(self.dtype, name=f"{name}_norm")(x, mask, train=train)
        elif self.batch_norm:
            x = nn.BatchNorm(
                use_running_average=not train,
                axis=norm_axis,
                momentum=MOMENTUM,
                dtype=self.dtype,
                name=f"{name}_norm",
            )(x)
        return nn.Dropout(self.dropout_rate, deterministic=not train)(nn.tanh(x))


class SlotNorm(nn.Module):
    """Batch norm by region slot, over the pictures of a batch that have a region there.

    Its parameters and statistics are those of `nn.BatchNorm(axis=1)`, which it equals where all pictures have all
    regions. A slot that no picture of the batch has keeps its running statistics.

    Attributes:
      dtype: the type of the arithmetic; statistics are float32.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Returns <dtype>[batch, slots, D] of x [batch, slots, D] and its mask <bool>[batch, slots]."""
        slots = (x.shape[1],)
        scale = self.param("scale", nn.initializers.ones, slots)
        bias = self.param("bias", nn.initializers.zeros, slots)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, slots)
        running_var = self.variable("batch_stats", "var", jnp.ones, slots)
        x = x.astype(jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            pictures = jnp.sum(mask, axis=0)

            def mean_of(values: jax.Array) -> jax.Array:
                values = jnp.where(mask[..., None], values, 0.0)
                return jnp.sum(values, axis=(0, 2)) / (x.shape[2] * jnp.maximum(pictures, 1))

            mean = mean_of(x)
            var = jnp.maximum(mean_of(x * x) - mean * mean, 0.0)
            for running, value in ((running_mean, mean), (running_var, var)):
                moved = MOMENTUM * running.value + (1 - MOMENTUM) * value
                running.value = jnp.where(pictures > 0, moved, running.value)
        factor = jax.lax.rsqrt(var + EPSILON) * scale
        return ((x - mean[:, None]) * factor[:, None] + bias[:, None]).astype(self.dtype)
