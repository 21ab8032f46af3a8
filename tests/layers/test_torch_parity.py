"""Our layers against PyTorch's, whose arrays lie in `golden/`: so the test needs no torch."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from mhcvse_jax.layers.self_attention import SelfAttention
from mhcvse_jax.layers.text_gru import TextGRU, word_mask


@pytest.fixture(scope="module")
def golden():
    with np.load(pathlib.Path(__file__).parents[1] / "golden" / "torch_layers.npz") as arrays:
        return dict(arrays)


def part(golden, prefix):
    return {name.removeprefix(prefix): array for name, array in golden.items() if name.startswith(prefix)}


def gru_cell(weights, suffix):
    """Flax's parameters of a direction: torch stacks the rows of r, z, n and has two biases for each."""
    dim = weights["weight_hh_l0"].shape[1]
    thirds = {
        name: np.split(weights[f"{name}_l0{suffix}"], 3) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    cell = {"hn": {"kernel": thirds["weight_hh"][2].T, "bias": thirds["bias_hh"][2]}}
    for i, gate in enumerate("rzn"):
        bias = thirds["bias_ih"][i] + (thirds["bias_hh"][i] if gate != "n" else np.zeros(dim, np.float32))
        cell[f"i{gate}"] = {"kernel": thirds["weight_ih"][i].T, "bias": bias}
        cell.setdefault(f"h{gate}", {"kernel": thirds["weight_hh"][i].T})
    return cell


@pytest.mark.parametrize("kind", ["plain", "scan", "packed"])
def test_text_gru(golden, kind):
    gru = part(golden, "gru/")
    batch, words, width = gru["inputs"].shape
    layer = TextGRU(batch * words, width, gru["weight_hh_l0"].shape[1], 0.0, kind, jnp.float32)
    cells = {oracle.FORWARD: gru_cell(gru, ""), oracle.BACKWARD: gru_cell(gru, "_reverse")}
    tokens = np.arange(batch * words).reshape(batch, words)  # each word of the inputs has its own vector

    def encode(inputs):
        params = cells | {"embed": {"embedding": inputs.reshape(-1, width)}}
        return layer.apply({"params": params}, tokens, gru["lengths"], train=False)

    outputs, pull_back = jax.vjp(jax.jit(encode), gru["inputs"])
    np.testing.assert_allclose(outputs, gru["outputs"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(pull_back(gru["cotangent"])[0], gru["gradient"], rtol=1e-5, atol=1e-5)
    assert np.abs(gru["gradient"]).max() > 0.1


def test_self_attention(golden):
    attention = part(golden, "attention/")
    dim, heads = attention["inputs"].shape[-1], 2
    layer = SelfAttention(heads, "unit", residual=False, dropout_rate=0.0, dtype=jnp.float32)
    kernels, biases = np.split(attention["in_proj_weight"], 3), np.split(attention["in_proj_bias"], 3)
    params = {
        name: {"kernel": kernel.T.reshape(dim, heads, -1), "bias": bias.reshape(heads, -1)}
        for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True)
    }
    params["out"] = {
        "kernel": attention["out_proj.weight"].T.reshape(heads, -1, dim),
        "bias": attention["out_proj.bias"],
    }
    mask = word_mask(attention["lengths"], attention["inputs"].shape[1])

    def attend(inputs):
        return layer.apply({"params": {"attention": params}}, inputs, mask, train=False)

    outputs, pull_back = jax.vjp(jax.jit(attend), attention["inputs"])
    np.testing.assert_allclose(outputs, attention["outputs"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull_back(attention["cotangent"])[0], attention["gradient"], rtol=1e-5, atol=1e-5)
    assert np.abs(attention["gradient"]).max() > 0.1


def test_committed_arrays_are_what_torch_computes(golden):
    pytest.importorskip("torch")
    from golden import make_golden

    found = make_golden.compute()
    assert found.keys() == golden.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, golden[name], rtol=1e-5, atol=1e-6, err_msg=name)
