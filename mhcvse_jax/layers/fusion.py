"""One embedding from the instance and the consensus embedding of a modality (MH-CVSE Eqs. 12-14)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.layers.normalize import l2_normalize


class Fusion(nn.Module):
    """The fused embedding, by one of four ways.

      concat      Linear([x; y])
      adap_sum    a x + (1 - a) y, a = sigmoid(Linear((x + y) / 2)), one per sample
      weight_sum  w_x * x + w_y * y, [w_x; w_y] = sigmoid(Linear([x; y])), one per feature
      fixed_sum   CVSE's a x + (1 - a) y with a constant a

    Deviation: the paper's equations write image and text for x and y; fused like that, a pair would need both
    sides and no embedding of one could be indexed. x and y are the two levels of one modality.

    Attributes:
      kind: a name above.
      fixed_instance_weight: a of fixed_sum.
      dtype: the type of the arithmetic.
      start: how weight_sum starts: "random", or as "fixed_sum", so that a consensus that has learnt nothing yet does
        not blur the instance embedding.
    """

    kind: str
    fixed_instance_weight: float
    dtype: jnp.dtype
    start: str = "random"

    @nn.compact
    def __call__(self, instance: jax.Array, consensus: jax.Array) -> jax.Array:
        """Returns <float32>[batch, D] unit vectors from the two <float32>[batch, D] embeddings."""
        x, y = instance, consensus
        dim = x.shape[-1]
        if self.kind == "concat":
            fused = nn.Dense(dim, dtype=self.dtype, name="linear")(jnp.concatenate([x, y], axis=-1))
        elif self.kind == "adap_sum":
            share = nn.sigmoid(nn.Dense(1, dtype=self.dtype, name="linear")((x + y) / 2))
            fused = share * x + (1 - share) * y
        elif self.kind == "weight_sum":
            weights = self._weights(dim)(jnp.concatenate([x, y], axis=-1))
            x_weight, y_weight = jnp.split(nn.sigmoid(weights), 2, axis=-1)
            fused = x_weight * x + y_weight * y
        elif self.kind == "fixed_sum":
            fused = self.fixed_instance_weight * x + (1 - self.fixed_instance_weight) * y
        else:
            raise ValueError(f"no fusion is named {self.kind!r}")
        return l2_normalize(fused)

    def _weights(self, dim: int) -> nn.Dense:
        """Returns the layer of weight_sum's logits."""
        if self.start == "random":
            return nn.Dense(2 * dim, dtype=self.dtype, name="linear")
        logit = math.log(self.fixed_instance_weight / (1 - self.fixed_instance_weight))
        logits = np.repeat([logit, -logit], dim)
        return nn.Dense(
            2 * dim,
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,
            bias_init=lambda key, shape, dtype: jnp.asarray(logits, dtype),
            name="linear",
        )
