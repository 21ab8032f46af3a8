"""The interface of an embedding model: each side is encoded alone, and a similarity is a dot product."""

from typing import NamedTuple

import jax

from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.models.fragments import Fragments


class Embeddings(NamedTuple):
    """A model's embeddings of a batch of pictures or captions; None for those it does not have.

    What is there decides which losses are computed, and which recalls reported.
    """

    instance: jax.Array | None  # <float32>[batch, D] unit vectors, from the picture or caption alone
    consensus: jax.Array | None  # <float32>[batch, D] unit vectors, from the concepts
    fused: jax.Array  # <float32>[batch, D] unit vectors: what retrieval uses
    concepts: jax.Array | None  # <float32>[batch, concepts] distribution over the concepts

    @classmethod
    def single(cls, vectors: jax.Array) -> "Embeddings":
        """Returns the embeddings of a model that has only one, from unit vectors <float32>[batch, D]."""
        return cls(instance=None, consensus=None, fused=vectors, concepts=None)


class EmbeddingModel(Fragments):
    """A model is a subclass with these two methods; retrieval calls them apart, training both at once."""

    def encode_images(
        self,
        regions: jax.Array,
        graph: ConceptGraph,
        *,
        num_regions: jax.Array | None = None,
        train: bool = False,
    ) -> Embeddings:
        """Returns the embeddings of pictures.

        Args:
          regions: <float32>[batch, regions, features] region features.
          graph: the concept graph, as `concept_graph` makes it.
          num_regions: <int32>[batch], how many of a picture's regions count, 1 or more; what stands behind them does
            not matter. None: all.
          train: whether dropout is on and batch norm uses the batch's statistics.
        """
        raise NotImplementedError

    def encode_texts(self, captions: Captions, graph: ConceptGraph, *, train: bool = False) -> Embeddings:
        """Returns the embeddings of captions.

        Args:
          captions: the captions, with the concepts of each.
          graph: the concept graph.
          train: as in `encode_images`.
        """
        raise NotImplementedError

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
        """Returns the embeddings of both; `is_negative` and `mining_temperature` are for models that choose pairs."""
        image = self.encode_images(regions, graph, num_regions=num_regions, train=train)
        return image, self.encode_texts(captions, graph, train=train)
