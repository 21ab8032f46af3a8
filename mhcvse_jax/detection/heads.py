"""What is computed for each proposal: its feature vector, class scores, and attribute scores."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.detection.resnet import Bottleneck

NUM_BINS = 14  # of RoIPool, a side


class RegionFeatures(nn.Module):
    """The fifth part of the residual network with dilation 2 and stride 1, then the mean over space.

    Attributes:
      num_blocks: residual blocks.
      width: channels of their first two convolutions.
    """

    num_blocks: int
    width: int
    dtype: Any
    precision: Any

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Returns <float32>[regions, 4 * width], none negative, of pooled maps <dtype>[regions, 14, 14, channels]."""
        x = pooled
        for block in range(self.num_blocks):
            x = Bottleneck(
                self.width,
                stride=1,
                dilation=2,
                has_projection=block == 0,
                dtype=self.dtype,
                precision=self.precision,
                name=f"res5_{block}",
            )(x)
        return x.astype(jnp.float32).mean(axis=(1, 2))


class ClassScores(nn.Module):
    """Logits of the classes; class 0 is the background.

    Attributes:
      num_classes: the number of classes, without the background.
    """

    num_classes: int
    precision: Any

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns <float32>[regions, 1 + classes] of features <float32>[regions, F]."""
        return nn.Dense(1 + self.num_classes, precision=self.precision, name="score")(features)


class AttributeScores(nn.Module):
    """Logits of the attributes of a region, given its class; attribute 0 is none.

    Attributes:
      num_classes: the number of classes, without the background.
      num_attributes: the number of attributes, without "none".
      embedding_dim: the width of a class's embedding.
      hidden_dim: the width of the layer between the features and the scores.
    """

    num_classes: int
    num_attributes: int
    embedding_dim: int
    hidden_dim: int
    precision: Any

    @nn.compact
    def __call__(self, features: jax.Array, classes: jax.Array) -> jax.Array:
        """Returns <float32>[regions, 1 + attributes].

        Args:
          features: <float32>[regions, F].
          classes: <int32>[regions], the likeliest class of each, 0 for the background.
        """
        embedded = nn.Embed(1 + self.num_classes, self.embedding_dim, name="class_embedding")(classes)
        hidden = nn.Dense(self.hidden_dim, precision=self.precision, name="hidden")(
            jnp.concatenate([features, embedded], axis=-1)
        )
        return nn.Dense(1 + self.num_attributes, precision=self.precision, name="score")(nn.relu(hidden))
