"""CVSE: consensus-aware visual-semantic embedding (ECCV 2020), which MH-CVSE extends."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.layers.concept_gcn import ConceptGCN, ConceptGraph
from mhcvse_jax.layers.consensus import Consensus, label_distribution
from mhcvse_jax.layers.fusion import Fusion
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.layers.pooling import AttentionPooling, mean_pool
from mhcvse_jax.layers.text_gru import TextGRU, word_mask
from mhcvse_jax.models.embeddings import Embeddings


class CVSE(nn.Module):
    """The model. `config.base()` documents each attribute under the same name.

    A picture and a caption are encoded apart, so that retrieval is one dot product. A model that makes instance
    embeddings from regions and words in another way overrides `pool_regions` and `pool_words`.
    """

    vocabulary_size: int
    embedding_dim: int
    word_dim: int
    dropout_rate: float
    gru: str
    pooling: str
    train_concept_vectors: bool
    graph_product: str
    graph_slope: float
    consensus_norm: str
    consensus_temperature: float
    label_temperature: float
    label_share: float
    fusion: str
    fixed_instance_weight: float
    dtype: jnp.dtype

    def setup(self):
        self.region_projection = nn.Dense(self.embedding_dim, dtype=self.dtype)
        self.text_gru = TextGRU(
            self.vocabulary_size, self.word_dim, self.embedding_dim, self.dropout_rate, self.gru, self.dtype
        )
        self.concept_gcn = ConceptGCN(
            self.embedding_dim, self.graph_slope, self.graph_product, self.train_concept_vectors
        )
        if self.pooling == "attention":
            self.image_pooling, self.text_pooling = (
                AttentionPooling(batch_norm, self.dropout_rate, self.dtype) for batch_norm in (True, False)
            )
        self.image_consensus, self.text_consensus = (
            Consensus(self.consensus_norm, self.consensus_temperature, self.dtype) for _ in range(2)
        )
        self.image_fusion, self.text_fusion = (
            Fusion(self.fusion, self.fixed_instance_weight, self.dtype) for _ in range(2)
        )

    def __call__(
        self,
        regions: jax.Array,
        tokens: jax.Array,
        lengths: jax.Array,
        labels: jax.Array,
        graph: ConceptGraph,
        *,
        train: bool,
    ) -> tuple[Embeddings, Embeddings]:
        """Returns the embeddings of pictures and of captions; see `encode_images` and `encode_texts`."""
        concepts = self.concept_gcn(graph)
        image = self._encode_images(regions, concepts, train)
        text = self._encode_texts(tokens, lengths, labels, concepts, train)
        return image, text

    def encode_images(self, regions: jax.Array, graph: ConceptGraph, *, train: bool = False) -> Embeddings:
        """Returns the embeddings of pictures.

        Args:
          regions: <float32>[batch, regions, features] region features.
          graph: the concept graph, as `concept_graph` makes it.
          train: whether dropout is on and batch norm uses the batch's statistics.
        """
        return self._encode_images(regions, self.concept_gcn(graph), train)

    def encode_texts(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        labels: jax.Array,
        graph: ConceptGraph,
        *,
        train: bool = False,
    ) -> Embeddings:
        """Returns the embeddings of captions.

        Args:
          tokens: <int32>[batch, words]; what stands at padding does not matter.
          lengths: <int32>[batch] tokens of each caption.
          labels: <bool>[batch, concepts], the concepts of each caption (in training: of its picture).
          graph: the concept graph.
          train: as in `encode_images`.
        """
        return self._encode_texts(tokens, lengths, labels, self.concept_gcn(graph), train)

    def pool_regions(self, regions: jax.Array, *, train: bool) -> jax.Array:
        """Returns the instance embeddings [batch, D] of pictures, from unit vectors [batch, regions, D]."""
        if self.pooling == "attention":
            return self.image_pooling(regions, None, train=train)
        return l2_normalize(mean_pool(regions, None))

    def pool_words(self, words: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Returns the instance embeddings [batch, D] of captions, from unit vectors [batch, words, D]."""
        if self.pooling == "attention":
            return self.text_pooling(words, mask, train=train)
        return l2_normalize(mean_pool(words, mask))

    def _encode_images(self, regions: jax.Array, concepts: jax.Array, train: bool) -> Embeddings:
        regions = l2_normalize(self.region_projection(regions))
        instance = self.pool_regions(regions, train=train)
        consensus, distribution = self.image_consensus(instance, concepts, None, 0.0, train=train)
        return Embeddings(instance, consensus, self.image_fusion(instance, consensus), distribution)

    def _encode_texts(
        self, tokens: jax.Array, lengths: jax.Array, labels: jax.Array, concepts: jax.Array, train: bool
    ) -> Embeddings:
        mask = word_mask(lengths, tokens.shape[1])
        instance = self.pool_words(self.text_gru(tokens, lengths, train=train), mask, train=train)
        label = label_distribution(labels, self.label_temperature)
        consensus, distribution = self.text_consensus(instance, concepts, label, self.label_share, train=train)
        return Embeddings(instance, consensus, self.text_fusion(instance, consensus), distribution)
