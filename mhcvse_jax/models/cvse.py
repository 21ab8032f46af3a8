"""CVSE: consensus-aware visual-semantic embedding (ECCV 2020), which MH-CVSE extends."""

import jax

from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGCN, ConceptGraph
from mhcvse_jax.layers.consensus import Consensus, label_distribution
from mhcvse_jax.layers.fusion import Fusion
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.models.vsepp import VSEPP


class CVSE(VSEPP):
    """The pooled vectors of VSE++ as instance embeddings, beside a consensus embedding by a graph of concepts.

    A picture and a caption are encoded apart, so that retrieval is one dot product. A model that makes instance
    embeddings from regions and words in another way overrides `pool_regions` and `pool_words`.
    `config.base()` documents each attribute under the same name.
    """

    train_concept_vectors: bool
    graph_product: str
    graph_slope: float
    consensus_norm: str
    consensus_start: str
    consensus_temperature: float
    label_temperature: float
    label_share: float
    fusion: str
    fixed_instance_weight: float
    fusion_start: str

    def setup(self):
        super().setup()
        self.concept_gcn = ConceptGCN(
            self.embedding_dim, self.graph_slope, self.graph_product, self.train_concept_vectors
        )
        self.image_consensus, self.text_consensus = (
            Consensus(self.consensus_norm, self.consensus_temperature, self.dtype, self.consensus_start)
            for _ in range(2)
        )
        self.image_fusion, self.text_fusion = (
            Fusion(self.fusion, self.fixed_instance_weight, self.dtype, self.fusion_start) for _ in range(2)
        )

    def __call__(
        self,
        regions: jax.Array,
        captions: Captions,
        graph: ConceptGraph,
        is_negative: jax.Array | None = None,
        mining_temperature: jax.Array | float = 0.0,
        *,
        num_regions: jax.Array | None = None,
        train: bool,
    ) -> tuple[Embeddings, Embeddings]:
        """Returns the embeddings of pictures and of captions; the concepts are propagated once for both."""
        concepts = self.concept_gcn(graph)
        image = self._encode_images(regions, num_regions, concepts, train)
        text = self._encode_texts(captions, concepts, train)
        return image, text

    def encode_images(
        self,
        regions: jax.Array,
        graph: ConceptGraph,
        *,
        num_regions: jax.Array | None = None,
        train: bool = False,
    ) -> Embeddings:
        return self._encode_images(regions, num_regions, self.concept_gcn(graph), train)

    def encode_texts(self, captions: Captions, graph: ConceptGraph, *, train: bool = False) -> Embeddings:
        return self._encode_texts(captions, self.concept_gcn(graph), train)

    def _encode_images(
        self, regions: jax.Array, num_regions: jax.Array | None, concepts: jax.Array, train: bool
    ) -> Embeddings:
        vectors, mask = self.regions_to_pool(regions, num_regions, train=train)
        instance = self.pool_regions(vectors, mask, train=train)
        consensus, distribution = self.image_consensus(instance, concepts, None, 0.0, train=train)
        return Embeddings(instance, consensus, self.image_fusion(instance, consensus), distribution)

    def _encode_texts(self, captions: Captions, concepts: jax.Array, train: bool) -> Embeddings:
        vectors, mask = self.words_to_pool(captions.tokens, captions.lengths, train=train)
        instance = self.pool_words(vectors, mask, train=train)
        label = label_distribution(captions.labels, self.label_temperature)
        consensus, distribution = self.text_consensus(instance, concepts, label, self.label_share, train=train)
        return Embeddings(instance, consensus, self.text_fusion(instance, consensus), distribution)
