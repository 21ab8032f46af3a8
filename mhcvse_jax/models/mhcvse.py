"""MH-CVSE: multi-head consensus-aware visual-semantic embedding (arXiv:2412.19184)."""

import jax

from mhcvse_jax.layers.self_attention import SelfAttention
from mhcvse_jax.models.cvse import CVSE


class MHCVSE(CVSE):
    """CVSE whose regions and words look at each other before they are pooled: a self-attention a modality.

    `config.base()` documents each attribute under the same name.
    """

    num_heads: int
    attention_input: str
    attention_residual: bool
    attention_dropout_rate: float

    def setup(self):
        super().setup()
        if self.num_heads:
            self.image_attention, self.text_attention = (
                SelfAttention(
                    self.num_heads,
                    self.attention_input,
                    self.attention_residual,
                    self.attention_dropout_rate,
                    self.dtype,
                )
                for _ in range(2)
            )

    def relate_regions(self, regions: jax.Array, *, train: bool) -> jax.Array:
        """Returns the regions [batch, regions, D] after self-attention, as they come without heads."""
        return self.image_attention(regions, None, train=train) if self.num_heads else regions

    def relate_words(self, words: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Returns the words [batch, words, D] after self-attention, as they come without heads."""
        return self.text_attention(words, mask, train=train) if self.num_heads else words
