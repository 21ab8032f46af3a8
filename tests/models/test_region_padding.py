"""Pictures with fewer regions than their array has rows: what stands behind them does not matter, to any model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from parameters import random_variables
from variants import variants

from mhcvse_jax import config, models
from mhcvse_jax.data.regions import count_regions
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.layers.pooling import SlotNorm
from mhcvse_jax.losses import Contrast, loss_terms
from mhcvse_jax.losses.pairs import pair_loss_terms
from mhcvse_jax.models.pair_scores import PairScores

BATCH, REGIONS, FEATURES, WORDS, VOCABULARY, CONCEPTS = 5, 7, 11, 6, 23, 3
NUMBERS = np.array([4, 1, 6, 4, 5], np.int32)  # no picture has seven
MODELS = {
    "mhcvse": {"attention_input": "layer_norm"},
    "mhcvse_attention": {"pooling": "attention", "attention_residual": True},
    "mhcvse_gpo": {"pooling": "gpo"},
    "cvse": {"name": "cvse", "num_heads": 0, "pooling": "attention"},
    "vsepp": {"name": "vsepp", "num_heads": 0},
    "scan_t2i": {"name": "scan", "num_heads": 0},
    "scan_i2t": {"name": "scan", "num_heads": 0, "scan_direction": "i2t", "scan_pooling": "lse"},
    "cross": {"name": "cross_attention"},
}
RNG = np.random.default_rng(0)
FEATURES_OF_REGIONS = RNG.normal(size=(BATCH, REGIONS, FEATURES)).astype(np.float32)
IS_REGION = np.arange(REGIONS) < NUMBERS[:, None]
LENGTHS = RNG.integers(2, WORDS + 1, BATCH).astype(np.int32)
TEXTS = Captions(
    RNG.integers(0, VOCABULARY, (BATCH, WORDS)).astype(np.int32), LENGTHS, RNG.random((BATCH, CONCEPTS)) < 0.5
)
EDGES = np.arange(CONCEPTS)
GRAPH = concept_graph(RNG.normal(size=(CONCEPTS, 2)).astype(np.float32), EDGES, EDGES, np.ones(CONCEPTS, np.float32))


def garbage(seed):
    other = 100 * np.random.default_rng(seed).normal(size=FEATURES_OF_REGIONS.shape)
    return np.where(IS_REGION[..., None], FEATURES_OF_REGIONS, other).astype(np.float32)


@pytest.fixture(scope="module", params=variants(MODELS, first_python=("mhcvse_attention", "mhcvse_gpo", "scan_i2t")))
def system(request):
    values = config.base().model
    sizes = {"embedding_dim": 6, "word_dim": 5, "num_heads": 2, "dropout_rate": 0.0, "gpo_dim": 4}
    values.update(sizes | MODELS[request.param])
    model = models.build(values, vocabulary_size=VOCABULARY, dtype="float32")
    return model, random_variables(model, GRAPH, (REGIONS, FEATURES))


def test_a_padded_picture_is_encoded_as_without_its_padding(system):
    model, variables = system

    @jax.jit
    def found(variables, regions, numbers):
        images = model.apply(variables, regions, GRAPH, num_regions=numbers, method="encode_images")
        if not isinstance(model, models.PairModel):
            return images.fused
        texts = model.apply(variables, TEXTS, GRAPH, method="encode_texts")
        return model.apply(variables, images, texts, method="score_matrix")

    padded = found(variables, garbage(2), NUMBERS)
    number = int(NUMBERS[0])
    alone = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf[:number] if "element_norm" in jax.tree_util.keystr(path) else leaf, variables
    )
    for image in (0, 3):
        expected = found(alone, FEATURES_OF_REGIONS[image : image + 1, :number], None)
        np.testing.assert_allclose(padded[image], expected[0], atol=2e-6)
    whole = found(variables, FEATURES_OF_REGIONS, np.full(BATCH, REGIONS, np.int32))
    np.testing.assert_allclose(whole, found(variables, FEATURES_OF_REGIONS, None), atol=2e-6)
    assert np.abs(whole - padded).max() > 1e-3


def test_padding_changes_neither_losses_nor_gradients_nor_statistics(system):
    model, variables = system
    contrast, options = Contrast(0.3, hardest=False), {"mask_same_image": True, "reduction": "mean"}

    @jax.jit
    def step(regions):
        def total(params):
            outputs, updated = model.apply(
                variables | {"params": params},
                *(regions, TEXTS, GRAPH),
                num_regions=NUMBERS,
                train=True,
                mutable=["batch_stats"],
            )
            if isinstance(outputs, PairScores):
                terms, _ = pair_loss_terms(outputs, np.arange(BATCH), contrast, **options)
            else:
                terms, _ = loss_terms(*outputs, np.arange(BATCH), contrast, **options)
            return sum(terms.present().values()), updated

        return jax.value_and_grad(total, has_aux=True)(variables["params"])

    (loss, updated), gradients = step(garbage(3))
    others = step(garbage(4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), ((loss, updated), gradients), others
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, updated, gradients)))
    assert np.abs(gradients["region_projection"]["kernel"]).max() > 1e-4


def test_slots_have_the_statistics_of_their_own_regions():
    x = RNG.normal(2, 3, size=(BATCH, REGIONS, 13)).astype(np.float32)
    ours, theirs = SlotNorm(jnp.float32), nn.BatchNorm(axis=1, momentum=0.9)
    start = theirs.init(jax.random.key(0), x, use_running_average=False)
    start = jax.tree.map(lambda leaf: leaf + RNG.random(leaf.shape).astype(np.float32), start)
    everything = np.ones((BATCH, REGIONS), bool)
    expected, after = theirs.apply(start, x, use_running_average=False, mutable=["batch_stats"])
    found, after_ours = ours.apply(start, x, everything, train=True, mutable=["batch_stats"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), (found, after_ours), (expected, after))
    expected = theirs.apply(start, x, use_running_average=True)
    np.testing.assert_allclose(ours.apply(start, x, everything, train=False), expected, atol=2e-5)

    found, after = ours.apply(start, x, IS_REGION, train=True, mutable=["batch_stats"])
    for slot in range(REGIONS):
        here = x[IS_REGION[:, slot], slot].astype(np.float64)
        old = [float(start["batch_stats"][name][slot]) for name in ("mean", "var")]
        new = [0.9 * a + 0.1 * b for a, b in zip(old, (here.mean(), here.var()), strict=True)] if len(here) else old
        assert [float(after["batch_stats"][name][slot]) for name in ("mean", "var")] == pytest.approx(new, rel=1e-5)


def test_trailing_regions_of_zeros_are_counted_out():
    features = np.zeros((4, 5, 3), np.float32)
    features[0, :3, 1], features[1, 4, 2], features[2] = 1, -1e-30, 7
    expected = [3, 5, 5, 5]  # a zero before the last region is one; a picture of zeros alone has what it has
    assert count_regions(features).tolist() == expected
    assert count_regions(jnp.asarray(features)).tolist() == expected
