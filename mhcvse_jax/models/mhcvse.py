"""MH-CVSE: multi-head consensus-aware visual-semantic embedding (arXiv:2412.19184)."""

import jax

from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.layers.self_attention import SelfAttention
from mhcvse_jax.models.cvse import CVSE
from mhcvse_jax.models.fragments import AttentionMaps, own_map, unit


class MHCVSE(CVSE):
    """CVSE with one self-attention per modality, over regions and over words, before they are pooled.

    `config.base()` documents each attribute under the same name.
    """

    num_heads: int
    attention_input: str
    attention_residual: bool
    attention_start: str
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
                    self.attention_start,
                    masks_are_prefixes=not self.element_dropout_rate,
                )
                for _ in range(2)
            )

    def pool_regions(self, regions: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
        """Returns the instance embeddings [batch, D] of pictures, from regions after self-attention."""
        if not self.num_heads:
            return super().pool_regions(regions, mask, train=train)
        if self.pooling == "mean":
            return l2_normalize(self.image_attention(regions, mask, train=train, pooled=True))
        return super().pool_regions(self.image_attention(regions, mask, train=train), mask, train=train)

    def pool_words(self, words: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Returns the instance embeddings [batch, D] of captions, from words after self-attention."""
        if not self.num_heads:
            return super().pool_words(words, mask, train=train)
        if self.pooling == "mean":
            return l2_normalize(self.text_attention(words, mask, train=train, pooled=True))
        return super().pool_words(self.text_attention(words, mask, train=train), mask, train=train)

    def maps_of_fragments(
        self, regions: jax.Array, mask: jax.Array | None, words: jax.Array, is_word: jax.Array
    ) -> AttentionMaps:
        """See `VSEPP`. With a residual connection the vectors are what is added to what was looked at.

        These tell words apart: on Flickr8k the cosines of two words of a caption with the regions correlate by 0.60,
        and by 0.84 once words and regions hold something of all others.
        """
        if not self.num_heads:
            return super().maps_of_fragments(regions, mask, words, is_word)
        looked = self.image_attention(regions, mask, train=False), self.text_attention(words, is_word, train=False)
        maps = super().maps_of_fragments(looked[0], mask, looked[1], is_word)
        if self.attention_residual:
            own = self.image_attention.scaled(regions), self.text_attention.scaled(words)
            maps = maps._replace(regions=unit(own[0], mask), words=unit(own[1], is_word))
        return maps._replace(
            image=own_map(self.image_attention.weights(regions, mask), mask, mask),
            text=own_map(self.text_attention.weights(words, is_word), is_word, is_word),
        )
