"""The nearest of many vectors by dot product: exact, in blocks on the devices, without sorting all.

A block lies on the devices in equal shares. Each device multiplies its share and keeps the k best of all that it has
seen; these alone are compared at the end. Of equal scores the lower place is first, however many devices or blocks
there are.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mhcvse_jax.devices.mesh import by_batch

BLOCK = 1 << 16  # vectors whose scores are held at once
MOST_QUERIES = 64  # at once


class Nearest(NamedTuple):
    """The best of each query, best first."""

    scores: np.ndarray  # <float32>[queries, k] dot products
    places: np.ndarray  # <int64>[queries, k]


class ExactSearch:
    """Vectors on the devices, to be searched. On a CPU they stay where they are, in a memory-mapped file too."""

    def __init__(self, vectors: np.ndarray, mesh: Mesh):
        """Takes <float32 or float16>[vectors, D], one or more; they are kept in their type."""
        self._mesh, self._number = mesh, len(vectors)
        self._blocks = [
            jax.device_put(_padded(vectors[start : start + BLOCK], mesh.size), by_batch(mesh))
            for start in range(0, len(vectors), BLOCK)
        ]

    def __call__(self, queries: np.ndarray, k: int) -> Nearest:
        """Returns the k nearest of each query; all of them where they are fewer.

        Args:
          queries: <float32>[queries, D].
          k: 1 or more.
        """
        k = min(k, self._number)
        kept = min(_power(k), self._number)
        found = [Nearest(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))]
        for start in range(0, len(queries), MOST_QUERIES):
            some = np.asarray(queries[start : start + MOST_QUERIES], np.float32)
            padded = np.zeros((_power(len(some)), some.shape[1]), np.float32)
            padded[: len(some)] = some
            best = None
            for number, block in enumerate(self._blocks):
                best = _better(best, padded, block, number * BLOCK, self._number, k=kept, mesh=self._mesh)
            assert best is not None
            # One device has them in order already; a program less is a tenth of the time of a query to few vectors.
            best = _merge(*best, k=kept) if self._mesh.size > 1 else best
            scores, places = (np.asarray(values)[: len(some), :k] for values in best)
            found.append(Nearest(scores, places.astype(np.int64)))
        return Nearest(*map(np.concatenate, zip(*found, strict=True)))


def _power(number: int) -> int:
    """Returns the first power of two that is no less: few shapes, so few compilations."""
    return 1 << (number - 1).bit_length()


def _padded(vectors: np.ndarray, devices: int) -> np.ndarray:
    """Returns vectors with zeros behind them, so that the devices divide their number."""
    padding = -len(vectors) % devices
    return np.concatenate([vectors, np.zeros((padding, vectors.shape[1]), vectors.dtype)]) if padding else vectors


Best = tuple[jax.Array, jax.Array]
"""Scores <float32> and places <int32>, [queries, devices x k], of what each device has seen so far."""


@functools.partial(jax.jit, static_argnames=("k", "mesh"))
def _better(
    best: Best | None, queries: jax.Array, block: jax.Array, start: jax.Array, number: jax.Array, *, k: int, mesh: Mesh
) -> Best:
    """Returns the best after another block, whose first vector is `start`; those from `number` on are padding."""

    def of_device(best: Best | None, queries: jax.Array, share: jax.Array, start: jax.Array, number: jax.Array) -> Best:
        scores = jnp.matmul(queries, share.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST)
        places = start + jax.lax.axis_index("data") * len(share) + jnp.arange(len(share), dtype=jnp.int32)
        scores, chosen = jax.lax.top_k(jnp.where(places < number, scores, -jnp.inf), min(k, len(share)))
        places = places[chosen]
        if best is not None:  # what was seen before stands first, so that of equal scores the lower place does
            scores, places = (jnp.concatenate(pair, axis=1) for pair in zip(best, (scores, places), strict=True))
            scores, chosen = jax.lax.top_k(scores, min(k, scores.shape[1]))
            places = jnp.take_along_axis(places, chosen, axis=1)
        return scores, places

    of_devices, everywhere = PartitionSpec(None, "data"), PartitionSpec()
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(of_devices, everywhere, PartitionSpec("data"), everywhere, everywhere),
        out_specs=of_devices,
        check_vma=False,
    )(best, queries, block, start, number)


@functools.partial(jax.jit, static_argnames="k")
def _merge(scores: jax.Array, places: jax.Array, *, k: int) -> Best:
    """Returns the k best of all devices, best first and of equal scores the lower place."""
    order = jnp.lexsort((places, -scores), axis=1)[:, :k]
    return jnp.take_along_axis(scores, order, axis=1), jnp.take_along_axis(places, order, axis=1)
