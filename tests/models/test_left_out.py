"""Regions, words and features that are left out at random in training."""

import functools

import jax
import numpy as np
import pytest
from parameters import random_variables

from mhcvse_jax import config, models
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.layers.gpo import GeneralizedPooling
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.models.vsepp import without_some

BATCH, REGIONS, WORDS, FEATURES = 5, 7, 6, 11
GRAPH = concept_graph(np.eye(3, dtype=np.float32), np.arange(3), np.arange(3), np.ones(3, np.float32))


def test_a_share_is_left_out_and_never_all():
    lengths = np.array([1, 2, 13, 13])
    mask = np.arange(13) < lengths[:, None]
    kept = np.stack([without_some(key, mask, 0.4) for key in jax.random.split(jax.random.key(0), 400)])
    assert not kept[:, ~mask].any()
    assert kept.any(axis=2).all()
    assert kept[:, 0, 0].all()
    assert 1 - kept[:, 2:].mean() == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("name", ["vsepp", "mhcvse"])
def test_training_alone_leaves_out(name):
    values = config.base().model
    values.update({"name": name, "embedding_dim": 6, "word_dim": 3, "num_heads": 2 * (name == "mhcvse")})
    values.update({"dropout_rate": 0.0, "gru": "plain", "graph_product": "dense", "consensus_norm": "layer"})
    rng = np.random.default_rng(0)
    inputs = (
        rng.normal(size=(BATCH, REGIONS, FEATURES)).astype(np.float32),
        Captions(
            rng.integers(0, 19, (BATCH, WORDS)).astype(np.int32),
            rng.integers(2, WORDS + 1, BATCH).astype(np.int32),
            rng.random((BATCH, 3)) < 0.5,
        ),
    )
    plain = models.build(values, vocabulary_size=19, dtype="float32")
    variables = random_variables(plain, GRAPH, (REGIONS, FEATURES))

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def sides(model, train):
        found = model.apply(
            variables, *inputs, GRAPH, train=train, rngs={"dropout": jax.random.key(1)}, mutable=["intermediates"]
        )
        return [side.fused for side in found[0]]

    for key, changed in (("feature_dropout_rate", (True, False)), ("element_dropout_rate", (True, True))):
        model = plain.clone(**{key: 0.5})
        for before, after, is_changed in zip(sides(plain, True), sides(model, True), changed, strict=True):
            assert (np.abs(before - after).max() > 1e-3) == is_changed
        for before, after in zip(sides(plain, False), sides(model, False), strict=True):
            np.testing.assert_array_equal(before, after)


def test_generalized_pooling_takes_any_elements():
    """It begins as the mean; those that are left out stand anywhere, not at the end alone."""
    layer = GeneralizedPooling(4, 0.1)
    elements = np.random.default_rng(0).normal(size=(1, 7, 3)).astype(np.float32)
    mask = np.array([[True, False, True, True, False, True, True]])
    init, apply = (jax.jit(functools.partial(method, train=False)) for method in (layer.init, layer.apply))
    variables = init(jax.random.key(0), elements, mask)
    at_first = apply(variables, elements, np.ones((1, 7), bool))
    np.testing.assert_allclose(at_first, l2_normalize(elements.mean(axis=1)), atol=1e-6)
    variables["params"]["score"]["kernel"] += np.array([[0.3], [-0.5], [0.7], [0.2]], np.float32)
    found = apply(variables, elements, mask)
    expected = apply(variables, elements[:, mask[0]], np.ones((1, 5), bool))
    np.testing.assert_allclose(found, expected, atol=1e-6)
