"""Label completion against loops over captions, as CVSE's program does it."""

import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.retrieval import label_completion
from mhcvse_jax.retrieval import ranks as ranks_module


def sides(seed, images, captions, dim, common=1.0):
    """Returns unit vectors; `common` is the length of what all have in common, which makes cosines positive."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(images + captions, dim)) / np.sqrt(dim) + common * np.eye(dim)[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:images].astype(np.float32), vectors[images:].astype(np.float32)


@pytest.mark.parametrize("block", [5, 1024])
@pytest.mark.parametrize(("rule", "own_share", "picture_share"), [("f30k", 3, 3), ("coco", 2, 1)])
def test_neighbours_equal_the_loops(monkeypatch, block, rule, own_share, picture_share):
    monkeypatch.setattr(ranks_module, "BLOCK", block)
    image, text = sides(0, 13, 67, 7)
    found = label_completion.neighbours(jnp.asarray(image), jnp.asarray(text), rule=rule)
    expected = oracle.completion_neighbours(image.astype(float), text.astype(float), own_share, picture_share)
    assert found.shape == (67, own_share + picture_share)
    assert [set(row) for row in found.tolist()] == expected


def test_few_captions_that_point_anywhere_equal_the_loops():
    """A caption may then be a neighbour of itself, so that its neighbours are those that it has both ways."""
    both_ways = 0
    for seed in range(20):
        image, text = sides(seed, 2, 11, 3, common=0.0)
        expected = oracle.completion_neighbours(image.astype(float), text.astype(float), 3, 3)
        found = label_completion.neighbours(jnp.asarray(image), jnp.asarray(text), rule="f30k")
        assert [set(row) for row in found.tolist()] == expected
        both_ways += sum(i in neighbours and len(neighbours) == 3 for i, neighbours in enumerate(expected))
    assert both_ways > 5


def test_a_far_caption_is_completed_from_the_end_of_its_pictures_ranking():
    """One picture that the last captions are far from: places 8, 9, 10 of 11 take the last three."""
    angle = np.linspace(0.05, 1.4, 11)
    text = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    image = np.array([[1, 0]], np.float32)
    found = label_completion.neighbours(jnp.asarray(image), jnp.asarray(text), rule="f30k")[:, 3:]
    expected = [[0, 1, 2], [0, 1, 2], *([i - 1, i, i + 1] for i in range(2, 8)), *([[8, 9, 10]] * 3)]
    np.testing.assert_array_equal(found, expected)
    coco = label_completion.neighbours(jnp.asarray(image), jnp.asarray(text), rule="coco")
    np.testing.assert_array_equal(coco[:, 2], [row[0] for row in expected])


def test_labels_are_those_of_the_neighbours_and_its_own():
    labels = np.eye(5, dtype=bool)
    neighbours = np.array([[1, 2], [1, 1], [4, 3], [0, 0], [4, 4]])
    completed = label_completion.completed_labels(labels, neighbours)
    assert [set(np.flatnonzero(row)) for row in completed] == [{0, 1, 2}, {1}, {2, 3, 4}, {0, 3}, {4}]


def test_an_embedding_that_is_not_finite_is_an_error():
    image, text = sides(1, 3, 11, 5)
    text[4, 2] = np.nan
    with pytest.raises(RunFailedError, match="1 of 11 text embeddings are not finite, the first at 4"):
        label_completion.neighbours(jnp.asarray(image), jnp.asarray(text), rule="f30k")
