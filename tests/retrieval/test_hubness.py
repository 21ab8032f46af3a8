"""Scores that hold hubs down, and how many hubs there are, against loops over queries and candidates."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mhcvse_jax.evaluation.protocols import AgainstHubs, split_ranks
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.retrieval import hubness, one_way
from mhcvse_jax.retrieval.encode import EncodedSplit

IMAGES, CAPTIONS, DIM, T = 11, 29, 7, 0.3
CHOSEN = {"i2t": np.arange(IMAGES), "t2i": np.arange(CAPTIONS)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(one_way, "BLOCK", 4)
    monkeypatch.setattr(hubness, "BLOCK", 4)


def unit(seed, num):
    vectors = np.random.default_rng(seed).standard_normal((num, DIM)) + 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


IMAGE, TEXT = unit(0, IMAGES), unit(1, CAPTIONS)
COSINES = (IMAGE @ TEXT.T).astype(float)


def ways():
    return one_way.of_embeddings(jnp.asarray(IMAGE), jnp.asarray(TEXT))


def rows(both):
    return {name: np.asarray(way.rows(CHOSEN[name])) for name, way in both._asdict().items()}


def test_inverted_softmax_divides_by_what_a_candidate_has_from_all_queries():
    found = rows(hubness.inverted_softmax(ways(), T))
    for name, cosines in (("i2t", COSINES), ("t2i", COSINES.T)):
        expected = np.exp(cosines / T)
        for candidate in range(cosines.shape[1]):
            expected[:, candidate] /= sum(np.exp(cosines[query, candidate] / T) for query in range(len(cosines)))
        np.testing.assert_allclose(np.exp(found[name] / T), expected, rtol=1e-4)


def test_csls_takes_the_mean_of_the_nearest_queries():
    found = rows(hubness.csls(ways(), 3))
    for name, cosines in (("i2t", COSINES), ("t2i", COSINES.T)):
        radius = [np.mean(sorted(cosines[:, candidate])[-3:]) for candidate in range(cosines.shape[1])]
        np.testing.assert_allclose(2 * found[name], 2 * cosines - radius, atol=1e-5)


def test_a_query_bank_is_applied_to_queries_whose_nearest_is_a_hub_of_the_bank():
    bank_image, bank_text = unit(2, 5), unit(3, 6)
    banks = one_way.BothWays(
        one_way.of_embeddings(jnp.asarray(bank_image), jnp.asarray(TEXT)).t2i,
        one_way.of_embeddings(jnp.asarray(IMAGE), jnp.asarray(bank_text)).i2t,
    )
    found = rows(hubness.qb_norm(ways(), banks, T))
    applied = set()
    for name, cosines, bank in (("i2t", COSINES, bank_image @ TEXT.T), ("t2i", COSINES.T, bank_text @ IMAGE.T)):
        hubs = {int(np.argmax(row)) for row in bank}
        load = [T * np.log(sum(np.exp(row[candidate] / T) for row in bank)) for candidate in range(cosines.shape[1])]
        for query, row in enumerate(cosines):
            applies = int(np.argmax(row)) in hubs
            applied.add(applies)
            np.testing.assert_allclose(found[name][query], row - load if applies else row, atol=1e-5)
    assert applied == {True, False}


def test_hubs_are_counted_and_their_skewness_is_scipys():
    found = hubness.hubs(ways().t2i, 3)
    first = [set(np.argsort(-row)[:3].tolist()) for row in COSINES.T]
    times = [sum(candidate in chosen for chosen in first) for candidate in range(IMAGES)]
    assert found.skewness == pytest.approx(scipy.stats.skew(times), abs=1e-9)
    assert (found.most, found.never) == (max(times), pytest.approx(100 * times.count(0) / IMAGES))
    everything = one_way.of_scores(np.zeros((3, 2), np.float32)).i2t
    assert hubness.hubs(everything, 2) == (0.0, 3, 0.0)


@pytest.mark.parametrize("protocol", ["inverted_softmax", "csls", "qb_norm"])
def test_a_fold_is_judged_as_if_there_were_no_other(protocol):
    owner = np.sort(np.random.default_rng(4).integers(0, 10, CAPTIONS))
    bank = EncodedSplit(*(Embeddings.single(jnp.asarray(unit(seed, 5))) for seed in (5, 6)))
    against = AgainstHubs(protocol, T, 2, bank if protocol == "qb_norm" else None)

    def found(images, texts, owners, folds):
        encoded = EncodedSplit(*(Embeddings.single(jnp.asarray(one)) for one in (images, texts)))
        return split_ranks(encoded, owners, kind="fused", consensus_weight=0, folds=folds, against=against)

    halves = found(IMAGE[:10], TEXT, owner, 2)
    for first in (0, 5):
        own = owner // 5 == first // 5
        alone = found(IMAGE[first : first + 5], TEXT[own], owner[own] - first, 1)
        np.testing.assert_array_equal(halves.i2t[first : first + 5], alone.i2t)
        np.testing.assert_array_equal(halves.t2i[own], alone.t2i)
