"""The fast ways to compute the attention against Flax's module: values, gradients, entropy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mhcvse_jax.layers.fusion import Fusion
from mhcvse_jax.layers.pooling import mean_pool
from mhcvse_jax.layers.self_attention import SelfAttention, attention_entropy

BATCH, ELEMENTS, DIM, HEADS = 3, 7, 26, 2
MASKS = {"regions": None, "words": np.arange(ELEMENTS) < np.array([7, 1, 4])[:, None]}


def attention(form="scaled", residual=False, dropout_rate=0.0, dtype="float32", start="random"):
    return SelfAttention(HEADS, form, residual, dropout_rate, jnp.dtype(dtype), start)


def problem(layer):
    rng = np.random.default_rng(3)
    elements = rng.normal(size=(BATCH, ELEMENTS, DIM)).astype(np.float32)
    elements /= np.linalg.norm(elements, axis=-1, keepdims=True)
    variables = layer.init(jax.random.key(0), elements, None, train=False)
    noisy = jax.tree.map(lambda x: 3 * x + 0.5 * rng.normal(size=x.shape).astype(np.float32), variables)
    return noisy["params"], elements, rng.normal(size=(BATCH, DIM)).astype(np.float32)


def values_and_gradients(function, params, elements, cotangent):
    @jax.jit
    def run(params, elements):
        values, pull_back = jax.vjp(function, params, elements)
        return values, pull_back(cotangent)

    return run(params, elements)


def assert_close(found, expected, atol):
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert size > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol * size), found, expected)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(
    ("form", "residual", "start"), [("scaled", False, "random"), ("layer_norm", True, "random"), ("unit", True, "gate")]
)
def test_pooled_is_the_mean_of_all(kind, form, residual, start):
    layer, mask = attention(form, residual, start=start), MASKS[kind]
    params, elements, cotangent = problem(layer)

    def mean_of_all(params, x):
        return mean_pool(layer.apply({"params": params}, x, mask, train=False), mask)

    def pooled(params, x):
        return layer.apply({"params": params}, x, mask, train=False, pooled=True)

    expected = values_and_gradients(mean_of_all, params, elements, cotangent)
    assert_close(values_and_gradients(pooled, params, elements, cotangent), expected, atol=2e-6)


@pytest.mark.parametrize("kind", MASKS)
def test_entropy_is_that_of_flax(kind):
    layer = attention()
    params, elements, _ = problem(layer)

    @functools.partial(jax.jit, static_argnums=0)
    def entropy(pooled):
        _, updated = layer.apply(
            {"params": params}, elements, MASKS[kind], train=False, pooled=pooled, mutable=["intermediates"]
        )
        return attention_entropy({"image_attention": updated["intermediates"]})["image_attention"]

    np.testing.assert_allclose(entropy(True), entropy(False), rtol=1e-5)
    assert entropy(False) < 0.95


def test_pooled_drops_weights_by_their_rate():
    layer = attention(dropout_rate=0.4)
    params, elements, _ = problem(layer)

    def dropped(key):
        return layer.apply({"params": params}, elements, None, train=True, pooled=True, rngs={"dropout": key})

    keys = jax.random.split(jax.random.key(1), 4096)
    found = jax.jit(jax.vmap(dropped))(keys)
    expected = layer.apply({"params": params}, elements, None, train=False, pooled=True)
    spread = np.std(found, axis=0)
    assert spread.min() > 1e-3
    np.testing.assert_array_less(np.abs(np.mean(found, axis=0) - expected), 5 * spread / np.sqrt(len(keys)))


@pytest.mark.parametrize("kind", MASKS)
def test_what_cudnn_is_asked_for(kind, monkeypatch):
    """By XLA's implementation of the same call, since cuDNN needs a GPU: equal to Flax within bfloat16."""
    exact, layer, mask = attention(), attention(dtype="bfloat16"), MASKS[kind]
    params, elements, cotangent = problem(exact)

    def mean_of_all(layer, params, x):
        attended, updated = layer.apply({"params": params}, x, mask, train=False, mutable=["intermediates"])
        return mean_pool(attended, mask), attention_entropy({"image_attention": updated["intermediates"]})

    def run(layer):
        def values(params, x):
            return mean_of_all(layer, params, x)[0]

        entropy = jax.jit(functools.partial(mean_of_all, layer))(params, elements)[1]
        return values_and_gradients(values, params, elements, cotangent), entropy["image_attention"]

    expected, entropy = run(exact)
    called = []

    def by_xla(*args, implementation, **kwargs):
        called.append(implementation)
        return original(*args, implementation="xla", **kwargs)

    original = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    monkeypatch.setattr(SelfAttention, "_by_cudnn", lambda self, elements, train: True)
    found, found_entropy = run(layer)
    assert set(called) == {"cudnn"}
    assert_close(found, expected, atol=0.05)
    np.testing.assert_allclose(found_entropy, entropy, atol=0.02)


def test_where_cudnn_is_asked(monkeypatch):
    def by_cudnn(layer, dim=64, train=True, elements=4):
        return layer._by_cudnn(jnp.zeros((1, elements, dim)), train)

    assert not by_cudnn(attention(dtype="bfloat16"))  # there is no GPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert by_cudnn(attention(dtype="bfloat16"))
    assert not by_cudnn(attention())
    assert not by_cudnn(attention(dtype="bfloat16"), dim=26)
    assert not by_cudnn(attention(dtype="bfloat16", dropout_rate=0.1))
    assert by_cudnn(attention(dtype="bfloat16", dropout_rate=0.1), train=False)
    assert not by_cudnn(attention(dtype="bfloat16"), elements=5)  # it has no gradient of odd lengths
    assert by_cudnn(attention(dtype="bfloat16"), elements=5, train=False)
    scattered = attention(dtype="bfloat16").clone(masks_are_prefixes=False)  # elements were left out at random
    assert not by_cudnn(scattered)
    assert by_cudnn(scattered, train=False)


def test_a_start_at_zero_hands_elements_on_as_they_came():
    _, elements, _ = problem(attention())
    for start, same in (("zero", True), ("gate", True), ("random", False)):
        layer = SelfAttention(HEADS, "scaled", True, 0.0, jnp.dtype("float32"), start)
        variables = layer.init(jax.random.key(0), elements, None, train=False)
        found = jax.jit(functools.partial(layer.apply, train=False))(variables, elements, None)
        difference = np.abs(found - elements * np.sqrt(DIM)).max()
        assert difference < 1e-6 if same else difference > 0.1


def test_a_start_as_fixed_sum_is_that_sum():
    rng = np.random.default_rng(0)
    instance, consensus = rng.normal(size=(2, BATCH, DIM)).astype(np.float32)
    for start, same in (("fixed_sum", True), ("random", False)):
        layer = Fusion("weight_sum", 0.7, jnp.dtype("float32"), start)
        found = layer.apply(layer.init(jax.random.key(0), instance, consensus), instance, consensus)
        expected = 0.7 * instance + 0.3 * consensus
        difference = np.abs(found - expected / np.linalg.norm(expected, axis=1, keepdims=True)).max()
        assert difference < 1e-6 if same else difference > 0.01
