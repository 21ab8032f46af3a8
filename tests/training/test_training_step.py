"""One training step, on one device and on eight; the optimizer and its schedule by hand."""

import functools
import math
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from mhcvse_jax import config, models
from mhcvse_jax.data.batches import Batch
from mhcvse_jax.data.word_vectors import WordVectors
from mhcvse_jax.devices.mesh import by_batch, make_mesh, replicated
from mhcvse_jax.devices.platform import lowered_for
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.losses import Contrast, LossTerms, loss_terms
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.training.optimizer import cosine_schedule, make_optimizer
from mhcvse_jax.training.step import LossSettings, StepParts, initialize, make_train_step

BATCH, REGIONS, FEATURES, VOCABULARY, WORD_DIM, CONCEPTS = 16, 5, 11, 23, 3, 7
ALL_NEGATIVES_STEPS = 2
ADAM = {"b1": 0.9, "b2": 0.999}
CLIP_NORM = 2.0
SETTINGS = LossSettings(
    margin=0.2,
    reduction="sum",
    weighting="eq15",
    base_weights=LossTerms(fusion=3.0, instance=5.0, consensus=1.0, kl=2.0),
    mask_same_image=True,
    all_negatives_steps=ALL_NEGATIVES_STEPS,
)
SCHEDULE = cosine_schedule(peak=0.01, total_steps=29, warmup_steps=0, cycles=1, final_share=0.0)


def random_batch(seed, words=6):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, words + 1, BATCH).astype(np.int32)
    return Batch(
        regions=rng.normal(size=(BATCH, REGIONS, FEATURES)).astype(np.float32),
        captions=Captions(
            tokens=rng.integers(0, VOCABULARY, (BATCH, words)).astype(np.int32),
            lengths=lengths,
            labels=rng.random((BATCH, CONCEPTS)) < 0.3,
        ),
        image_index=rng.integers(0, 13, BATCH).astype(np.int32),
    )


def the_model():
    model_config = config.base().model
    sizes = {"embedding_dim": 10, "num_heads": 2, "word_dim": WORD_DIM, "dropout_rate": 0.3}
    model_config.update(sizes | {"attention_dropout_rate": 0.2})
    return models.build(model_config, vocabulary_size=VOCABULARY, dtype="float32")


class Trainer:
    """A compiled step on a number of devices."""

    def __init__(self, devices):
        rng = np.random.default_rng(0)
        senders, receivers = rng.integers(0, CONCEPTS, (2, 13))
        vectors, weights = rng.normal(size=(CONCEPTS, 2)), rng.random(13)
        self.graph = concept_graph(vectors.astype("f4"), senders, receivers, weights.astype("f4"))
        # A large eps: a gradient that is zero but for rounding would else become a full step of either sign.
        self.optimizer = make_optimizer(SCHEDULE, clip_norm=CLIP_NORM, eps=1e-3, gcn_rate_factor=0.5, **ADAM)
        self.model = the_model()
        self.mesh = make_mesh(jax.devices()[:devices])
        self.parts = StepParts(self.model, self.optimizer, SCHEDULE, self.graph, SETTINGS, self.mesh)
        self.function = make_train_step(self.parts)
        self.compiled = None

    def step(self, state, batch):
        batch = jax.device_put(batch, by_batch(self.mesh))
        if self.compiled is None:
            self.compiled = self.function.lower(state, batch).compile()
        return self.compiled(state, batch)

    def place(self, state):
        """Returns a copy, which the step may take for its own."""
        return jax.device_put(jax.tree.map(jnp.copy, state), replicated(self.mesh))


@pytest.fixture(scope="module")
def one():
    return Trainer(1)


@pytest.fixture(scope="module")
def eight():
    assert len(jax.devices()) == 8
    return Trainer(8)


@pytest.fixture(scope="module")
def word_vectors():
    rng = np.random.default_rng(1)
    return WordVectors(rng.normal(size=(VOCABULARY, WORD_DIM)).astype(np.float32), rng.random(VOCABULARY) < 0.5)


@pytest.fixture(scope="module")
def start(eight, word_vectors):
    return initialize(eight.parts, regions_shape=(REGIONS, FEATURES), seed=3, word_vectors=word_vectors)


def test_initial_state(start, eight, word_vectors):
    embedding = start.params["text_gru"]["embed"]["embedding"]
    np.testing.assert_array_equal(embedding[word_vectors.found], word_vectors.vectors[word_vectors.found])
    assert not np.any(embedding[~word_vectors.found] == word_vectors.vectors[~word_vectors.found])
    assert np.all(embedding[~word_vectors.found] != 0)
    assert int(start.step) == 0
    assert all(leaf.sharding == replicated(eight.mesh) for leaf in jax.tree.leaves(start))


def assert_trees_close(found, expected, *, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), found, expected)


def test_eight_devices_do_as_one(start, one, eight):
    """The order of float32 sums is all that may differ: 1e-5."""
    states = {trainer: trainer.place(start) for trainer in (one, eight)}
    for i in range(3):
        results = {trainer: trainer.step(state, random_batch(i)) for trainer, state in states.items()}
        states = {trainer: state for trainer, (state, _) in results.items()}
        metrics = [values for _, values in results.values()]
        for name in metrics[0]:
            np.testing.assert_allclose(metrics[0][name], metrics[1][name], rtol=1e-5, atol=1e-6, err_msg=name)
        if i == 0:  # Adam's first moment is now (1 - b1) of the clipped gradient; its rounding is that of its sums
            of_one, of_eight = (optax.tree.get(state.opt_state, "mu") for state in states.values())
            assert_trees_close(
                of_one, of_eight, atol=1e-5 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(of_one))
            )
    for name in ("params", "batch_stats"):
        assert_trees_close(*(getattr(state, name) for state in states.values()), atol=1e-5)
    assert {int(state.step) for state in states.values()} == {3}


def test_the_gradient_is_clipped_and_reported_unclipped(start, one):
    state, metrics = one.step(one.place(start), random_batch(0))
    moments = jax.tree.leaves(optax.tree.get(state.opt_state, "mu"))
    clipped = math.sqrt(sum(np.sum(np.square(leaf)) for leaf in moments)) / (1 - ADAM["b1"])
    np.testing.assert_allclose(clipped, CLIP_NORM, rtol=1e-5)
    assert metrics["gradient_norm"] > 2 * CLIP_NORM


def metrics_at(trainer, start, step):
    state = trainer.place(start.replace(step=jnp.int32(step)))
    return trainer.step(state, random_batch(0))[1]


def test_metrics(start, one):
    metrics = metrics_at(one, start, step=5)
    terms = list(SETTINGS.base_weights.present())
    assert set(metrics) == {"loss", "learning_rate", "gradient_norm"} | {
        f"{kind}_{term}" for kind in ("loss", "weight") for term in terms
    } | {"attention_entropy_image", "attention_entropy_text"} | {
        f"hardness_{term}" for term in ("fusion", "instance", "consensus")
    }
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())
    total = sum(metrics[f"loss_{term}"] * metrics[f"weight_{term}"] for term in terms)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-6)
    for term in terms:
        weight = oracle.term_weight(float(metrics[f"loss_{term}"]), getattr(SETTINGS.base_weights, term), "eq15")
        np.testing.assert_allclose(metrics[f"weight_{term}"], weight, rtol=1e-5)
    np.testing.assert_allclose(metrics["learning_rate"], 0.01 * (1 + math.cos(math.pi * 5 / 29)) / 2, rtol=1e-5)


def test_all_negatives_count_in_the_first_steps_alone(start, one):
    instance = [float(metrics_at(one, start, step)["loss_instance"]) for step in range(4)]
    assert ALL_NEGATIVES_STEPS == 2
    assert min(instance[:2]) > 3 * max(instance[2:])
    assert min(instance[2:]) > 0


def test_dropout_follows_the_step_and_the_key(start, one):
    first, again, later = (metrics_at(one, start, step)["loss"] for step in (0, 0, 1))
    assert first == again
    assert abs(first - later) > 1e-3 * first
    other_key = start.replace(key=jax.random.fold_in(start.key, 1))
    assert abs(first - metrics_at(one, other_key, 0)["loss"]) > 1e-3 * first


class Stub(nn.Module):
    """The least that a step can train: it compiles in no time."""

    @nn.compact
    def __call__(
        self,
        regions,
        captions,
        graph,
        is_negative=None,
        mining_temperature=0.0,
        *,
        num_regions=None,
        train,
    ):
        def embed(x):
            x = l2_normalize(x)
            return Embeddings(x, x, x, nn.softmax(x))

        direction = self.param("direction", nn.initializers.ones, (FEATURES,))
        return embed(regions[:, 0]), embed(regions[:, 1] + captions.tokens.mean(axis=1, keepdims=True) * direction)


def test_the_state_is_donated_and_a_length_compiles_once(one):
    parts = StepParts(Stub(), optax.sgd(0.1), SCHEDULE, one.graph, SETTINGS, one.mesh)
    step = make_train_step(parts)
    state = before = initialize(parts, regions_shape=(REGIONS, FEATURES), seed=0)
    batches = [jax.device_put(random_batch(i, words), by_batch(one.mesh)) for i, words in enumerate((6, 6, 6, 7, 6))]
    sizes = []
    for batch in batches:
        state, _ = step(state, batch)
        sizes.append(step._cache_size())
    assert sizes == [1, 1, 1, 2, 2]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(batches))


def test_a_step_that_is_not_finite_is_counted_and_changes_nothing_else(one):
    """By a branch on a CPU, by a choice of each value elsewhere: both do as much."""
    parts = StepParts(Stub(), optax.adam(0.1), SCHEDULE, one.graph, SETTINGS, one.mesh)
    start = initialize(parts, regions_shape=(REGIONS, FEATURES), seed=0)
    good = random_batch(0)
    bad = good._replace(regions=np.where(np.arange(BATCH)[:, None, None] == 3, np.nan, good.regions))
    taken = {}
    for platform in ("cpu", "gpu"):
        with lowered_for(platform):
            step = make_train_step(parts).lower(start, good).compile()
        taken[platform], _ = step(one.place(start), good)
        skipped, metrics = step(one.place(taken[platform]), bad)
        assert not np.isfinite(metrics["loss"])
        assert (int(taken[platform].step), int(skipped.step)) == (1, 2)
        for name in ("params", "opt_state"):
            jax.tree.map(np.testing.assert_array_equal, getattr(skipped, name), getattr(taken[platform], name))
        moved = taken[platform].params["direction"] - start.params["direction"]
        assert np.abs(moved).max() == pytest.approx(0.1, rel=1e-3)  # Adam's first step
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), *(x.params for x in taken.values()))


def test_negatives_span_the_devices(eight):
    """Picture 0 resembles caption 13, which lies on another device; all else is orthogonal."""
    image, text = np.eye(16, dtype=np.float32), np.eye(16, dtype=np.float32)
    text[13] = 0
    text[13, [0, 13]] = 0.8, 0.6
    options = {"margin": 0.2, "mask_same_image": True, "hardest": True, "reduction": "sum"}
    shares = np.full((16, 3), 1 / 3, np.float32)
    sides = [Embeddings(x, x, x, shares) for x in (image, text)]
    index = np.arange(16, dtype=np.int32)
    split = by_batch(eight.mesh)
    arguments = jax.device_put((*sides, index), split)
    assert len(arguments[0].fused.sharding.device_set) == 8
    found = jax.jit(
        lambda *x: loss_terms(*x, Contrast(), mask_same_image=True, reduction="sum")[0], in_shardings=split
    )(*arguments)
    expected = oracle.losses(*(SimpleNamespace(**side._asdict()) for side in sides), index, **options)
    assert expected["fusion"] == pytest.approx(0 + (0.2 + 0.8 - 0.6))  # caption 13 prefers picture 0
    assert expected["fusion"] > 0.1
    for name, value in found.present().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


def cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: 1, 6: cosine(0.25), 12: 0.5, 23: cosine(23 / 24), 24: 0, 30: 0}),
        ({"final_share": 0.2}, {0: 1, 12: 0.6, 24: 0.2, 30: 0.2}),
        ({"warmup_steps": 4}, {0: 0, 1: 0.25, 3: 0.75, 4: 1, 9: cosine(0.25), 14: 0.5, 24: 0}),
        ({"cycles": 2}, {0: 1, 6: 0.5, 11: cosine(11 / 12), 12: 1, 18: 0.5, 23: cosine(11 / 12), 24: 0}),
        ({"cycles": 2, "warmup_steps": 4}, {0: 0, 2: 0.5, 4: 1, 9: 0.5, 13: cosine(0.9), 14: 1, 19: 0.5, 24: 0}),
    ],
)
def test_learning_rate_by_hand(options, expected):
    options = {"peak": 0.003, "total_steps": 24, "warmup_steps": 0, "cycles": 1, "final_share": 0.0} | options
    schedule = cosine_schedule(**options)
    found = {step: float(schedule(step)) / 0.003 for step in expected}
    assert found == pytest.approx(expected, abs=1e-6)


def test_cycles_that_do_not_divide_the_steps():
    schedule = cosine_schedule(peak=1.0, total_steps=23, warmup_steps=0, cycles=3, final_share=0.0)
    rates = np.array([float(schedule(step)) for step in range(24)])
    np.testing.assert_array_equal(np.flatnonzero(rates == 1), [0, 8, 15])
    assert (np.diff(rates)[[i for i in range(23) if i not in (7, 14)]] < 0).all()


@pytest.mark.parametrize(("factor", "decay"), [(1.0, 0.0), (0.25, 0.0), (3.0, 0.7)])
def test_first_update_by_hand(factor, decay):
    rng = np.random.default_rng(2)
    gradients = {
        "concept_gcn": {"first": {"kernel": rng.normal(size=(3, 5))}},
        "image_fusion": {"linear": {"kernel": rng.normal(size=(2, 7)), "bias": rng.normal(size=7)}},
    }
    norm = math.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradients)))
    assert norm > 2
    gradients = jax.tree.map(np.float32, gradients)
    rate, eps = 0.02, 0.1
    optimizer = make_optimizer(
        lambda step: rate, clip_norm=2.0, eps=eps, gcn_rate_factor=factor, weight_decay=decay, **ADAM
    )
    updates = jax.jit(lambda x: optimizer.update(x, optimizer.init(x), x)[0])(gradients)
    for part, factor_of_part in (("concept_gcn", factor), ("image_fusion", 1.0)):
        for update, gradient in zip(jax.tree.leaves(updates[part]), jax.tree.leaves(gradients[part]), strict=True):
            clipped = np.float64(gradient) * 2 / norm
            step = clipped / (np.abs(clipped) + eps)  # Adam's first
            if gradient.ndim > 1:
                step += decay * gradient  # which is the parameter, too
            expected = -rate * factor_of_part * step
            np.testing.assert_allclose(update, expected, rtol=1e-4)
