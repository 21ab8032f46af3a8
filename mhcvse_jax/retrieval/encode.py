"""The embeddings of a whole split, each picture and caption encoded once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.read_ahead import read_ahead
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.devices.mesh import by_batch, own_rows, put_batch, replicated
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.models.embeddings import EmbeddingModel, Embeddings
from mhcvse_jax.retrieval import label_completion

ReadRegions = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""Takes pictures <int>[batch]; returns <float32>[batch, regions, features], and how many each has, None for all."""


class EncodedSplit(NamedTuple):
    """Embeddings of all pictures and captions of a split, in its order."""

    image: Embeddings  # each [images, ...]
    text: Embeddings  # each [captions, ...]


class Encoder:
    """Encodes splits with one model; holds the compiled functions, one per shape."""

    def __init__(
        self,
        model: EmbeddingModel,
        graph: ConceptGraph,
        mesh: Mesh,
        *,
        batch_size: int,
        caption_lengths: Sequence[int],
        threads: int,
        prefetch: int,
        precision: str | None,
    ):
        """Takes the model, its concept graph and the devices; `batch_size` is over all of these.

        `precision` is that of `jax.default_matmul_precision`, and applies to this model only.
        """
        self._mesh = mesh
        self._batch_size = batch_size
        self._caption_lengths = caption_lengths
        self._threads, self._prefetch = threads, prefetch
        everywhere, split = replicated(mesh), by_batch(mesh)

        @jax.default_matmul_precision(precision)
        def images(variables, regions, num_regions):
            return model.apply(variables, regions, graph, num_regions=num_regions, method="encode_images")

        @jax.default_matmul_precision(precision)
        def texts(variables, captions):
            return model.apply(variables, captions, graph, method="encode_texts")

        self._images = jax.jit(images, in_shardings=(everywhere, split, split), out_shardings=everywhere)
        self._texts = jax.jit(texts, in_shardings=(everywhere, split), out_shardings=everywhere)

    def __call__(self, variables: Any, split: Split) -> EncodedSplit:
        """Returns the embeddings of a split; a caption's label comes from its own words alone.

        Args:
          variables: the model's `params` and `batch_stats`.
          split: what to encode.
        """
        return EncodedSplit(
            image=self.images(variables, functools.partial(batches.read_regions, split), split.num_images),
            text=self.texts(variables, split.tokens, split.caption_labels),
        )

    def with_completed_labels(self, variables: Any, split: Split, *, rule: str) -> EncodedSplit:
        """Returns the embeddings of a split whose captions are encoded again, with labels completed by `rule`."""
        encoded = self(variables, split)
        neighbours = label_completion.neighbours(encoded.image.fused, encoded.text.fused, rule=rule)
        labels = label_completion.completed_labels(split.caption_labels, neighbours)
        return encoded._replace(text=self.texts(variables, split.tokens, labels))

    def images(self, variables: Any, read: ReadRegions, num_images: int) -> Embeddings:
        """Returns the embeddings of pictures, each [num_images, ...].

        Args:
          variables: the model's `params` and `batch_stats`.
          read: gives the regions of the pictures with given indices, and how many each has; threads call it at once.
          num_images: 1 or more.
        """
        return self._encode(self._images, variables, lambda chosen, rows: read(chosen[rows]), np.arange(num_images))

    def texts(self, variables: Any, tokens: EncodedCaptions, labels: np.ndarray) -> Embeddings:
        """Returns the embeddings of captions, one or more, with these labels, <bool>[captions, concepts].

        Captions are encoded in the order of their lengths, so that short ones are not padded like long ones.
        """

        def read(chosen: np.ndarray, rows: slice) -> tuple[Captions]:
            length = batches.padded_length(tokens.lengths[chosen].max(), self._caption_lengths)
            own = chosen[rows]
            return (Captions(tokens.padded(own, length), tokens.lengths[own], labels[own]),)

        return self._encode(self._texts, variables, read, np.argsort(tokens.lengths, kind="stable"))

    def _encode(
        self, function: Callable, variables: Any, read: Callable[[np.ndarray, slice], tuple], order: np.ndarray
    ) -> Embeddings:
        # The last batch repeats its last element: one shape, and the devices divide it. Few are a smaller batch.
        share = -(-len(order) // self._mesh.size)
        size = min(self._batch_size, self._mesh.size * (1 << (share - 1).bit_length()))
        rows = own_rows(self._mesh, size)
        padded = np.concatenate([order, np.repeat(order[-1:], -len(order) % size)])
        chunks = read_ahead(
            lambda i: read(padded[i * size : (i + 1) * size], rows),
            len(padded) // size,
            threads=self._threads,
            prefetch=self._prefetch,
        )
        encoded = [function(variables, *put_batch(chunk, self._mesh, size)) for chunk in chunks]
        return _in_order(encoded, np.argsort(order, kind="stable"))


@jax.jit
def _in_order(encoded: Sequence[Embeddings], place: np.ndarray) -> Embeddings:
    """Returns all batches as one, with each row in its place."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[place], *encoded)
