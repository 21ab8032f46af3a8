"""The exact search against a product that is sorted whole, on one device and on eight."""

import jax
import numpy as np
import pytest

from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.retrieval import nearest
from mhcvse_jax.retrieval.nearest import ExactSearch

DIM = 13


def sorted_whole(vectors, queries, k):
    """Scores and places of the k best, of equal scores the lower place."""
    scores = queries @ np.asarray(vectors, np.float32).T
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, places, 1), places


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize(("number", "num_queries", "k"), [(101, 3, 7), (47, 67, 1), (5, 2, 11), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_is_the_sorted_product(monkeypatch, num_devices, number, num_queries, k, dtype):
    monkeypatch.setattr(nearest, "BLOCK", 16)  # seven blocks, the last of five
    rng = np.random.default_rng(number)
    vectors = rng.standard_normal((number, DIM)).astype(dtype)
    queries = rng.standard_normal((num_queries, DIM)).astype(np.float32)
    found = ExactSearch(vectors, make_mesh(jax.devices()[:num_devices]))(queries, k)
    scores, places = sorted_whole(vectors, queries, k)
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_of_equal_scores_the_lower_place_is_first(monkeypatch, num_devices):
    monkeypatch.setattr(nearest, "BLOCK", 16)
    rng = np.random.default_rng(0)
    vectors = np.eye(DIM, dtype=np.float32)[rng.integers(0, 3, 83)]  # sums of one term: equal to the bit
    queries = np.eye(DIM, dtype=np.float32)[:3] + 0.5 * np.eye(DIM, dtype=np.float32)[[1, 2, 0]]
    found = ExactSearch(vectors, make_mesh(jax.devices()[:num_devices]))(queries, 60)
    np.testing.assert_array_equal(found.places, sorted_whole(vectors, queries, 60)[1])


def test_negative_scores_are_found_before_padding():
    vectors = -np.eye(DIM, dtype=np.float32)[:3]
    found = ExactSearch(vectors, make_mesh())(np.ones((1, DIM), np.float32), 3)
    np.testing.assert_array_equal(found.places, [[0, 1, 2]])
    np.testing.assert_array_equal(found.scores, [[-1, -1, -1]])
