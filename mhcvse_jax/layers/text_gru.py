"""Words of a caption in their context: embedding and bidirectional GRU."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.layers.normalize import l2_normalize


def word_mask(lengths: jax.Array, max_length: int) -> jax.Array:
    """Returns <bool>[batch, words], true at a caption's own tokens, false at padding."""
    return jnp.arange(max_length) < lengths[:, None]


class TextGRU(nn.Module):
    """Unit vectors of a caption's words: embedding, dropout, Bi-GRU with its directions averaged.

    Attributes:
      vocabulary_size: tokens, the padding included.
      word_dim: width of the word vectors.
      embedding_dim: width of a direction of the GRU, and of the output.
      dropout_rate: of the word vectors.
      dtype: of the arithmetic; parameters are float32.
    """

    vocabulary_size: int
    word_dim: int
    embedding_dim: int
    dropout_rate: float
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
        # The lengths make the backward direction start at the last word, not at the padding.
        gru = nn.Bidirectional(
            nn.RNN(nn.GRUCell(self.embedding_dim, dtype=self.dtype, name="forward")),
            nn.RNN(nn.GRUCell(self.embedding_dim, dtype=self.dtype, name="backward")),
            merge_fn=lambda forward, backward: (forward + backward) / 2,
        )
        states = l2_normalize(jnp.asarray(gru(words, seq_lengths=lengths)))
        return jnp.where(word_mask(lengths, tokens.shape[1])[..., None], states, 0.0)
