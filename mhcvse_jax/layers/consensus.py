"""A picture or caption expressed by concepts (CVSE, ECCV 2020, section 3.3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.layers.normalize import l2_normalize


class Consensus(nn.Module):
    """Scores an instance embedding against the concepts and mixes their embeddings by the scores.

    a_c = w . (g1(H_c) * g2(x)), p = softmax(temperature a), embedding = l2norm(sum_c p_c H_c), where
    g1, g2 = Linear, norm, tanh.

    Attributes:
      norm: "batch", CVSE's (over the concepts in g1, over the batch in g2), or "layer".
      temperature: the factor on the scores.
      dtype: the type of the arithmetic; distributions are float32.
      start: "random", or "zero": w begins at zero, so that all concepts count alike and the softmax passes its whole
        gradient. At random, the few concepts that score highest are the same for most pictures.
    """

    norm: str
    temperature: float
    dtype: jnp.dtype
    start: str = "random"

    @nn.compact
    def __call__(
        self,
        instance: jax.Array,
        concepts: jax.Array,
        label: jax.Array | None,
        label_share: float,
        *,
        train: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the consensus embeddings <float32>[batch, D] and the distributions <float32>[batch, concepts].

        Args:
          instance: <float32>[batch, D] instance embeddings.
          concepts: <float32>[concepts, D] concept embeddings H.
          label: <float32>[batch, concepts] a distribution that is mixed in, or None.
          label_share: its share.
          train: whether batch norm uses the batch's statistics.
        """
        dim = concepts.shape[-1]
        initial = nn.initializers.zeros if self.start == "zero" else nn.initializers.lecun_normal()
        weight = self.param("weight", initial, (dim, 1))[:, 0]
        from_concepts = self._branch(concepts, "concept", train)
        from_instance = self._branch(instance, "instance", train)
        scores = (from_instance * weight.astype(self.dtype)) @ from_concepts.T
        distribution = nn.softmax(self.temperature * scores.astype(jnp.float32))
        if label is not None:
            distribution = label_share * label + (1 - label_share) * distribution
        return l2_normalize(distribution @ concepts), distribution

    def _branch(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        x = nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(x)
        if self.norm == "batch":
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name=f"{name}_norm")(x)
        else:
            x = nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x)
        return nn.tanh(x)


def label_distribution(label: jax.Array, temperature: float) -> jax.Array:
    """Returns softmax(temperature * label) of a multi-hot <bool>[batch, concepts]; uniform where none is on."""
    return nn.softmax(temperature * label.astype(jnp.float32))
