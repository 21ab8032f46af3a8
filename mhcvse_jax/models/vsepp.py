"""VSE++: pooled regions and pooled words in one space, with the hinge of the hardest negative (BMVC 2018).

Deviation: VSE++ takes one feature of the whole picture and the last state of a GRU. Here, as in the programs that came
after it, a picture is the mean of its regions and a caption that of a Bi-GRU's states, so that every `pooling` may
stand in its place: with `pooling = "gpo"` it is VSE∞ (CVPR 2021) for region features and a Bi-GRU, but that VSE∞ adds
an MLP to its projection of the regions and pools elements as they are, where here each is a unit vector.
"""

import jax
import jax.numpy as jnp

from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.layers.pooling import AttentionPooling, make_pooling, mean_pool
from mhcvse_jax.layers.text_gru import word_mask
from mhcvse_jax.models.embeddings import EmbeddingModel, Embeddings
from mhcvse_jax.models.fragments import AttentionMaps, own_map, region_mask, unit


class VSEPP(EmbeddingModel):
    """The model, and the base of models that do more with the pooled vectors.

    `config.base()` documents each attribute under the same name.
    """

    feature_dropout_rate: float
    element_dropout_rate: float
    pooling: str
    gpo_dim: int
    gpo_temperature: float

    def setup(self):
        super().setup()
        self.image_pooling, self.text_pooling = (
            make_pooling(
                self.pooling,
                of_regions=of_regions,
                dropout_rate=self.dropout_rate,
                gpo_dim=self.gpo_dim,
                gpo_temperature=self.gpo_temperature,
                dtype=self.dtype,
            )
            for of_regions in (True, False)
        )

    def encode_images(
        self,
        regions: jax.Array,
        graph: ConceptGraph,
        *,
        num_regions: jax.Array | None = None,
        train: bool = False,
    ) -> Embeddings:
        vectors, mask = self.regions_to_pool(regions, num_regions, train=train)
        return Embeddings.single(self.pool_regions(vectors, mask, train=train))

    def encode_texts(self, captions: Captions, graph: ConceptGraph, *, train: bool = False) -> Embeddings:
        vectors, mask = self.words_to_pool(captions.tokens, captions.lengths, train=train)
        return Embeddings.single(self.pool_words(vectors, mask, train=train))

    def regions_to_pool(
        self, regions: jax.Array, num_regions: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns unit vectors [batch, regions, D] and which are pooled, <bool>[batch, regions] or None for all.

        In training, features are dropped and regions left out at random. All regions of a picture lose the same
        features: recall is the same as with draws of their own, which cost a fifth of a step on a CPU.
        """
        mask = region_mask(regions, num_regions)
        if train and self.feature_dropout_rate:
            shape = (len(regions), 1, regions.shape[2])
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.feature_dropout_rate, shape)
            regions = jnp.where(kept, regions / (1 - self.feature_dropout_rate), 0.0)
        vectors = self.unit_regions(regions, mask)
        if train and self.element_dropout_rate:
            mask = jnp.ones(regions.shape[:2], bool) if mask is None else mask
            mask = without_some(self.make_rng("dropout"), mask, self.element_dropout_rate)
        return vectors, mask

    def words_to_pool(self, tokens: jax.Array, lengths: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns unit vectors [batch, words, D] and which are pooled; in training words are left out at random."""
        mask = word_mask(lengths, tokens.shape[1])
        if train and self.element_dropout_rate:
            mask = without_some(self.make_rng("dropout"), mask, self.element_dropout_rate)
        return self.unit_words(tokens, lengths, train=train), mask

    def pool_regions(self, regions: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
        """Returns one unit vector a picture, <float32>[batch, D], from unit vectors [batch, regions, D]."""
        if self.image_pooling is None:
            return l2_normalize(mean_pool(regions, mask))
        return self.image_pooling(regions, mask, train=train)

    def pool_words(self, words: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Returns one unit vector a caption, <float32>[batch, D], from unit vectors [batch, words, D]."""
        if self.text_pooling is None:
            return l2_normalize(mean_pool(words, mask))
        return self.text_pooling(words, mask, train=train)

    def attention_maps(
        self, regions: jax.Array, tokens: jax.Array, lengths: jax.Array, *, num_regions: jax.Array | None = None
    ) -> AttentionMaps:
        """See `Fragments`. The vectors are those that are pooled, so what they share is what the score is of."""
        vectors, mask = self.regions_to_pool(regions, num_regions, train=False)
        return self.maps_of_fragments(vectors, mask, *self.words_to_pool(tokens, lengths, train=False))

    def maps_of_fragments(
        self, regions: jax.Array, mask: jax.Array | None, words: jax.Array, is_word: jax.Array
    ) -> AttentionMaps:
        """Returns the maps of elements [batch, elements, D] that are to be pooled, and which of them are."""
        maps = AttentionMaps(unit(regions, mask), unit(words, is_word))
        of_image, of_text = self.image_pooling, self.text_pooling
        if isinstance(of_image, AttentionPooling) and isinstance(of_text, AttentionPooling):
            image = of_image.weights(regions, mask, train=False)[:, None, None]
            text = of_text.weights(words, is_word, train=False)[:, None, None]
            maps = maps._replace(image_pooling=own_map(image, None, mask), text_pooling=own_map(text, None, is_word))
        return maps


def without_some(key: jax.Array, mask: jax.Array, rate: float) -> jax.Array:
    """Returns `mask` <bool>[batch, elements] without a share of its elements at random, but never without all.

    VSE∞ (CVPR 2021, section 4.1) leaves out a fifth of the regions and words so.
    """
    chance = jnp.where(mask, jax.random.uniform(key, mask.shape), -1.0)
    return mask & ((chance >= rate) | (chance == jnp.max(chance, axis=1, keepdims=True)))
