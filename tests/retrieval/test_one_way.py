"""One direction of retrieval against sorting, with ties, in more than one block."""

import jax.numpy as jnp
import numpy as np
import pytest

from mhcvse_jax.retrieval import one_way, similarity
from mhcvse_jax.retrieval.similarity import Similarity

IMAGES, CAPTIONS, DIM = 13, 37, 5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(one_way, "BLOCK", 5)


@pytest.fixture
def matrix():
    """Similarities with many ties."""
    return np.random.default_rng(0).integers(-3, 4, (IMAGES, CAPTIONS)).astype(np.float32)


def sorted_places(row, num, right=()):
    return sorted(range(len(row)), key=lambda place: (-row[place], place in right, place))[:num]


def test_embeddings_and_scores_have_both_directions():
    rng = np.random.default_rng(1)
    image, text = (rng.standard_normal((n, DIM)).astype(np.float32) for n in (IMAGES, CAPTIONS))
    for ways in (one_way.of_embeddings(jnp.asarray(image), jnp.asarray(text)), one_way.of_scores(image @ text.T)):
        chosen = np.array([11, 2, 2])
        np.testing.assert_allclose(ways.i2t.rows(chosen), (image @ text.T)[chosen], atol=1e-5)
        np.testing.assert_allclose(ways.t2i.rows(chosen), (text @ image.T)[chosen], atol=1e-5)
        assert (ways.t2i.num_queries, ways.t2i.num_candidates) == (CAPTIONS, IMAGES)


@pytest.mark.parametrize("num", [1, 7, 100])
def test_the_nearest_are_those_that_sorting_finds(matrix, num):
    ways = one_way.of_scores(matrix)
    found = one_way.nearest(ways.i2t, num)
    np.testing.assert_array_equal(found.candidates, [sorted_places(row, num) for row in matrix])
    np.testing.assert_array_equal(found.scores, np.take_along_axis(matrix, found.candidates, 1))
    chosen = np.array([30, 3, 12, 5, 6, 7])
    found = one_way.nearest(ways.t2i, num, chosen)
    np.testing.assert_array_equal(found.candidates, [sorted_places(matrix[:, q], num) for q in chosen])


def test_a_right_answer_comes_behind_all_that_are_as_similar(matrix):
    rng = np.random.default_rng(2)
    right = {query: rng.choice(IMAGES, query % 4, replace=False).tolist() for query in range(CAPTIONS)}
    pairs = np.array([(query, answer) for query in right for answer in right[query]])
    found = one_way.nearest(one_way.of_scores(matrix).t2i, 9, right=rng.permutation(pairs)).candidates
    np.testing.assert_array_equal(found, [sorted_places(matrix[:, q], 9, right[q]) for q in range(CAPTIONS)])
    assert (found != one_way.nearest(one_way.of_scores(matrix).t2i, 9).candidates).any()


def test_ranks_are_those_of_the_whole_matrix(matrix):
    owner = np.random.default_rng(3).integers(0, IMAGES - 1, CAPTIONS)  # the last picture has no captions
    expected = similarity.ranks_of(Similarity(IMAGES, CAPTIONS, lambda start, stop: matrix[start:stop]), owner)
    ways, everything = one_way.of_scores(matrix), np.arange(IMAGES)
    np.testing.assert_array_equal(one_way.ranks(ways.i2t, everything, owner), expected.i2t)
    np.testing.assert_array_equal(one_way.ranks(ways.t2i, owner, everything), expected.t2i)
    assert expected.i2t[-1] == 0
