"""One step of a GRU and its gradient, gates fused: what the fast recurrences are made of.

The equations are those of `flax.linen.GRUCell` (and of cuDNN and PyTorch), and so are the parameters:

    r = sigmoid(W_ir x + b_ir + W_hr h)     n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))
    z = sigmoid(W_iz x + b_iz + W_hz h)     h' = (1 - z) * n + z * h
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class GRUWeights(NamedTuple):
    """The parameters of a direction; the gates r, z, n stand side by side."""

    input_kernel: jax.Array  # <dtype>[width, 3 D]
    input_bias: jax.Array  # <dtype>[3 D]
    hidden_kernel: jax.Array  # <dtype>[D, 3 D]
    hidden_bias: jax.Array  # <dtype>[D], of n alone


class Gates(NamedTuple):
    """What the gradient of a step needs, each <dtype>[..., D]."""

    r: jax.Array
    z: jax.Array
    n: jax.Array
    hidden: jax.Array  # W_hn h + b_hn


def fuse_gates(cell: Any, dtype: jnp.dtype) -> GRUWeights:
    """Returns the parameters of a `flax.linen.GRUCell`, {ir, iz, in, hr, hz, hn}, as four arrays."""

    def side_by_side(prefix: str, name: str) -> jax.Array:
        return jnp.concatenate([cell[prefix + gate][name] for gate in "rzn"], axis=-1).astype(dtype)

    return GRUWeights(
        side_by_side("i", "kernel"),
        side_by_side("i", "bias"),
        side_by_side("h", "kernel"),
        cell["hn"]["bias"].astype(dtype),
    )


def gru_step(from_input: jax.Array, from_hidden: jax.Array, bias: jax.Array, h: jax.Array) -> tuple[jax.Array, Gates]:
    """Returns the next state <float32>[..., D] and the gates.

    Args:
      from_input: <dtype>[..., 3 D], W_i x + b_i.
      from_hidden: <dtype>[..., 3 D], W_h h.
      bias: <dtype>[D], b_hn.
      h: <float32>[..., D], the state before.
    """
    return gates_and_state(jnp.split(from_input, 3, axis=-1), jnp.split(from_hidden, 3, axis=-1), bias, h)


def gates_and_state(
    from_input: Sequence[jax.Array], from_hidden: Sequence[jax.Array], bias: jax.Array, h: jax.Array
) -> tuple[jax.Array, Gates]:
    """Returns what `gru_step` does, from the parts of r, z and n one by one, each [..., D]."""
    (r, z, n), (hidden_r, hidden_z, hidden) = from_input, from_hidden
    r, z, hidden = jax.nn.sigmoid(r + hidden_r), jax.nn.sigmoid(z + hidden_z), hidden + bias
    n = jnp.tanh(n + r * hidden)
    return (1 - z) * n + z * h, Gates(r, z, n, hidden)


def gru_step_gradient(gradient: jax.Array, gates: Gates, h: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of a step's `from_input`, of its `from_hidden`, and of h where z passes it on.

    All of h's gradient is the third plus the second times the transposed hidden kernel.

    Args:
      gradient: <float32>[..., D], the gradient of the next state.
      gates: the gates of the step.
      h: <float32>[..., D], the state before.
    """
    of_input, of_hidden, passed_on = gate_gradients(gradient, Gates(*(gate.astype(jnp.float32) for gate in gates)), h)
    return jnp.concatenate(of_input, axis=-1), jnp.concatenate(of_hidden, axis=-1), passed_on


def gate_gradients(
    gradient: jax.Array, gates: Gates, h: jax.Array
) -> tuple[Sequence[jax.Array], Sequence[jax.Array], jax.Array]:
    """Returns what `gru_step_gradient` does, for r, z and n one by one, each [..., D]."""
    r, z, n, hidden = gates
    of_z = gradient * (h - n) * z * (1 - z)
    of_n = gradient * (1 - z) * (1 - n * n)
    of_r = of_n * hidden * r * (1 - r)
    return (of_r, of_z, of_n), (of_r, of_z, of_n * r), gradient * z
