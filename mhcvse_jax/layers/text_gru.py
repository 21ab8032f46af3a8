"""Words of a caption in their context: embedding and bidirectional GRU."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.devices.platform import platform
from mhcvse_jax.layers.gru_cell import fuse_gates
from mhcvse_jax.layers.gru_packed import bi_gru_packed
from mhcvse_jax.layers.gru_pallas import bi_gru_pallas
from mhcvse_jax.layers.gru_scan import bi_gru_scan
from mhcvse_jax.layers.normalize import l2_normalize


def word_mask(lengths: jax.Array, max_length: int) -> jax.Array:
    """Returns <bool>[batch, words], true at a caption's own tokens, false at padding."""
    return jnp.arange(max_length) < lengths[:, None]


def choose_gru(gru: str) -> str:
    """Returns how to compute the GRU: the given way, or for "auto" the best for the devices.

    On one CPU "packed" is the fastest of those measured (`python -m benchmarks.gru`). On a GPU "scan" has the fewest
    and largest operations; it is not measured there. On several CPU devices "plain" would sum a kernel's gradient over
    them at every word, "scan" sums it once. "pallas" is never chosen before it is measured.
    """
    if gru != "auto":
        return gru
    return "packed" if platform() == "cpu" and jax.device_count() == 1 else "scan"


class TextGRU(nn.Module):
    """Unit vectors of a caption's words: embedding, dropout, Bi-GRU with its directions averaged.

    Attributes:
      vocabulary_size: tokens, the padding included.
      word_dim: width of the word vectors.
      embedding_dim: width of a direction of the GRU, and of the output.
      dropout_rate: the dropout rate of the word vectors.
      gru: "plain" (`flax.linen.RNN`), "scan" (`gru_scan`), "packed" (`gru_packed`), "pallas" (`gru_pallas`) or
        "auto" (`choose_gru`): equal but for rounding, with the same parameters.
      dtype: the type of the arithmetic; parameters are float32.
    """

    vocabulary_size: int
    word_dim: int
    embedding_dim: int
    dropout_rate: float
    gru: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: jax.Array, lengths: jax.Array, *, train: bool) -> jax.Array:
        """Returns <float32>[batch, words, embedding_dim], zero at padding.

        Args:
          tokens: <int32>[batch, words], anything at padding.
          lengths: <int32>[batch] tokens of each caption, 1 or more.
          train: whether dropout is on; needs the `dropout` key.
        """
        words = nn.Embed(self.vocabulary_size, self.word_dim, dtype=self.dtype, name="embed")(tokens)
        words = nn.Dropout(self.dropout_rate, deterministic=not train)(words)
        mask = word_mask(lengths, tokens.shape[1])
        cells = [nn.GRUCell(self.embedding_dim, dtype=self.dtype, name=name) for name in ("forward", "backward")]
        gru = "plain" if self.is_initializing() else choose_gru(self.gru)
        if gru == "plain":
            # The lengths make the backward direction start at the last word, not at the padding.
            rnn = nn.Bidirectional(*map(nn.RNN, cells), merge_fn=lambda *states: jnp.stack(states))
            states = jnp.where(mask[..., None], jnp.asarray(rnn(words, seq_lengths=lengths)), 0.0)
        else:
            directions = [fuse_gates(cell.variables["params"], self.dtype) for cell in cells]
            if gru == "packed":
                states = bi_gru_packed(directions, words, lengths)
            else:
                states = (bi_gru_scan if gru == "scan" else bi_gru_pallas)(directions, words, mask)
        return l2_normalize(jnp.mean(states, axis=0))
