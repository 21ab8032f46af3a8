"""Retrieval in one direction: queries in rows, candidates in columns, some rows at a time.

Where a direction ranks by scores of its own (see `hubness`), or a query has other right answers than its pair (see
`evaluation.coco`), the two directions part. No function here holds the whole matrix.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 256  # queries whose scores are held at once


class OneWay(NamedTuple):
    """The scores of all queries and candidates, computed on demand."""

    num_queries: int
    num_candidates: int
    rows: Callable[[np.ndarray], jax.Array]  # <int>[any] queries -> <float32>[any, candidates], higher is better


class BothWays(NamedTuple):
    """What each direction ranks by."""

    i2t: OneWay  # pictures look for captions
    t2i: OneWay


class Nearest(NamedTuple):
    """The first candidates of some queries, by falling score."""

    candidates: np.ndarray  # <int32>[queries, K]
    scores: np.ndarray  # <float32>[queries, K]


def of_embeddings(image: jax.Array, text: jax.Array) -> BothWays:
    """Returns dot products at the highest precision, of <float32>[images, D] and <float32>[captions, D]."""

    def way(queries: jax.Array, candidates: jax.Array) -> OneWay:
        return OneWay(len(queries), len(candidates), lambda chosen: _products(queries, chosen, candidates))

    return BothWays(way(image, text), way(text, image))


@jax.jit
def _products(queries: jax.Array, chosen: jax.Array, candidates: jax.Array) -> jax.Array:
    return jnp.matmul(queries[chosen], candidates.T, precision=jax.lax.Precision.HIGHEST)


def of_scores(scores: np.ndarray) -> BothWays:
    """Returns the two directions of <float32>[images, captions]."""

    def way(matrix: np.ndarray) -> OneWay:
        return OneWay(len(matrix), matrix.shape[1], lambda chosen: jnp.asarray(matrix[chosen]))

    return BothWays(way(scores), way(scores.T))


def in_blocks(queries: np.ndarray, work: Callable[[np.ndarray], tuple]) -> tuple[np.ndarray, ...]:
    """Returns what `work` makes of all queries, block by block; the last block repeats a query to keep one shape."""
    size = min(BLOCK, len(queries))
    found = []
    for start in range(0, len(queries), size):
        chosen = queries[np.minimum(np.arange(start, start + size), len(queries) - 1)]
        found.append([np.asarray(array) for array in work(chosen)])
    return tuple(np.concatenate(arrays)[: len(queries)] for arrays in zip(*found, strict=True))


def nearest(way: OneWay, num: int, queries: np.ndarray | None = None, right: np.ndarray | None = None) -> Nearest:
    """Returns the `num` candidates of each query with the highest scores, or all where there are fewer.

    Of equal scores the lower candidate comes first, but a right one behind all wrong ones: ties count against the
    model.

    Args:
      way: what is ranked.
      num: candidates per query.
      queries: <int>[any], the queries asked for; None: all.
      right: <int>[any, 2] query and candidate of each right answer; None: none is known.
    """
    chosen = np.arange(way.num_queries) if queries is None else queries
    num = min(num, way.num_candidates)
    if right is None:
        return Nearest(*in_blocks(chosen, lambda block: _top(way.rows(block), num)))
    right = right[np.argsort(right[:, 0], kind="stable")]
    most = int(np.bincount(right[:, 0], minlength=1).max(initial=1))

    def work(block: np.ndarray) -> tuple[jax.Array, jax.Array]:
        first, last = (np.searchsorted(right[:, 0], block, side) for side in ("left", "right"))
        places = first[:, None] + np.arange(most)
        own = np.where(places < last[:, None], right[np.minimum(places, len(right) - 1), 1], way.num_candidates)
        return _top(_lowered(way.rows(block), own), num)

    return Nearest(*in_blocks(chosen, work))


def _top(scores: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    values, places = _top_k(scores, num)
    return places, values


_top_k = jax.jit(jax.lax.top_k, static_argnums=1)


@jax.jit
def _lowered(scores: jax.Array, own: jax.Array) -> jax.Array:
    """Returns the scores, each right one by one step of float32 less; `own` beyond the last candidate: none."""
    rows = jnp.arange(len(scores))[:, None]
    return scores.at[rows, own].set(jnp.nextafter(scores[rows, own], -jnp.inf), mode="drop")


def ranks(way: OneWay, owner_of_query: np.ndarray, owner_of_candidate: np.ndarray) -> np.ndarray:
    """Returns <int32>[queries] the rank of each query's best right answer, from 1; 0 where it has none.

    It is 1 plus the wrong candidates that score at least as high, so ties count against the model.

    Args:
      way: what is ranked.
      owner_of_query: <int>[queries] the picture that a query is, or is a caption of.
      owner_of_candidate: <int>[candidates] likewise; it is right where both are the same picture.
    """
    owners = jnp.asarray(owner_of_candidate)
    everything = np.arange(way.num_queries)
    return in_blocks(everything, lambda block: (_ranks(way.rows(block), owner_of_query[block], owners),))[0]


@jax.jit
def _ranks(scores: jax.Array, query: jax.Array, owners: jax.Array) -> jax.Array:
    own = query[:, None] == owners[None, :]
    best = jnp.max(scores, axis=1, where=own, initial=-jnp.inf, keepdims=True)
    found = 1 + jnp.sum(~own & (scores >= best), axis=1, dtype=jnp.int32)
    return jnp.where(own.any(axis=1), found, 0)
