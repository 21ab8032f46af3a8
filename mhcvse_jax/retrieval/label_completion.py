"""Concept labels completed by those of neighbouring captions of the test set: CVSE's released evaluation.

It is transductive: what is found for a query depends on the other queries. Never show such recalls beside those of the
standard protocol without saying so.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.retrieval import ranks as ranks_module
from mhcvse_jax.retrieval.ranks import check_finite

NEAREST = 10  # captions that may become neighbours by their own similarity: a
AROUND = 3  # captions around a caption's place in its nearest picture's ranking: b
RULES = {"f30k": (3, 3), "coco": (2, 1)}
"""How many of the first of a, and of the first of b, are neighbours, by `config.eval.label_neighbours`."""


def completed_labels(labels: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Returns <bool>[captions, concepts], each caption's own concepts and those of its neighbours.

    Args:
      labels: <bool>[captions, concepts] of each caption's own words.
      neighbours: <int>[captions, any], indices of captions.
    """
    return np.logical_or(labels, labels[neighbours].any(axis=1))


def neighbours(image: jax.Array, text: jax.Array, *, rule: str) -> np.ndarray:
    """Returns <int32>[captions, 6 or 3], the captions whose labels complete each caption's (CVSE's program).

    For caption i, a is the 10 captions nearest to it, its similarity to itself counted as 0; p the picture nearest to
    it; b, of p's ranking of all captions, the three around i's place r: places r - 1 to r + 1, the first three
    where r is the first place, the last three where r is one of these. Neighbours are the first few of a and of
    b, how many says RULES; but those of a that are in b if these are three or more. That needs i in a, so fewer than
    10 captions at an angle of less than 90 degrees.

    Costs products [captions, D] x [D, captions], [captions, D] x [D, images] and [images, D] x [D, captions], and
    sorts the rows of the last; a block of rows is held at a time. Of equal similarities the lower index is first.

    Args:
      image: <float32>[images, D] fused unit vectors of a first pass.
      text: <float32>[captions, D] likewise.
      rule: a key of RULES.

    Raises:
      RunFailedError: an embedding is not finite.
    """
    check_finite(image, text)
    near, picture = _near(image, text)
    around = _around_own_place(image, text, picture)
    first, second = RULES[rule]
    found = np.concatenate([near[:, :first], around[:, :second]], axis=1)
    common = (near[:, :, None] == around[:, None, :]).any(axis=2).sum(axis=1)
    in_both = np.resize(np.arange(around.shape[1]), found.shape[1])
    return np.where((common >= AROUND)[:, None], around[:, in_both], found)


def _near(image: jax.Array, text: jax.Array) -> tuple[np.ndarray, jax.Array]:
    """Returns a <int32>[captions, 10] and the nearest picture <int32>[captions] of each caption."""
    block = min(ranks_module.BLOCK, len(text))
    captions = np.zeros((len(text), min(NEAREST, len(text))), np.int32)
    pictures = np.zeros(len(text), np.int32)
    for start in range(0, len(text), block):
        start = min(start, len(text) - block)  # the last block overlaps: one shape, one compilation
        chosen = slice(start, start + block)
        captions[chosen], pictures[chosen] = _near_block(text[chosen], np.arange(start, start + block), text, image)
    return captions, jnp.asarray(pictures)


@jax.jit
def _near_block(queries: jax.Array, own: jax.Array, text: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    to_text = jnp.matmul(queries, text.T, precision=jax.lax.Precision.HIGHEST)
    to_text = to_text.at[jnp.arange(len(queries)), own].set(0.0)
    to_image = jnp.matmul(queries, image.T, precision=jax.lax.Precision.HIGHEST)
    return jax.lax.top_k(to_text, min(NEAREST, len(text)))[1], jnp.argmax(to_image, axis=1)


def _around_own_place(image: jax.Array, text: jax.Array, picture: jax.Array) -> np.ndarray:
    """Returns b <int32>[captions, 3], in the order of the picture's ranking."""
    block = min(ranks_module.BLOCK, len(image))
    found = jnp.zeros((len(text), min(AROUND, len(text))), jnp.int32)
    for start in range(0, len(image), block):
        start = min(start, len(image) - block)
        found = _around_block(image[start : start + block], start, text, picture, found)
    return np.asarray(found)


@jax.jit
def _around_block(images: jax.Array, start: int, text: jax.Array, picture: jax.Array, found: jax.Array) -> jax.Array:
    """Fills in the captions whose nearest picture is in this block; leaves the others as they are."""
    num_captions, width = found.shape
    similarity = jnp.matmul(images, text.T, precision=jax.lax.Precision.HIGHEST)
    order = jnp.argsort(-similarity, axis=1)
    rows = jnp.arange(len(images))[:, None]
    places = jnp.zeros_like(order).at[rows, order].set(jnp.arange(num_captions), unique_indices=True)
    row = picture - start
    is_here = (row >= 0) & (row < len(images))
    row = jnp.where(is_here, row, 0)
    place = places[row, jnp.arange(num_captions)]
    first = jnp.where(place >= num_captions - width, num_captions - width, jnp.maximum(place - 1, 0))
    around = order[row[:, None], first[:, None] + jnp.arange(width)]
    return jnp.where(is_here[:, None], around, found)
