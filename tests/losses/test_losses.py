"""The loss terms against loops, and what must hold of them whatever the embeddings are."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcvse_jax.devices.mesh import by_batch, make_mesh
from mhcvse_jax.losses import (
    Contrast,
    LossTerms,
    collapse_value,
    contrastive_loss,
    hardness,
    infonce_collapse_value,
    kl_divergence,
    loss_terms,
    negatives,
)
from mhcvse_jax.losses.weighting import loss_weights
from mhcvse_jax.models.embeddings import Embeddings

BASE_WEIGHTS = LossTerms(fusion=3.0, instance=5.0, consensus=1.0, kl=2.0)


@functools.partial(jax.jit, static_argnames="mask_same_image")
def contrast(similarity, image_index, margin, hardest, *, mask_same_image):
    is_negative = negatives(image_index, mask_same_image=mask_same_image)
    return contrastive_loss(similarity, is_negative, Contrast(margin, hardest))


def random_pairs(seed, batch, images):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (batch, batch)).astype(np.float32), rng.integers(0, images, batch).astype(np.int32)


def random_embeddings(rng, batch, dim=13, concepts=11):
    def unit():
        vectors = rng.normal(size=(batch, dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return Embeddings(unit(), unit(), unit(), rng.dirichlet(np.ones(concepts), batch).astype(np.float32))


@pytest.mark.parametrize("mask_same_image", [True, False])
@pytest.mark.parametrize("hardest", [True, False])
def test_contrastive_loss_equals_the_loops(mask_same_image, hardest):
    similarity, image_index = random_pairs(0, 17, images=5)
    found = contrast(similarity, image_index, 0.3, hardest, mask_same_image=mask_same_image)
    expected = oracle.hinge(np.float64(similarity), image_index, 0.3, mask_same_image, hardest)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_captions_of_one_picture_are_no_negatives_where_masked():
    similarity = np.float32([[0.5, 0.9, 0.1], [0.9, 0.5, 0.1], [0.1, 0.1, 0.5]])
    image_index = np.int32([8, 8, 3])
    masked = contrast(similarity, image_index, 0.2, True, mask_same_image=True)
    np.testing.assert_array_equal(masked, [0, 0, 0])
    unmasked = contrast(similarity, image_index, 0.2, True, mask_same_image=False)
    np.testing.assert_allclose(unmasked, [1.2, 1.2, 0], rtol=1e-6)
    alone = contrast(similarity, np.int32([8, 8, 8]), 0.2, True, mask_same_image=True)
    np.testing.assert_array_equal(alone, [0, 0, 0])  # a batch without a single negative


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.sampled_from([1, 2, 7]),
    images=st.integers(1, 7),
    margin=st.floats(0, 1, width=32),
    hardest=st.booleans(),
    mask_same_image=st.booleans(),
)
def test_any_contrastive_loss(seed, batch, images, margin, hardest, mask_same_image):
    similarity, image_index = random_pairs(seed, batch, images)
    loss = np.asarray(contrast(similarity, image_index, margin, hardest, mask_same_image=mask_same_image))
    assert loss.shape == (batch,)
    assert np.isfinite(loss).all()
    assert (loss >= 0).all()
    order = np.random.default_rng(seed).permutation(batch)
    permuted = contrast(
        similarity[order][:, order], image_index[order], margin, hardest, mask_same_image=mask_same_image
    )
    np.testing.assert_allclose(permuted, loss[order], rtol=1e-5, atol=1e-6)
    if hardest:
        all_of_them = contrast(similarity, image_index, margin, False, mask_same_image=mask_same_image)
        assert (loss <= all_of_them + 1e-6).all()


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def terms_of(image, text, image_index, mask_same_image, reduction, hardest=True):
    contrast = Contrast(0.3, hardest)
    return loss_terms(image, text, image_index, contrast, mask_same_image=mask_same_image, reduction=reduction)[0]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_terms_equal_the_loops(reduction):
    rng = np.random.default_rng(3)
    image, text = random_embeddings(rng, 7), random_embeddings(rng, 7)
    image_index = np.int32([0, 1, 0, 4, 5, 5, 9])
    for mask_same_image, hardest in ((True, False), (False, True)):
        options = {
            "margin": 0.3,
            "mask_same_image": mask_same_image,
            "hardest": hardest,
            "reduction": reduction,
        }
        found = terms_of(image, text, image_index, mask_same_image, reduction, hardest)
        sides = (SimpleNamespace(**{k: np.float64(v) for k, v in e._asdict().items()}) for e in (image, text))
        expected = oracle.losses(*sides, image_index, **options)
        for name, value in found.present().items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
        assert len({round(float(value), 4) for value in found.present().values()}) == 4


@pytest.mark.parametrize("hardest", [True, False])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_collapse_value_is_the_loss_of_identical_embeddings(reduction, hardest):
    rng = np.random.default_rng(4)
    one = jax.tree.map(lambda x: np.broadcast_to(x, (7, x.shape[1])), random_embeddings(rng, 1))
    losses = terms_of(one, one, np.arange(7), True, reduction, hardest)
    expected = collapse_value(7, 0.3, reduction, num_negatives=1 if hardest else 6)
    np.testing.assert_allclose(losses[:3], expected, rtol=1e-5)
    assert float(losses.kl) == 0


@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_soft_negatives_equal_the_loops(temperature):
    similarity, image_index = random_pairs(1, 13, images=5)
    is_negative = negatives(image_index, mask_same_image=True)
    found = contrastive_loss(jnp.asarray(similarity), is_negative, Contrast(0.3, temperature=temperature))
    expected = oracle.soft_hinge(np.float64(similarity), image_index, 0.3, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_infonce_equals_the_loops():
    similarity, image_index = random_pairs(2, 13, images=5)
    is_negative = negatives(image_index, mask_same_image=True)
    found = contrastive_loss(jnp.asarray(similarity), is_negative, Contrast(scale=jnp.float32(7.0)))
    np.testing.assert_allclose(found, oracle.infonce(np.float64(similarity), image_index, 7.0), rtol=1e-5)


def test_soft_negatives_lie_between_the_mean_of_all_and_the_hardest():
    similarity, _ = random_pairs(3, 11, images=11)
    is_negative = negatives(np.arange(11), mask_same_image=True)

    def loss(contrast):
        return np.asarray(contrastive_loss(jnp.asarray(similarity), is_negative, contrast))

    np.testing.assert_allclose(loss(Contrast(0.3, temperature=1e4)), loss(Contrast(0.3, False)) / 10, rtol=1e-3)
    np.testing.assert_allclose(loss(Contrast(0.3, temperature=1e-4)), loss(Contrast(0.3)), atol=1e-5)


@pytest.mark.parametrize(("contrast", "shrinks"), [(Contrast(0.2), True), (Contrast(0.2, temperature=0.05), False)])
def test_only_the_hardest_negatives_make_embeddings_one(contrast, shrinks):
    """Pairs that are a little more alike than others: does the loss fall as all deviations from their mean shrink?"""
    rng = np.random.default_rng(7)
    batch, dim = 61, 47
    shared, own, noise = rng.normal(size=dim), rng.normal(size=(batch, dim)), rng.normal(size=(2, batch, dim))
    deviations = [0.1 * (0.5 * own + one) for one in noise]
    is_negative = negatives(np.arange(batch), mask_same_image=True)

    def loss(spread):
        images, texts = (shared + spread * deviation for deviation in deviations)
        images, texts = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
        return jnp.sum(contrastive_loss(images @ texts.T, is_negative, contrast))

    assert (float(jax.jit(jax.grad(loss))(1.0)) > 0) == shrinks


def test_hardness_is_the_place_between_the_mean_and_the_hardest():
    similarity, image_index = random_pairs(4, 11, images=11)
    is_negative = np.asarray(negatives(image_index, mask_same_image=True))
    places = []
    for row, others in zip(np.float64(similarity), is_negative, strict=True):
        wrong = row[others]
        weights = np.exp(wrong / 0.3) / np.exp(wrong / 0.3).sum()
        places.append((weights @ wrong - wrong.mean()) / (wrong.max() - wrong.mean()))
    arguments = jnp.asarray(similarity), jnp.asarray(is_negative)
    np.testing.assert_allclose(hardness(*arguments, Contrast(temperature=0.3)), np.mean(places), rtol=1e-5)
    np.testing.assert_allclose(hardness(*arguments, Contrast(scale=jnp.float32(1 / 0.3))), np.mean(places), rtol=1e-5)
    assert hardness(*arguments, Contrast(hardest=True)) == pytest.approx(1)
    assert hardness(*arguments, Contrast(hardest=False)) == 0
    one = jnp.ones((5, 5)), ~np.eye(5, dtype=bool)
    assert hardness(*one, Contrast(temperature=0.3)) == 0


def test_infonce_of_identical_embeddings():
    one = jnp.ones((7, 7))
    found = jnp.sum(contrastive_loss(one, ~np.eye(7, dtype=bool), Contrast(scale=jnp.float32(20.0))))
    np.testing.assert_allclose(found, infonce_collapse_value(7, "sum", num_negatives=6), rtol=1e-5)


def test_kl_divergence_has_a_direction_and_survives_zeros():
    rng = np.random.default_rng(5)
    text, image = (rng.dirichlet(np.ones(11), 7).astype(np.float32) for _ in range(2))
    found = kl_divergence(jnp.asarray(text), jnp.asarray(image))
    np.testing.assert_allclose(found, oracle.kl(np.float64(text), np.float64(image)), rtol=1e-5)
    assert not np.allclose(found, oracle.kl(np.float64(image), np.float64(text)), rtol=0.01)
    text[:, 2] = image[:, 2:5] = 0  # as a saturated softmax gives
    gradients = jax.grad(lambda *p: jnp.sum(kl_divergence(*p)), argnums=(0, 1))(text, image)
    assert all(np.isfinite(leaf).all() for leaf in (kl_divergence(text, image), *gradients))


@pytest.mark.parametrize("weighting", ["eq15", "inverse", "fixed"])
def test_weights_equal_the_formulas(weighting):
    losses = LossTerms(fusion=0.0, instance=0.7, consensus=2.5, kl=11.0)
    found = loss_weights(losses, BASE_WEIGHTS, weighting)
    for name, value in found.present().items():
        expected = oracle.term_weight(getattr(losses, name), getattr(BASE_WEIGHTS, name), weighting)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    high = loss_weights(LossTerms(*(1e4 for _ in losses.present())), BASE_WEIGHTS, weighting)
    limit = LossTerms(0.0, 0.0, 0.0, 0.0) if weighting == "inverse" else BASE_WEIGHTS
    np.testing.assert_allclose(jax.tree.leaves(high), jax.tree.leaves(limit))


@pytest.mark.parametrize("weighting", ["eq15", "inverse", "fixed"])
def test_no_gradient_passes_through_the_weights(weighting):
    losses = LossTerms(0.3, 0.7, 1.1, 0.2)

    def total(losses):
        weights = loss_weights(losses, BASE_WEIGHTS, weighting)
        return sum(loss * weights.present()[name] for name, loss in losses.present().items())

    expected = loss_weights(losses, BASE_WEIGHTS, weighting)
    np.testing.assert_allclose(jax.tree.leaves(jax.grad(total)(losses)), jax.tree.leaves(expected), rtol=1e-6)


def test_a_sum_over_128_pairs_leaves_nothing_for_the_weights_to_do():
    rng = np.random.default_rng(6)
    image, text = random_embeddings(rng, 128), random_embeddings(rng, 128)
    weights = {
        reduction: loss_weights(terms_of(image, text, np.arange(128), True, reduction), BASE_WEIGHTS, "eq15")
        for reduction in ("sum", "mean")
    }
    np.testing.assert_allclose(jax.tree.leaves(weights["sum"]), jax.tree.leaves(BASE_WEIGHTS), rtol=1e-6)
    assert (np.array(jax.tree.leaves(weights["mean"])) < 0.95 * np.array(jax.tree.leaves(BASE_WEIGHTS))).all()


@pytest.mark.parametrize(
    ("contrast", "mask_same_image"),
    [
        pytest.param(Contrast(0.3, hardest=True), False, id="hardest", marks=pytest.mark.first_python),
        pytest.param(Contrast(0.3, hardest=False), True, id="all", marks=pytest.mark.first_python),
        pytest.param(Contrast(0.3, temperature=0.1), True, id="soft"),
        pytest.param(Contrast(scale=jnp.array([5.0, 6.0, 7.0])), True, id="infonce", marks=pytest.mark.first_python),
    ],
)
def test_blocks_equal_the_whole_similarity_in_value_and_gradient(contrast, mask_same_image):
    """On one device and on four. Repeated pictures make ties, whose gradient is shared out alike."""
    batch = 60
    rng = np.random.default_rng(3)
    sides = [random_embeddings(rng, batch) for _ in range(2)]
    index = rng.integers(0, 40, batch).astype(np.int32)
    sides[0] = jax.tree.map(lambda x: x[index], sides[0])

    def of(num_devices, block):
        split = by_batch(make_mesh(jax.devices()[:num_devices]))

        def value(image, text, index):
            options = {"mask_same_image": mask_same_image, "reduction": "sum"}
            terms, _ = loss_terms(image, text, index, contrast, **options, similarity_block=block)
            return sum(jax.tree.leaves(terms)), terms

        compiled = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True), in_shardings=split)
        return compiled(*jax.device_put((*sides, index), split))

    (_, wanted), wanted_gradients = of(1, 0)
    for num_devices, block in ((1, 3), (4, 12)):
        (_, terms), gradients = of(num_devices, block)
        np.testing.assert_allclose(jax.tree.leaves(terms), jax.tree.leaves(wanted), rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), gradients, wanted_gradients)
        assert all(np.any(np.asarray(gradient.fused)) for gradient in gradients)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_blocks_never_hold_the_whole_similarity(num_devices):
    """As the compiler counts the bytes of a device, forward and backward."""
    batch, dim, block = 4096, 16, 128
    mesh = make_mesh(jax.devices()[:num_devices])

    def temporary(block):
        def value(image, text, index):
            options = {"mask_same_image": True, "reduction": "sum"}
            sides = (Embeddings(x, x, x, x) for x in (image, text))
            losses, _ = loss_terms(*sides, index, Contrast(temperature=0.05), **options, similarity_block=block)
            return sum(jax.tree.leaves(losses))

        shapes = [jax.ShapeDtypeStruct((batch, dim), np.float32)] * 2 + [jax.ShapeDtypeStruct((batch,), np.int32)]
        compiled = jax.jit(jax.grad(value, argnums=(0, 1)), in_shardings=by_batch(mesh)).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = 4 * batch * batch // num_devices
    assert temporary(block) < whole / 4 < whole < temporary(0)
