"""The rank of the right answer for each query, in blocks on the device.

similarity[i, j] is picture i, caption j; higher is better. A rank is counted, not sorted: 1 plus the wrong
candidates that are at least as similar as the right one, so ties count against the model.

Deviation: CVSE sorts, so that a tie goes to whichever comes first; a model whose embeddings are all one scores 100.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.errors import RunFailedError

BLOCK = 1024  # queries whose similarities with all candidates are held at once


class Ranks(NamedTuple):
    """Ranks from 1."""

    i2t: np.ndarray  # <int32>[images], of the best of a picture's captions
    t2i: np.ndarray  # <int32>[texts]


def ranks(image: jax.Array, text: jax.Array, image_of_text: np.ndarray) -> Ranks:
    """Returns the ranks of both directions by dot product, in float32 at the highest precision.

    Costs two products [images, D] x [D, texts]; holds BLOCK rows of the similarity at a time.

    Args:
      image: <float32>[images, D] embeddings.
      text: <float32>[texts, D] embeddings.
      image_of_text: <int>[texts] the picture of each caption; every picture has one or more.

    Raises:
      RunFailedError: an embedding is not finite.
    """
    check_finite(image, text)
    owner = jnp.asarray(image_of_text)
    everything = jnp.arange(len(image))
    return Ranks(
        i2t=_in_blocks(_image_ranks, image, everything, text, owner),
        t2i=_in_blocks(_text_ranks, text, owner, image, everything),
    )


def check_finite(image: jax.Array, text: jax.Array) -> None:
    """Raises RunFailedError where an embedding is not finite; says how many, and which is the first."""
    for name, embeddings in (("image", image), ("text", text)):
        finite = np.asarray(jnp.isfinite(embeddings).all(axis=1))
        if not finite.all():
            raise RunFailedError(
                f"{np.sum(~finite)} of {len(finite)} {name} embeddings are not finite, the first at {np.argmin(finite)}"
            )


def _in_blocks(rank: Callable, queries: jax.Array, *arrays: jax.Array) -> np.ndarray:
    query_ids, candidates, candidate_ids = arrays
    block = min(BLOCK, len(queries))
    found = []
    for start in range(0, len(queries), block):
        start = min(start, len(queries) - block)  # the last block overlaps: one shape, one compilation
        chosen = slice(start, start + block)
        found.append((start, rank(queries[chosen], query_ids[chosen], candidates, candidate_ids)))
    result = np.zeros(len(queries), np.int32)
    for start, values in found:
        result[start : start + block] = values
    return result


@jax.jit
def _image_ranks(images: jax.Array, image_ids: jax.Array, texts: jax.Array, owner: jax.Array) -> jax.Array:
    similarity = jnp.matmul(images, texts.T, precision=jax.lax.Precision.HIGHEST)
    own = image_ids[:, None] == owner[None, :]
    best = jnp.max(jnp.where(own, similarity, -jnp.inf), axis=1, keepdims=True)
    return 1 + jnp.sum(~own & (similarity >= best), axis=1)


@jax.jit
def _text_ranks(texts: jax.Array, owner: jax.Array, images: jax.Array, image_ids: jax.Array) -> jax.Array:
    similarity = jnp.matmul(texts, images.T, precision=jax.lax.Precision.HIGHEST)
    right = jnp.take_along_axis(similarity, owner[:, None], axis=1)
    others = owner[:, None] != image_ids[None, :]
    return 1 + jnp.sum(others & (similarity >= right), axis=1)
