"""What is shown of a split's queries, against loops."""

import numpy as np
import pytest

from mhcvse_jax.reporting import queries
from mhcvse_jax.retrieval import similarity as similarity_lib
from mhcvse_jax.retrieval.similarity import Similarity

IMAGES, CAPTIONS = 23, 61


@pytest.fixture
def split(monkeypatch):
    """Returns a matrix, read in blocks of 7, and owners; picture 5 has no caption."""
    monkeypatch.setattr(similarity_lib, "BLOCK", 7)
    rng = np.random.default_rng(0)
    owners = rng.permutation([place for place in range(CAPTIONS + 3) if place % IMAGES != 5][:CAPTIONS]) % IMAGES
    matrix = rng.normal(size=(IMAGES, CAPTIONS)).astype(np.float32)
    matrix[:, 11] += 2  # a hub
    return Similarity(IMAGES, CAPTIONS, lambda start, stop: matrix[start:stop]), owners, matrix


def test_ranks_and_leads_are_those_of_loops(split):
    similarity, owners, matrix = split
    found = queries.search(similarity, owners)
    for image, row in enumerate(matrix):
        own, others = row[owners == image], row[owners != image]
        if image == 5:
            assert found.i2t.ranks[image] == 0
            assert np.isnan(found.i2t.leads[image])
            continue
        assert found.i2t.ranks[image] == 1 + sum(other >= own.max() for other in others)
        assert found.i2t.leads[image] == pytest.approx(own.max() - others.max(), abs=1e-6)
    for caption, column in enumerate(matrix.T):
        own, others = column[owners[caption]], np.delete(column, owners[caption])
        assert found.t2i.ranks[caption] == 1 + sum(other >= own for other in others)
        assert found.t2i.leads[caption] == pytest.approx(own - others.max(), abs=1e-6)


def test_hubs_are_counted_once_a_query(split):
    similarity, owners, matrix = split
    expected = np.zeros((IMAGES, 2), int)
    for image, row in enumerate(matrix):
        first = sorted(range(CAPTIONS), key=lambda caption: -row[caption])[: queries.NEAR]
        for owner in {owners[caption] for caption in first} - {image}:
            expected[owner, 0] += 1
    for caption, column in enumerate(matrix.T):
        for image in sorted(range(IMAGES), key=lambda image: -column[image])[: queries.NEAR]:
            expected[image, 1] += image != owners[caption]
    np.testing.assert_array_equal(queries.search(similarity, owners).hubs, expected)
    assert expected[:, 0].argmax() == owners[11]


def test_random_best_and_worst_are_no_query_twice(split):
    similarity, owners, _ = split
    i2t = queries.search(similarity, owners).i2t
    chosen = queries.choose(i2t, 4, np.random.default_rng(3))
    flat = [query for group in chosen.values() for query in group]
    assert len(set(flat)) == 12
    assert 5 not in flat
    left = set(range(IMAGES)) - {5, *chosen["at random"]}
    assert chosen["best"] == sorted(left, key=lambda query: -i2t.leads[query])[:4]
    assert [i2t.ranks[query] for query in chosen["worst"]] == sorted(
        (i2t.ranks[query] for query in left), reverse=True
    )[:4]
    assert chosen == queries.choose(i2t, 4, np.random.default_rng(3))
    assert sum(map(len, queries.choose(i2t, 100, np.random.default_rng(3)).values())) == IMAGES - 1


def test_queries_that_two_models_rank_most_unlike():
    assert queries.unlike(np.array([1, 0, 8, 3, 5]), np.array([2, 7, 8, 30, 1]), 3) == [3, 4, 0]
