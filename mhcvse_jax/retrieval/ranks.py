"""The rank of the right answer for each query, in blocks on the device.

similarity[i, j] is picture i, caption j; higher is better. `ties` says how a rank is counted.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mhcvse_jax.devices.mesh import by_batch, replicated
from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.retrieval import ties
from mhcvse_jax.retrieval.recall import Ranks

BLOCK = 1024  # queries whose similarities with all candidates are held at once
MOST_AT_ONCE = 1 << 25  # similarities that are held whole, for both directions: 128 MiB


def ranks(image: jax.Array, text: jax.Array, image_of_text: np.ndarray) -> Ranks:
    """Returns the ranks of both directions by dot product, in float32 at the highest precision.

    Costs one product [images, D] x [D, texts] where all similarities are held at once (`MOST_AT_ONCE`), else two, of
    which BLOCK rows are held at a time.

    Args:
      image: <float32>[images, D] embeddings.
      text: <float32>[texts, D] embeddings.
      image_of_text: <int>[texts] the picture of each caption; a picture may have any number, also none.

    Raises:
      RunFailedError: an embedding is not finite.
    """
    check_finite(image, text)
    owner = np.asarray(image_of_text)
    if len(image) * len(text) <= MOST_AT_ONCE:
        return _at_once(image, text, owner)
    everything = np.arange(len(image))
    return Ranks(
        i2t=_in_blocks(_image_ranks, image, everything, text, owner),
        t2i=_in_blocks(_text_ranks, text, owner, image, everything),
    )


@jax.jit
def _are_finite(embeddings: jax.Array) -> jax.Array:
    return jnp.isfinite(embeddings).all(axis=1)


def check_finite(image: jax.Array, text: jax.Array) -> None:
    """Raises RunFailedError where an embedding is not finite; says how many, and which is the first."""
    for name, embeddings in (("image", image), ("text", text)):
        finite = np.asarray(_are_finite(embeddings))
        if not finite.all():
            raise RunFailedError(
                f"{np.sum(~finite)} of {len(finite)} {name} embeddings are not finite, the first at {np.argmin(finite)}"
            )


def _at_once(image: jax.Array, text: jax.Array, owner: np.ndarray) -> Ranks:
    """Returns the ranks of both directions from one product, the pictures split over the devices."""
    mesh = _mesh(image)
    missing = -len(image) % (1 if mesh is None else mesh.size)
    chosen = np.minimum(np.arange(len(image) + missing), len(image) - 1)  # the devices divide them
    i2t, t2i = _both_ranks(image, chosen, text, owner, mesh)
    return Ranks(np.asarray(i2t)[: len(image)], np.asarray(t2i))


@functools.partial(jax.jit, static_argnames="mesh")
def _both_ranks(
    images: jax.Array, chosen: jax.Array, texts: jax.Array, owner: jax.Array, mesh: Mesh | None
) -> tuple[jax.Array, jax.Array]:
    """Returns <int32>[chosen] and <int32>[texts]; `chosen` are all pictures, then the last again.

    The matrix is read once a direction and no mask is made of its size: all candidates count, and those that are
    right are taken off again.
    """
    similarity = jnp.matmul(_share(images, chosen, mesh), texts.T, precision=jax.lax.Precision.HIGHEST)
    right = _gather(similarity[owner, jnp.arange(len(owner))], mesh)
    best = jax.ops.segment_max(right, owner, len(chosen))
    is_level = (right >= best[owner]).astype(jnp.int32)
    captions, level = (jax.ops.segment_sum(ones, owner, len(chosen)) for ones in (jnp.ones_like(owner), is_level))
    no_worse = similarity >= best[:, None]
    i2t = jnp.where(captions > 0, 1 + no_worse.sum(axis=1, dtype=jnp.int32) - level, 0)
    is_first = jnp.arange(len(chosen)) < len(images)
    t2i = ((similarity >= right) & is_first[:, None]).sum(axis=0, dtype=jnp.int32)  # itself is the 1
    return _gather(i2t, mesh), _gather(t2i, mesh)


def _mesh(embeddings: jax.Array) -> Mesh | None:
    return embeddings.sharding.mesh if isinstance(embeddings.sharding, NamedSharding) else None  # pyright: ignore[reportReturnType]


def _in_blocks(
    rank: Callable, queries: jax.Array, query_ids: np.ndarray, candidates: jax.Array, candidate_ids: np.ndarray
) -> np.ndarray:
    """Returns <int32>[queries] the ranks; where the arrays lie on several devices each ranks a share of a block."""
    mesh = _mesh(queries)
    num_devices = 1 if mesh is None else mesh.size
    block = -(-min(BLOCK, len(queries)) // num_devices) * num_devices
    found = []
    for start in range(0, len(queries), block):
        # The last block repeats the last query: one shape, one compilation, and the devices divide it.
        chosen = np.minimum(np.arange(start, start + block), len(queries) - 1)
        found.append(rank(queries, chosen, query_ids[chosen], candidates, candidate_ids, mesh))
    return np.concatenate([np.asarray(ranks) for ranks in found])[: len(queries)].astype(np.int32)


def _share(queries: jax.Array, chosen: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Returns the chosen queries, split over the devices."""
    queries = queries[chosen]
    return queries if mesh is None else jax.lax.with_sharding_constraint(queries, by_batch(mesh))


def _gather(ranks: jax.Array, mesh: Mesh | None) -> jax.Array:
    return ranks if mesh is None else jax.lax.with_sharding_constraint(ranks, replicated(mesh))


@functools.partial(jax.jit, static_argnames="mesh")
def _image_ranks(
    images: jax.Array, chosen: jax.Array, image_ids: jax.Array, texts: jax.Array, owner: jax.Array, mesh: Mesh | None
) -> jax.Array:
    similarity = jnp.matmul(_share(images, chosen, mesh), texts.T, precision=jax.lax.Precision.HIGHEST)
    own = image_ids[:, None] == owner[None, :]
    return _gather(ties.best_ranks(similarity, own, ~own), mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _text_ranks(
    texts: jax.Array, chosen: jax.Array, owner: jax.Array, images: jax.Array, image_ids: jax.Array, mesh: Mesh | None
) -> jax.Array:
    similarity = jnp.matmul(_share(texts, chosen, mesh), images.T, precision=jax.lax.Precision.HIGHEST)
    right = jnp.take_along_axis(similarity, owner[:, None], axis=1)
    others = owner[:, None] != image_ids[None, :]
    return _gather(1 + ties.num_ahead(right, similarity, others), mesh)
