"""The fast ways to compute the GRU against `flax.linen.RNN`: states and every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mhcvse_jax.errors import InputError
from mhcvse_jax.layers import gru_packed, gru_pallas
from mhcvse_jax.layers.gru_pallas import Tiles, tiles_of_gpu
from mhcvse_jax.layers.text_gru import TextGRU, choose_gru

VOCABULARY, WORD_DIM, DIM = 29, 7, 11
LENGTHS = {
    "mixed": ([3, 13, 1, 5, 5, 2, 8, 1, 3, 4, 2, 6, 1, 1, 2, 3, 9], 13),
    "all padded": ([2, 5, 3], 11),
    "one caption": ([4], 5),
}


def encoder(gru, dtype="float32", dropout_rate=0.0):
    return TextGRU(VOCABULARY, WORD_DIM, DIM, dropout_rate, gru, jnp.dtype(dtype))


@functools.cache
def problem(case):
    lengths, words = LENGTHS[case]
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, VOCABULARY, (len(lengths), words)).astype(np.int32)
    cotangent = rng.normal(size=(len(lengths), words, DIM)).astype(np.float32)
    lengths = np.array(lengths, np.int32)
    variables = jax.jit(functools.partial(encoder("plain").init, train=False))(jax.random.key(2), tokens, lengths)
    # Biases are zero in a fresh cell, which would hide a wrong one.
    noisy = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), variables)
    return noisy, tokens, lengths, cotangent


def compiled(function, *args):
    return jax.jit(function).lower(*args).compile()(*args)


def states_and_gradients_of(model, variables, tokens, lengths, cotangent):
    states, pull_back = jax.vjp(lambda v: model.apply(v, tokens, lengths, train=False), variables)
    return states, pull_back(cotangent)[0]


def states_and_gradients(model, *arguments):
    return compiled(functools.partial(states_and_gradients_of, model), *arguments)  # lengths traced, as in a step


@functools.cache
def expected(case):
    return states_and_gradients(encoder("plain"), *problem(case))


def assert_close(found, expected, *, atol):
    def compare(path, a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * np.abs(b).max(), err_msg=jax.tree_util.keystr(path))
        assert np.abs(b).max() > 1e-3

    jax.tree_util.tree_map_with_path(compare, found, expected)


@pytest.mark.parametrize("case", LENGTHS)
@pytest.mark.parametrize("gru", ["scan", "packed", "pallas"])
def test_equal_to_plain(gru, case, monkeypatch):
    monkeypatch.setattr(gru_packed, "BLOCK", 16)  # several blocks, the last not full
    monkeypatch.setattr(gru_pallas, "tiles", lambda batch, dim: Tiles(rows=8, columns=4, depth=2))  # likewise
    assert_close(states_and_gradients(encoder(gru), *problem(case)), expected(case), atol=3e-6)


@pytest.mark.parametrize("gru", ["plain", "scan", "packed", "pallas"])
def test_padding_does_not_matter(gru):
    variables, tokens, lengths, _ = problem("mixed")
    padding = np.arange(tokens.shape[1]) >= lengths[:, None]
    longer = np.pad(np.where(padding, 3, tokens), ((0, 0), (0, 4)), constant_values=5)
    states = compiled(functools.partial(encoder(gru).apply, train=False), variables, longer, lengths)
    assert not np.any(states[:, tokens.shape[1] :])
    assert not np.any(states[:, : tokens.shape[1]][padding])
    np.testing.assert_allclose(states[:, : tokens.shape[1]], expected("mixed")[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("gru", ["scan", "packed", "pallas"])
def test_equal_in_bfloat16(gru):
    """Within what eight bits of mantissa leave after 13 words; states stay float32 between the words."""
    found = states_and_gradients(encoder(gru, "bfloat16"), *problem("mixed"))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    assert_close(found, expected("mixed"), atol=0.05)


def test_the_same_parameters_and_dropout():
    _, tokens, lengths, _ = problem("mixed")
    models = [encoder(gru, dropout_rate=0.5) for gru in ("plain", "scan", "packed", "pallas", "auto")]

    def run(key, tokens, lengths):
        fresh = [model.init(key, tokens, lengths, train=False) for model in models]
        keys = {"dropout": key}
        return fresh, [model.apply(fresh[0], tokens, lengths, train=True, rngs=keys) for model in models]

    fresh, dropped = compiled(run, jax.random.key(7), tokens, lengths)
    for other in fresh[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, fresh[0])
    for states in dropped[1:]:
        np.testing.assert_allclose(states, dropped[0], rtol=0, atol=1e-6)
    assert np.abs(dropped[0]).max() > 0.1


def test_automatic_choice(monkeypatch):
    assert choose_gru("scan") == "scan"
    assert choose_gru("auto") == "scan"  # tests run with eight devices
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert choose_gru("auto") == "packed"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_gru("auto") == "scan"


@pytest.mark.parametrize(("batch", "dim"), [(128, 1024), (512, 1024), (17, 11), (128, 272)])
def test_all_programs_of_a_kernel_fit_on_the_gpu_at_once(batch, dim):
    """Else those that run would wait for ever for those that do not."""
    found = tiles_of_gpu(batch, dim, 132)
    rows, columns = (-(-size // side) for size, side in ((batch, found.rows), (-(-dim // 64) * 64, found.columns)))
    assert 2 * rows * columns <= 132


def test_too_many_captions_for_a_kernel_are_refused():
    with pytest.raises(InputError, match="16384 captions at D 1024 need more programs than the GPU's 132 multi"):
        tiles_of_gpu(1 << 14, 1024, 132)


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="there its lowering compiles, by the plugin for CUDA")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_is_lowered_for_cuda(monkeypatch, dtype):
    """Both passes, by Triton's dialect, which knows sizes that are powers of two alone; D 11 is filled up."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    arguments = [jax.eval_shape(lambda x: x, array) for array in problem("mixed")]
    checks = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
    run = jax.jit(functools.partial(states_and_gradients_of, encoder("pallas", dtype)))
    text = jax.export.export(run, platforms=["cuda"], disabled_checks=checks)(*arguments).mlir_module()
    assert text.count("custom_call @__gpu$xla.gpu.triton") == 2
    assert "f64" not in text
