"""The interface of a model whose similarity needs both sides: a score of one picture and one caption."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.models.fragments import Fragments


class Candidates(NamedTuple):
    """Values of each pair of a batch and of its negatives."""

    positive: jax.Array  # <float32>[batch] of picture i with its caption i
    texts: jax.Array  # <float32>[batch, texts] of picture i with other captions
    images: jax.Array  # <float32>[batch, images] of caption i with other pictures


class PairScores(NamedTuple):
    """A model's scores of the pairs of a batch; None for those it does not have."""

    scores: Candidates
    is_text: jax.Array  # <bool>[batch, texts] which of the other captions are negatives
    is_image: jax.Array  # <bool>[batch, images] which of the other pictures are
    alone: tuple[Candidates, ...]  # of what the scores are made of, each of which is to rank by itself
    matching: Candidates | None  # logits of "this caption is of this picture"
    whole: jax.Array | None  # <float32>[images, texts] cosine of a whole picture and a whole caption


class PairModel(Fragments):
    """A model is a subclass with three methods: what it makes of each side alone, and the score of a pair.

    What depends on one side only belongs into the first two: they run once per picture or caption, `score_pair` for
    each of N x 5N pairs.
    """

    def encode_images(
        self,
        regions: jax.Array,
        graph: ConceptGraph,
        *,
        num_regions: jax.Array | None = None,
        train: bool = False,
    ) -> Any:
        """Returns a tree of arrays [batch, ...] for region features <float32>[batch, regions, features].

        `graph` is the concept graph; `train` says whether dropout is on. `num_regions` <int32>[batch] says how many of
        a picture's regions count, 1 or more, whatever stands behind them; None: all.
        """
        raise NotImplementedError

    def encode_texts(self, captions: Captions, graph: ConceptGraph, *, train: bool = False) -> Any:
        """Returns a tree of arrays [batch, ...] for captions; `graph` and `train` as in `encode_images`."""
        raise NotImplementedError

    def score_pair(self, image: Any, text: Any) -> jax.Array:
        """Returns the score, <float32>, higher is better, of one picture and one caption.

        Args:
          image: what `encode_images` made of it, without the batch axis.
          text: what `encode_texts` made of it, likewise.
        """
        raise NotImplementedError

    def score_matrix(self, images: Any, texts: Any) -> jax.Array:
        """Returns <float32>[images, texts], the score of every picture with every caption."""
        return every_pair(self.score_pair, images, texts)

    def score_list(self, images: Any, texts: Any) -> jax.Array:
        """Returns <float32>[pairs], the score of each picture with the caption in its place."""
        return jax.vmap(self.score_pair)(images, texts)

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
    ) -> PairScores:
        """Returns the scores of a batch: here, of every picture with every caption.

        Args:
          regions: see `encode_images`.
          captions: see `encode_texts`.
          graph: the concept graph.
          is_negative: <bool>[images, texts], the pairs that are no match; None for all but the diagonal.
          mining_temperature: for a model that scores a few negatives of each pair: 0 takes those most alike; above
            0, they are drawn by the softmax of likeness / temperature; infinity draws any.
          num_regions: see `encode_images`.
          train: whether dropout is on.
        """
        images = self.encode_images(regions, graph, num_regions=num_regions, train=train)
        texts = self.encode_texts(captions, graph, train=train)
        if is_negative is None:
            is_negative = ~jnp.eye(len(regions), dtype=bool)
        return self.score_batch(images, texts, is_negative, mining_temperature)

    def score_batch(
        self, images: Any, texts: Any, is_negative: jax.Array, mining_temperature: jax.Array | float
    ) -> PairScores:
        """Returns the scores of an encoded batch; see `__call__`."""
        found = of_matrix(self.score_matrix(images, texts), is_negative)
        return PairScores(*found, alone=(), matching=None, whole=None)


def every_pair(score: Callable[[Any, Any], jax.Array], images: Any, texts: Any) -> jax.Array:
    """Returns [images, texts, ...] of a function of one picture and one caption."""
    return jax.vmap(lambda image: jax.vmap(lambda text: score(image, text))(texts))(images)


def of_matrix(values: jax.Array, is_negative: jax.Array) -> tuple[Candidates, jax.Array, jax.Array]:
    """Returns a batch's values from those of all its pairs, [images, texts, ...], and which others are negatives."""
    own = jnp.arange(len(values))
    return Candidates(values[own, own], values, jnp.swapaxes(values, 0, 1)), is_negative, is_negative.T
