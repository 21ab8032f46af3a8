"""The nearest of many vectors by dot product: exact, in blocks on the devices, without sorting all.

Each device holds a share of the vectors. It multiplies a block of them at a time, keeps the k best of each block, and
these alone are compared at the end. Of equal scores the lower place is first, however many devices or blocks there are.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mhcvse_jax.devices.mesh import by_batch

BLOCK = 1 << 15  # vectors whose scores are held at once, by each device
MOST_QUERIES = 64  # at once


class Nearest(NamedTuple):
    """The best of each query, best first."""

    scores: np.ndarray  # <float32>[queries, k] dot products
    places: np.ndarray  # <int64>[queries, k]


class ExactSearch:
    """Vectors on the devices, to be searched."""

    def __init__(self, vectors: np.ndarray, mesh: Mesh):
        """Takes <float32 or float16>[vectors, D], one or more; they are kept in their type."""
        self._mesh, self._number = mesh, len(vectors)
        padding = -len(vectors) % mesh.size
        if padding:  # the devices divide it
            vectors = np.concatenate([vectors, np.zeros((padding, vectors.shape[1]), vectors.dtype)])
        self._vectors = jax.device_put(vectors, by_batch(mesh))

    def __call__(self, queries: np.ndarray, k: int) -> Nearest:
        """Returns the k nearest of each query; all of them where they are fewer.

        Args:
          queries: <float32>[queries, D].
          k: 1 or more.
        """
        k = min(k, self._number)
        found = [Nearest(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))]
        for start in range(0, len(queries), MOST_QUERIES):
            some = np.asarray(queries[start : start + MOST_QUERIES], np.float32)
            # Powers of two: few shapes, so few compilations.
            padded = np.zeros((1 << (len(some) - 1).bit_length(), some.shape[1]), np.float32)
            padded[: len(some)] = some
            scores, places = _nearest(self._vectors, padded, k=k, number=self._number, mesh=self._mesh)
            found.append(Nearest(np.asarray(scores)[: len(some)], np.asarray(places, np.int64)[: len(some)]))
        return Nearest(*map(np.concatenate, zip(*found, strict=True)))


@functools.partial(jax.jit, static_argnames=("k", "number", "mesh"))
def _nearest(vectors: jax.Array, queries: jax.Array, *, k: int, number: int, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Returns scores <float32>[queries, k] and places <int32>[queries, k]; `number` vectors are not padding."""
    share = len(vectors) // mesh.size

    def of_device(vectors: jax.Array, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jax.lax.axis_index("data") * share
        scores, places = _best_of_blocks(vectors, queries, k=k, number=number - first)
        return scores[None], (places + first)[None]

    everywhere, split = PartitionSpec(), PartitionSpec("data")
    scores, places = jax.shard_map(
        of_device, mesh=mesh, in_specs=(split, everywhere), out_specs=(split, split), check_vma=False
    )(vectors, queries)
    return _merge(scores, places, k)


def _best_of_blocks(
    vectors: jax.Array, queries: jax.Array, *, k: int, number: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the best k of one device's vectors, or all; those from `number` on are padding."""
    rows, width = vectors.shape
    num_blocks = max(rows // BLOCK, 1)
    block = rows // num_blocks if rows > BLOCK else rows
    whole = vectors[: num_blocks * block].reshape(num_blocks, block, width)

    def best(some: jax.Array, start: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        scores = jnp.matmul(queries, some.T.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
        places = start + jnp.arange(len(some), dtype=jnp.int32)
        scores, chosen = jax.lax.top_k(jnp.where(places < number, scores, -jnp.inf), min(k, len(some)))
        return scores, places[chosen]

    starts = jnp.arange(num_blocks, dtype=jnp.int32) * block
    scores, places = jax.lax.map(lambda each: best(*each), (whole, starts))
    left = vectors[num_blocks * block :]
    scores, places = _merge(scores, places, k)
    if not len(left):
        return scores, places
    left_scores, left_places = best(left, num_blocks * block)
    scores = jnp.concatenate([scores, left_scores], axis=1)
    places = jnp.concatenate([places, left_places], axis=1)
    scores, chosen = jax.lax.top_k(scores, min(k, scores.shape[1]))
    return scores, jnp.take_along_axis(places, chosen, axis=1)


def _merge(scores: jax.Array, places: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the best k of parts <float32>[parts, queries, any], which stand in the order of their places."""
    scores, places = (jnp.concatenate([*values], axis=1) for values in (scores, places))
    scores, chosen = jax.lax.top_k(scores, min(k, scores.shape[1]))
    return scores, jnp.take_along_axis(places, chosen, axis=1)
