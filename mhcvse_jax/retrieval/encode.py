"""The embeddings of a whole split, each picture and caption encoded once."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.read_ahead import read_ahead
from mhcvse_jax.devices.mesh import by_batch, own_rows, put_batch, replicated
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.models.embeddings import EmbeddingModel, Embeddings


class EncodedSplit(NamedTuple):
    """Embeddings of all pictures and captions of a split, in its order."""

    image: Embeddings  # each [images, ...]
    text: Embeddings  # each [captions, ...]


class Encoder:
    """Encodes splits with one model; holds the compiled functions, one a shape."""

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
        def texts(variables, tokens, lengths, labels):
            return model.apply(variables, tokens, lengths, labels, graph, method="encode_texts")

        self._images = jax.jit(images, in_shardings=(everywhere, split, split), out_shardings=everywhere)
        self._texts = jax.jit(texts, in_shardings=(everywhere, split, split, split), out_shardings=everywhere)

    def __call__(self, variables: Any, split: Split) -> EncodedSplit:
        """Returns the embeddings of a split; a caption's label comes from its own words alone.

        Args:
          variables: the model's `params` and `batch_stats`.
          split: what to encode.
        """

        def read_images(chosen: np.ndarray, rows: slice) -> tuple[np.ndarray | None, ...]:
            return batches.read_regions(split, chosen[rows])

        return EncodedSplit(
            image=self._encode(self._images, variables, read_images, np.arange(split.num_images)),
            text=self.texts(variables, split, split.caption_labels),
        )

    def texts(self, variables: Any, split: Split, labels: np.ndarray) -> Embeddings:
        """Returns the embeddings of a split's captions with these labels, <bool>[captions, concepts].

        Captions are encoded in the order of their lengths, so that short ones are not padded like long ones.
        """

        def read(chosen: np.ndarray, rows: slice) -> tuple[np.ndarray, ...]:
            length = batches.padded_length(split.lengths[chosen].max(), self._caption_lengths)
            own = chosen[rows]
            return split.tokens.padded(own, length), split.lengths[own], labels[own]

        return self._encode(self._texts, variables, read, np.argsort(split.lengths, kind="stable"))

    def _encode(
        self, function: Callable, variables: Any, read: Callable[[np.ndarray, slice], tuple], order: np.ndarray
    ) -> Embeddings:
        # The last batch repeats its last element: one shape, and the devices divide it.
        size, rows = self._batch_size, own_rows(self._mesh, self._batch_size)
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
    """Returns batches as one, each row where it belongs."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[place], *encoded)
