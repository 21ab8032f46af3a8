"""Generalised pooling: a learned weight for each rank of the sorted values (VSE∞, CVPR 2021, section 3.2)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.layers.normalize import l2_normalize


def positional_encoding(length: int, dim: int) -> np.ndarray:
    """Returns <float32>[length, dim], sines and cosines of the place in turn (Vaswani et al. 2017, section 3.5)."""
    rates = 10_000.0 ** (-np.arange(0, dim, 2) / dim)
    angles = np.arange(length)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)[:, :dim].astype(np.float32)


class GeneralizedPooling(nn.Module):
    """The weighted sum of each feature's values, sorted from the largest: between the maximum and the mean.

    theta = softmax(Linear(BiGRU(positional encoding)) / temperature) over the elements there are;
    v_d = sum_k theta_k max_k(x_d), max_k the k-th largest value of feature d. The weights are a function of the number
    of elements alone, so they are computed once for each number, not for each picture or caption.

    Deviation: VSE∞ drops elements at random in training; that is `model.element_dropout_rate` here. The scores begin at
    zero, so that it begins as the mean: at random, a low temperature lets a few places of the order, drawn by chance,
    stand for all.

    Attributes:
      dim: the width of the encoding and of each direction of the GRU.
      temperature: the temperature of the softmax over places.
    """

    dim: int
    temperature: float

    @nn.compact
    def __call__(self, elements: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
        """Returns <float32>[batch, D] unit vectors, from elements [batch, elements, D] and their mask.

        `mask` <bool>[batch, elements] is true at the elements that are pooled; None keeps all.
        """
        num = elements.shape[1]
        elements = elements.astype(jnp.float32)
        counts = jnp.arange(1, num + 1) if mask is not None else jnp.array([num])
        theta = self._weights(num, counts)
        if mask is None:
            theta = theta[0][None]
        else:
            theta = theta[jnp.sum(mask, axis=1) - 1]
            elements = jnp.where(mask[..., None], elements, -jnp.inf)
        ordered = jnp.sort(elements, axis=1, descending=True)
        if mask is not None:
            there = jnp.arange(num) < jnp.sum(mask, axis=1, keepdims=True)
            ordered = jnp.where(there[..., None], ordered, 0.0)
        return l2_normalize(jnp.sum(theta[..., None] * ordered, axis=1))

    def _weights(self, num: int, counts: jax.Array) -> jax.Array:
        """Returns <float32>[counts, num], the weights of the places for each number of elements."""
        places = jnp.broadcast_to(positional_encoding(num, self.dim), (len(counts), num, self.dim))
        directions = [nn.RNN(nn.GRUCell(self.dim, name=name)) for name in ("forward", "backward")]
        rnn = nn.Bidirectional(*directions, merge_fn=lambda *states: sum(states) / 2)
        score = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, name="score")
        scores = score(rnn(places, seq_lengths=counts))[..., 0]
        scores = jnp.where(jnp.arange(num) < counts[:, None], scores, -jnp.inf)
        return nn.softmax(scores / self.temperature)
