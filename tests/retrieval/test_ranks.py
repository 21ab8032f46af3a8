"""Ranks against loops; recall, folds and the mix of similarities by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mhcvse_jax.devices.mesh import make_mesh, replicated
from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.retrieval import ranks as ranks_module
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.retrieval.encode import EncodedSplit
from mhcvse_jax.retrieval.ranks import ranks
from mhcvse_jax.retrieval.recall import Recall, Retrieval, mean_over_folds, recall

CAPTIONS = (3, 1, 7, 2, 5, 1, 2, 4, 1, 3, 5)  # of each picture
OWNER = np.repeat(np.arange(len(CAPTIONS)), CAPTIONS)
DIM = 7


def unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def random_sides(seed, noise=2.0, owner=OWNER):
    """Returns pictures, and captions that resemble theirs."""
    rng = np.random.default_rng(seed)
    images = unit(rng, owner.max() + 1, DIM)
    return jnp.asarray(images), jnp.asarray(images[owner] + noise * unit(rng, len(owner), DIM))


def coarse_sides(seed):
    """Returns embeddings of few, exact values: many ties, and none that rounding could break."""
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.integers(-1, 2, (n, DIM)), jnp.float32) for n in (len(CAPTIONS), len(OWNER)))


def assert_equals_loops(image, text, owner):
    found = ranks(image, text, owner)
    i2t, t2i = oracle.ranks(np.float64(image) @ np.float64(text).T, owner)
    np.testing.assert_array_equal(found.i2t, i2t)
    np.testing.assert_array_equal(found.t2i, t2i)
    of_matrix = similarity.ranks_of(similarity.of_embeddings(image, text), owner)
    np.testing.assert_array_equal(of_matrix.i2t, i2t)
    np.testing.assert_array_equal(of_matrix.t2i, t2i)
    return found


@pytest.fixture(params=["at once", "in blocks"])
def way(request, monkeypatch):
    """Both ways to the ranks: all similarities at once, or a product a direction."""
    if request.param == "in blocks":
        monkeypatch.setattr(ranks_module, "MOST_AT_ONCE", 0)


@pytest.mark.usefixtures("way")
def test_uneven_numbers_of_captions_equal_the_loops():
    found = assert_equals_loops(*random_sides(0), OWNER)
    assert len(set(found.i2t)) > 3
    assert len(set(found.t2i)) > 3


@pytest.mark.usefixtures("way")
def test_ties_equal_the_loops():
    image, text = coarse_sides(1)
    found = assert_equals_loops(image, text, OWNER)
    # The same without counting ties would be better: they were there.
    similarity = np.asarray(image @ text.T)
    without = 1 + np.sum(similarity > similarity[OWNER, np.arange(len(OWNER))], axis=0)
    assert (found.t2i > without).sum() > 5


@st.composite
def sides_with_ties(draw):
    """Few, exact values, so many ties and no rounding; captions in any order, of pictures that may have none."""
    num_images, dim = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3]))
    owner = draw(st.lists(st.integers(0, num_images - 1), min_size=1, max_size=9))
    image, text = (
        draw(st_numpy.arrays(np.float32, (count, dim), elements=st.sampled_from([-1, 0, 0.5, 1])))
        for count in (num_images, len(owner))
    )
    return image, text, np.array(owner)


@settings(derandomize=True, deadline=None, database=None, max_examples=40)
@given(sides_with_ties())
def test_any_shapes_and_ties_equal_the_loops(sides):
    image, text, owner = sides
    assert_equals_loops(jnp.asarray(image), jnp.asarray(text), owner)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_devices_that_share_the_pictures_find_the_same(num_devices):
    """11 pictures: the last device's share is filled up with the last picture, which is no candidate again."""
    image, text = coarse_sides(1)
    placed = jax.device_put((image, text), replicated(make_mesh(jax.devices()[:num_devices])))
    assert_equals_loops(*placed, OWNER)


def test_permuted_captions_have_the_permuted_ranks():
    image, text = random_sides(2)
    before = ranks(image, text, OWNER)
    order = np.random.default_rng(2).permutation(len(OWNER))
    after = ranks(image, text[order], OWNER[order])
    np.testing.assert_array_equal(after.i2t, before.i2t)
    np.testing.assert_array_equal(after.t2i, before.t2i[order])


@pytest.mark.parametrize("block", [1, 5])
def test_blocks_change_nothing(monkeypatch, block):
    image, text = coarse_sides(3)
    whole = ranks(image, text, OWNER)
    monkeypatch.setattr(ranks_module, "MOST_AT_ONCE", len(CAPTIONS) * len(OWNER) - 1)
    monkeypatch.setattr(ranks_module, "BLOCK", block)
    in_blocks = ranks(image, text, OWNER)
    np.testing.assert_array_equal(in_blocks.i2t, whole.i2t)
    np.testing.assert_array_equal(in_blocks.t2i, whole.t2i)


@pytest.mark.usefixtures("way")
def test_constant_embeddings_have_the_worst_ranks():
    images, each, dim = 211, 5, 257
    owner = np.repeat(np.arange(images), each)
    one = unit(np.random.default_rng(4), 1, dim)
    found = ranks(jnp.repeat(one, images, axis=0), jnp.repeat(one, images * each, axis=0), owner)
    np.testing.assert_array_equal(found.i2t, images * each - each + 1)
    np.testing.assert_array_equal(found.t2i, images)
    for direction in found:
        assert recall(direction)[:3] == (0, 0, 0)


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_nan_is_an_error_that_names_it(side):
    image, text = random_sides(5)
    sides = {"image": np.array(image), "text": np.array(text)}
    sides[side][6, 1] = np.nan
    sides[side][9, 2] = np.inf
    count = len(sides[side])
    with pytest.raises(RunFailedError, match=f"2 of {count} {side} embeddings are not finite, the first at 6"):
        ranks(jnp.asarray(sides["image"]), jnp.asarray(sides["text"]), OWNER)


def test_recall_by_hand():
    found = recall(np.array([1, 2, 5, 6, 10, 11, 300, 1]))
    assert found[:3] == (25, 50, 75)
    assert found.meanr == 336 / 8
    assert found.medr == 5  # from 0 the middle two are 4 and 5, their mean 4.5, rounded down 4, from 1 again 5
    assert recall(np.array([3, 1, 8])).medr == 3
    assert recall(np.array([1])) == Recall(100, 100, 100, 1, 1)


def test_mean_over_folds():
    folds = [
        Retrieval(Recall(10, 20, 30, 4, 5.5), Recall(1, 2, 3, 40, 50)),
        Retrieval(Recall(20, 40, 60, 5, 6.5), Recall(3, 4, 5, 60, 52)),
    ]
    mean = mean_over_folds(folds)
    assert mean == Retrieval(Recall(15, 30, 45, 4.5, 6), Recall(2, 3, 4, 50, 51))
    assert mean.rsum == 99
    assert mean.mean_recall == 16.5


def random_embeddings(rng, count):
    return Embeddings(*(jnp.asarray(unit(rng, count, DIM)) for _ in range(3)), jnp.ones((count, 3)) / 3)


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.3, 1.0])
def test_compared_vectors_give_the_weighted_sum_of_similarities(weight):
    rng = np.random.default_rng(6)
    image, text = random_embeddings(rng, 11), random_embeddings(rng, 13)
    found = protocols.compared(image, "fused", weight) @ protocols.compared(text, "fused", weight).T
    fused, consensus = (getattr(image, kind) @ getattr(text, kind).T for kind in ("fused", "consensus"))
    np.testing.assert_allclose(found, (1 - weight) * fused + weight * consensus, rtol=0, atol=1e-6)
    for kind in ("instance", "consensus"):
        np.testing.assert_array_equal(protocols.compared(image, kind, weight), getattr(image, kind))


def test_a_fold_is_ranked_as_if_it_were_alone():
    owner = np.random.default_rng(7).permutation(np.repeat(np.arange(21), 3))  # captions in no order
    image, text = random_sides(7, owner=owner)
    encoded = EncodedSplit(*(Embeddings(x, x, x, x) for x in (image, text)))
    found = protocols.split_ranks(encoded, owner, kind="fused", consensus_weight=0.0, folds=3)
    similarity = np.float64(image) @ np.float64(text).T
    parts = []
    for fold in range(3):
        captions = [i for i in range(len(owner)) if 7 * fold <= owner[i] < 7 * fold + 7]
        i2t, t2i = oracle.ranks(similarity[7 * fold : 7 * fold + 7, captions], owner[captions] - 7 * fold)
        np.testing.assert_array_equal(found.i2t[7 * fold : 7 * fold + 7], i2t)
        np.testing.assert_array_equal(found.t2i[captions], t2i)
        parts.append(Retrieval(recall(i2t), recall(t2i)))
    results = protocols.standard(encoded, owner, consensus_weight=0.0, folds=3)
    assert results["fused"] == mean_over_folds(parts)


def test_standard_reports_each_embedding_from_its_own_vectors():
    rng = np.random.default_rng(8)
    encoded = EncodedSplit(random_embeddings(rng, len(CAPTIONS)), random_embeddings(rng, len(OWNER)))
    results = protocols.standard(encoded, OWNER, consensus_weight=0.0, folds=1)
    assert list(results) == ["fused", "instance", "consensus"]
    for kind, found in results.items():
        own = ranks(getattr(encoded.image, kind), getattr(encoded.text, kind), OWNER)
        assert found == Retrieval(recall(own.i2t), recall(own.t2i))
    assert len({found.i2t.meanr for found in results.values()}) == 3


def test_folds_that_do_not_divide_are_refused():
    encoded = EncodedSplit(*(Embeddings(x, x, x, x) for x in random_sides(9)))
    with pytest.raises(InputError, match="3 folds do not divide the 11 pictures"):
        protocols.split_ranks(encoded, OWNER, kind="fused", consensus_weight=0.0, folds=3)


@pytest.mark.usefixtures("way")
def test_a_picture_without_captions_is_no_query_but_a_candidate():
    assert recall(np.array([0, 1, 0, 7])) == Recall(r1=50.0, r5=50.0, r10=100.0, medr=4.0, meanr=4.0)
    image, text = np.eye(3, dtype=np.float32), np.float32([[0, 0.5, 0.9], [0, 1, 0]])
    found = ranks(jnp.asarray(image), jnp.asarray(text), np.array([1, 1]))
    assert found.i2t.tolist() == [0, 1, 0]
    assert found.t2i.tolist() == [2, 1]  # picture 2, which has no captions, is nearer to the first


def test_a_fold_without_captions_is_refused():
    encoded = EncodedSplit(*(Embeddings(x, x, x, x) for x in random_sides(5, owner=np.array([0, 1, 1, 3]))))
    kinds = {"kind": "fused", "consensus_weight": 0.0}
    protocols.split_ranks(encoded, np.array([0, 1, 1, 3]), folds=2, **kinds)
    with pytest.raises(InputError, match="the pictures 2 to 3, one of 2 folds, have no captions; expected fewer folds"):
        protocols.split_ranks(encoded, np.array([0, 1, 1, 0]), folds=2, **kinds)
