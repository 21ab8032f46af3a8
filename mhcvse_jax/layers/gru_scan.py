"""A bidirectional GRU in one scan, for accelerators: both directions at once, with as little as possible in the loop.

The input's products come before the loop. The weights' gradients come after it, as one product over all words;
automatic differentiation of the scan would add up an entire kernel at every word.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mhcvse_jax.layers.gru_cell import Gates, GRUWeights, gru_step, gru_step_gradient


def bi_gru_scan(
    directions: Sequence[GRUWeights],
    words: jax.Array,
    mask: jax.Array,
    recurrence: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Returns the states of both directions <float32>[2, batch, words, D], zero at padding.

    Args:
      directions: forward and backward.
      words: <dtype>[batch, words, width].
      mask: <bool>[batch, words], false at padding, which stands at the end.
      recurrence: another way to take the steps; None: a scan.
    """
    input_kernel, input_bias, hidden_kernel, hidden_bias = (jnp.stack(pair) for pair in zip(*directions, strict=True))
    in_time = jnp.swapaxes(words, 0, 1)
    # A state is kept at zero while there is padding, so the backward direction starts at the last word.
    both = jnp.stack([in_time, jnp.flip(in_time, 0)], axis=1)
    both_mask = jnp.stack([mask.T, jnp.flip(mask.T, 0)], axis=1)
    from_input = jnp.einsum("tgbe,gef->tgbf", both, input_kernel) + input_bias[:, None]
    states = (recurrence or _recurrence)(from_input, both_mask, hidden_kernel, hidden_bias[:, None])
    forward, backward = jnp.unstack(states, axis=1)
    return jnp.swapaxes(jnp.stack([forward, jnp.flip(backward, 0)]), 1, 2)


@jax.custom_vjp
def _recurrence(from_input: jax.Array, mask: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns the states <float32>[words, 2, batch, D] from W_i x + b_i <dtype>[words, 2, batch, 3 D]."""
    return _forward(from_input, mask, kernel, bias)[0]


def _forward(from_input, mask, kernel, bias):
    def step(h, now):
        from_word, is_word = now
        from_hidden = jnp.einsum("gbd,gdf->gbf", h.astype(kernel.dtype), kernel)
        h_next, gates = gru_step(from_word, from_hidden, bias, h)
        h_next = jnp.where(is_word[..., None], h_next, 0.0)
        return h_next, (h_next, gates)

    start = jnp.zeros((*from_input.shape[1:3], kernel.shape[1]), jnp.float32)
    _, (states, gates) = jax.lax.scan(step, start, (from_input, mask))
    return states, (states, gates, mask, kernel)


def _backward(saved, gradient):
    states, gates, mask, kernel = saved
    before = _before(states)

    def step(of_next, now):
        of_state, gates, is_word, h = now
        of_next = jnp.where(is_word[..., None], of_next + of_state, 0.0)
        of_input, of_hidden, passed_on = gru_step_gradient(of_next, Gates(*gates), h)
        of_input, of_hidden = of_input.astype(kernel.dtype), of_hidden.astype(kernel.dtype)
        through = jnp.einsum("gbf,gdf->gbd", of_hidden, kernel)
        return passed_on + through, (of_input, of_hidden)

    _, (of_input, of_hidden) = jax.lax.scan(
        step, jnp.zeros_like(states[0]), (gradient, gates, mask, before), reverse=True
    )
    return of_input, None, *weight_gradients(states, of_hidden)


_recurrence.defvjp(_forward, _backward)


def weight_gradients(states: jax.Array, of_hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients <dtype>[2, D, 3 D] of the hidden kernels and <dtype>[2, 1, D] of their biases.

    Args:
      states: <float32>[words, 2, batch, D] as the recurrence returned them.
      of_hidden: <dtype>[words, 2, batch, 3 D] the gradient of W_h h.
    """
    before = _before(states).astype(of_hidden.dtype)
    of_bias = jnp.sum(of_hidden[..., -states.shape[-1] :], axis=(0, 2))[:, None]
    return jnp.einsum("tgbd,tgbf->gdf", before, of_hidden), of_bias


def _before(states: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])
