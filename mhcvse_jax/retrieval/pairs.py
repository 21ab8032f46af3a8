"""Pair scores of a model that needs both sides: for all pictures and captions, or for chosen pairs.

What depends on one side is computed once per picture or caption and kept: of captions in host memory, of so many
pictures at a time on the device. Pairs are scored in blocks whose size, with that number, bounds the device's memory;
pictures of a block are split over the devices. Captions come in the order of their lengths, so that short ones are not
padded like long ones.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.read_ahead import read_ahead
from mhcvse_jax.devices.mesh import by_batch, replicated
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.models.pair_scores import PairModel
from mhcvse_jax.retrieval.similarity import Similarity
from mhcvse_jax.terminal.progress import counted

BLOCKS_IN_FLIGHT = 3  # dispatched and not fetched


class PairBlocks(NamedTuple):
    """`config.eval.pair_*`: what lies on the device at once."""

    images: int  # of a block of pairs
    captions: int  # of a block of pairs
    resident_images: int  # of which all that depends on a picture alone is kept there


class ScoredSplit(NamedTuple):
    """The scores of all pictures and captions of a split, in its order."""

    scores: np.ndarray  # <float32>[images, captions], higher is better

    def similarity(self) -> Similarity:
        """Returns the scores as a similarity to be ranked."""
        return Similarity(len(self.scores), self.scores.shape[1], lambda start, stop: self.scores[start:stop])


class Sides(NamedTuple):
    """What a model made of some pictures or captions."""

    items: np.ndarray  # <int>[any] which of the split
    arrays: Any  # a tree of arrays [block, ...]; the last item is repeated up to the block's size


class PairScorer:
    """Scores the pairs of splits with one model; holds the compiled functions, one per shape."""

    def __init__(
        self,
        model: PairModel,
        graph: ConceptGraph,
        mesh: Mesh,
        *,
        blocks: PairBlocks,
        caption_lengths: Sequence[int],
        threads: int,
        prefetch: int,
        precision: str | None,
    ):
        """Takes the model, its concept graph and the devices, which divide images and captions of a block.

        `precision` is that of `jax.default_matmul_precision`, and applies to this model only.
        """
        self._mesh, self._blocks, self._caption_lengths = mesh, blocks, caption_lengths
        self._threads, self._prefetch = threads, prefetch
        everywhere, split = replicated(mesh), by_batch(mesh)

        @jax.default_matmul_precision(precision)
        def images(variables, regions, num_regions):
            return model.apply(variables, regions, graph, num_regions=num_regions, method="encode_images")

        @jax.default_matmul_precision(precision)
        def texts(variables, captions):
            return model.apply(variables, captions, graph, method="encode_texts")

        @jax.default_matmul_precision(precision)
        def matrix(variables, image, text):
            return model.apply(variables, image, text, method="score_matrix")

        @jax.default_matmul_precision(precision)
        def pairs(variables, image, text, image_index, text_index):
            image = jax.tree.map(lambda values: values[image_index], image)
            text = jax.tree.map(lambda values: values[text_index], text)
            return model.apply(variables, image, text, method="score_list")

        self._encode_images = jax.jit(images, in_shardings=(everywhere, split, split), out_shardings=split)
        # Whole on every device, so that each process can keep them.
        self._encode_texts = jax.jit(texts, in_shardings=(everywhere, split), out_shardings=everywhere)
        self._matrix = jax.jit(matrix, in_shardings=(everywhere, split, everywhere), out_shardings=everywhere)
        shardings = (everywhere, everywhere, everywhere, split, split)
        self._pairs = jax.jit(pairs, in_shardings=shardings, out_shardings=everywhere)

        def empty(block, rows):
            return jax.tree.map(lambda part: jnp.zeros((rows, *part.shape[1:]), part.dtype), block)

        def place(panel, block, start):
            put = jax.lax.dynamic_update_slice_in_dim
            return jax.tree.map(lambda whole, part: put(whole, part, start, axis=0), panel, block)

        self._empty = jax.jit(empty, static_argnums=1, out_shardings=everywhere)
        self._place = jax.jit(place, donate_argnums=0, out_shardings=everywhere)

    def __call__(self, variables: Any, split: Split) -> ScoredSplit:
        """Returns the scores of all pairs of a split, <float32>[images, captions] in host memory.

        Args:
          variables: the model's `params` and `batch_stats`.
          split: what to score.
        """
        scores = np.empty((split.num_images, split.num_captions), np.float32)
        texts = self._texts(variables, split, np.arange(split.num_captions))
        with counted(scores.size, "pair") as done:

            def collect(images: np.ndarray, captions: np.ndarray, found: jax.Array) -> None:
                scores[np.ix_(images, captions)] = np.asarray(found)[: len(images), : len(captions)]
                done(len(images) * len(captions))

            def score(panel: np.ndarray) -> None:
                images = list(self._images(variables, split, panel))
                with in_flight(collect) as dispatched:
                    for text in texts:
                        text_arrays = jax.device_put(text.arrays, replicated(self._mesh))
                        for image in images:
                            found = self._matrix(variables, image.arrays, text_arrays)
                            dispatched(image.items, text.items, found)

            for panel in self._panels(np.arange(split.num_images)):
                score(panel)  # in a function, so that one panel is freed before the next is encoded
        return ScoredSplit(scores)

    def with_completed_labels(self, variables: Any, split: Split, *, rule: str) -> ScoredSplit:
        """Returns what a call does: these models have no labels to complete."""
        return self(variables, split)

    def score_pairs(
        self, variables: Any, split: Split, images: np.ndarray, captions: np.ndarray, *, is_shown: bool = True
    ) -> np.ndarray:
        """Returns <float32>[pairs], the scores of chosen pairs.

        Args:
          variables: the model's `params` and `batch_stats`.
          split: the split that they come from.
          images: <int>[pairs].
          captions: <int>[pairs], the caption that goes with each picture.
          is_shown: whether the progress is printed.
        """
        scores = np.empty(len(images), np.float32)
        texts = self._texts(variables, split, np.unique(captions))
        size = self._blocks.captions * max(self._blocks.images // 4, 1)  # each gathers both its sides
        with counted(len(images), "pair", is_shown=is_shown) as done:

            def collect(pairs: np.ndarray, found: jax.Array) -> None:
                scores[pairs] = np.asarray(found)[: len(pairs)]
                done(len(pairs))

            def score(panel: np.ndarray) -> None:
                image_arrays = self._panel(variables, split, panel)
                is_here = np.isin(images, panel)
                with in_flight(collect) as dispatched:
                    for text in texts:
                        text_arrays = jax.device_put(text.arrays, replicated(self._mesh))
                        chosen = np.flatnonzero(is_here & np.isin(captions, text.items))
                        for start in range(0, len(chosen), size):
                            pairs = chosen[start : start + size]
                            padded = np.concatenate([pairs, np.repeat(pairs[-1:], size - len(pairs))])
                            image_index = np.searchsorted(panel, images[padded])
                            order = np.argsort(text.items)
                            text_index = order[np.searchsorted(text.items, captions[padded], sorter=order)]
                            found = self._pairs(variables, image_arrays, text_arrays, image_index, text_index)
                            dispatched(pairs, found)

            for panel in self._panels(np.unique(images)):
                score(panel)
        return scores

    def _panels(self, images: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(images), self._blocks.resident_images):
            yield images[start : start + self._blocks.resident_images]

    def _panel(self, variables: Any, split: Split, images: np.ndarray) -> Any:
        """Returns the sides of pictures as one tree of arrays [images, ...], on the devices; the last is repeated."""
        panel, size = None, self._blocks.images
        for number, block in enumerate(self._images(variables, split, images)):
            if panel is None:
                panel = self._empty(block.arrays, -(-len(images) // size) * size)
            panel = self._place(panel, block.arrays, number * size)
        return panel

    def _images(self, variables: Any, split: Split, images: np.ndarray) -> Iterator[Sides]:
        """Yields the sides of pictures, on the devices, in blocks."""

        def read(chosen: np.ndarray) -> tuple[np.ndarray | None, ...]:
            return batches.read_regions(split, chosen)

        return self._sides(self._encode_images, variables, read, images, self._blocks.images)

    def _texts(self, variables: Any, split: Split, captions: np.ndarray) -> list[Sides]:
        """Returns the sides of captions by rising length, in host memory, in blocks."""

        def read(chosen: np.ndarray) -> tuple[Captions]:
            lengths = split.lengths[chosen]
            length = batches.padded_length(lengths.max(), self._caption_lengths)
            return (Captions(split.tokens.padded(chosen, length), lengths, split.caption_labels[chosen]),)

        order = captions[np.argsort(split.lengths[captions], kind="stable")]
        blocks = self._sides(self._encode_texts, variables, read, order, self._blocks.captions)
        return [block._replace(arrays=jax.device_get(block.arrays)) for block in blocks]

    def _sides(
        self, encode: Callable, variables: Any, read: Callable[[np.ndarray], tuple], items: np.ndarray, size: int
    ) -> Iterator[Sides]:
        blocks = [items[start : start + size] for start in range(0, len(items), size)]

        def read_block(number: int) -> tuple:
            block = blocks[number]
            return read(np.concatenate([block, np.repeat(block[-1:], size - len(block))]))

        ahead = read_ahead(read_block, len(blocks), threads=self._threads, prefetch=self._prefetch)
        for block, arrays in zip(blocks, ahead, strict=True):
            yield Sides(block, encode(variables, *jax.device_put(arrays, by_batch(self._mesh))))


class in_flight:  # noqa: N801 - a context, named as one
    """Context with a function that takes dispatched work. It limits what is in flight: the oldest is fetched first."""

    def __init__(self, collect: Callable[..., None]):
        self._collect, self._waiting = collect, collections.deque()

    def __enter__(self) -> Callable[..., None]:
        return self._dispatched

    def _dispatched(self, *work: Any) -> None:
        self._waiting.append(work)
        if len(self._waiting) > BLOCKS_IN_FLIGHT:
            self._collect(*self._waiting.popleft())

    def __exit__(self, kind: object, *exception: object) -> None:
        while self._waiting and kind is None:
            self._collect(*self._waiting.popleft())
