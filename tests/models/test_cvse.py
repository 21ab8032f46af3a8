"""CVSE: its configuration, its size, its rate; that it is MH-CVSE without heads."""

import functools
import pathlib

import jax
import numpy as np
import pytest
from parameters import random_variables

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment.training_parts import schedule_and_optimizer
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.training.optimizer import step_schedule
from mhcvse_jax.training.step import init_variables

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def read(name, *overrides):
    return config_lib.read(str(CONFIGS / f"{name}.py"), [f"--config.{override}" for override in overrides])


def test_the_configurations_are_the_programs():
    paper, f30k, coco = read("cvse_f30k_paper"), read("cvse_f30k"), read("cvse_coco")
    for config, alpha, divergence in ((paper, 0.85, 2), (f30k, 0.85, 0.3), (coco, 0.9, 0.3)):
        assert (config.model.name, config.model.fusion, config.model.fixed_instance_weight) == (
            "cvse",
            "fixed_sum",
            alpha,
        )
        loss = config.loss
        assert (loss.fusion_weight, loss.instance_weight, loss.consensus_weight) == (3, 5, 1)
        assert loss.kl_weight == divergence
        assert (loss.weighting, loss.reduction, loss.margin, loss.mask_same_image) == ("fixed", "sum", 0.2, False)
        assert (config.text.remove_stop_words, config.text.bytes_literal) == (False, False)
        assert (config.concepts.training_label, config.eval.consensus_weight) == ("image", 0.05)
        assert (config.model.pooling, config.model.consensus_norm, config.model.dropout_rate) == (
            "attention",
            "batch",
            0.4,
        )
    assert (coco.eval.test_split, coco.eval.folds) == ("testall", (5, 1))


def test_a_head_would_have_no_place():
    with pytest.raises(InputError, match=r"config\.model\.num_heads is 8; expected 0, as cvse has no heads"):
        read("cvse_f30k", "model.num_heads=8")


def shapes(config, regions=(36, 2048)):
    num, width = config.concepts.num, config.concepts.vector_dim
    model = models.build(config.model, vocabulary_size=8000, dtype="float32")
    graph = concept_graph(np.zeros((num, width), "f4"), np.zeros(1, "i4"), np.zeros(1, "i4"), np.zeros(1, "f4"))
    return jax.eval_shape(lambda key: init_variables(model, graph, regions, key), jax.random.key(0))


def test_number_of_parameters():
    tree = shapes(read("cvse_f30k"))
    found = {part: sum(leaf.size for leaf in jax.tree.leaves(values)) for part, values in tree["params"].items()}
    dim, regions = 1024, 36
    gates_of_input, gates_of_state = 3 * (300 * dim + dim), 3 * dim * dim + dim  # of the state only `hn` has a bias
    pooling = 2 * (dim * dim + dim) + dim + 1
    consensus = 2 * (dim * dim + dim) + 2 * 2 * dim + dim
    expected = {
        "region_projection": 2048 * dim + dim,
        "text_gru": 8000 * 300 + 2 * (gates_of_input + gates_of_state),
        "concept_gcn": 300 * 512 + 512 * dim,
        "image_pooling": pooling + 2 * regions + 2 * dim,  # a batch norm by region slot, one by feature
        "text_pooling": pooling,
        "image_consensus": consensus,
        "text_consensus": consensus,
    }
    assert found == expected
    assert sum(found.values()) == 21_730_122
    statistics = {
        part: sum(leaf.size for leaf in jax.tree.leaves(values)) for part, values in tree["batch_stats"].items()
    }
    assert statistics == {"image_pooling": 2 * (regions + dim), "image_consensus": 4 * dim, "text_consensus": 4 * dim}


def test_it_is_mhcvse_without_heads():
    config = read("cvse_f30k", "model.embedding_dim=26", "model.word_dim=5", "concepts.num=7", "concepts.vector_dim=3")
    rng = np.random.default_rng(0)
    graph = concept_graph(rng.normal(size=(7, 3)).astype("f4"), np.arange(7), np.arange(7)[::-1], np.ones(7, "f4"))
    inputs = (
        rng.normal(size=(5, 3, 11)).astype("f4"),
        Captions(rng.integers(0, 19, (5, 13)), np.array([13, 1, 7, 2, 5]), rng.random((5, 7)) < 0.3),
    )
    found = []
    for name in ("cvse", "mhcvse"):
        values = config.model.copy_and_resolve_references().unlock()
        values.name = name
        model = models.build(values, vocabulary_size=19, dtype="float32")
        variables = random_variables(model, graph, (3, 11))
        found.append((variables, jax.jit(functools.partial(model.apply, train=False))(variables, *inputs, graph)))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_the_rate_falls_in_steps():
    schedule = step_schedule(peak=0.5, warmup_steps=0, steps=10, factor=0.1)
    found = [float(schedule(step)) for step in (0, 9, 10, 19, 20, 35)]
    assert found == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.0005])
    warmed = step_schedule(peak=0.5, warmup_steps=4, steps=10, factor=0.1)
    assert [float(warmed(step)) for step in (0, 1, 4, 9, 10)] == pytest.approx([0, 0.125, 0.5, 0.5, 0.05])


def test_the_configuration_decides_the_schedule():
    steps = 7
    schedule, _ = schedule_and_optimizer(read("cvse_f30k"), steps)
    rates = [float(schedule(epoch * steps)) for epoch in (0, 24, 25, 49)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5])
    schedule, _ = schedule_and_optimizer(read("f30k"), steps)
    assert float(schedule(15 * steps)) == pytest.approx(1e-4)  # half of 30 epochs of a cosine
