"""Where a consensus module begins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mhcvse_jax.layers.consensus import Consensus

BATCH, CONCEPTS, DIM = 5, 11, 7


@pytest.mark.parametrize("start", ["zero", "random"])
def test_at_zero_all_concepts_count_alike_and_the_scores_still_learn(start):
    rng = np.random.default_rng(0)
    instance = rng.normal(size=(BATCH, DIM)).astype(np.float32)
    concepts = rng.normal(size=(CONCEPTS, DIM)).astype(np.float32)
    layer = Consensus("layer", 10.0, jnp.dtype("float32"), start)
    variables = jax.jit(functools.partial(layer.init, train=True))(jax.random.key(0), instance, concepts, None, 0.0)

    def of_first_concept(params):
        _, distribution = layer.apply({"params": params}, instance, concepts, None, 0.0, train=True)
        return jnp.sum(distribution[:, 0]), distribution

    (_, distribution), gradient = jax.jit(jax.value_and_grad(of_first_concept, has_aux=True))(variables["params"])
    uniform = np.allclose(distribution, 1 / CONCEPTS, atol=1e-6)
    assert uniform == (start == "zero")
    assert np.abs(gradient["weight"]).max() > 1e-2
