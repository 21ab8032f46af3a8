"""A bidirectional GRU that does not compute padding, for CPUs.

A batch is as long as its longest caption, which is more than twice the mean. Here the captions are sorted by
length, and the loop over the words runs in phases. Each phase has a fixed number of rows, the first of the sorted
captions, and a range of words that depends on the lengths. So shapes are static, the computed rows follow the lengths,
and a batch may have any composition. Products over all words take blocks of rows, as many as there are words.

On a GPU such loops wait for the host at each word, and a shorter row does not shorten the chain: `gru_scan`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mhcvse_jax.layers.gru_cell import Gates, GRUWeights, gru_step, gru_step_gradient

PHASES = (1, 1 / 2, 1 / 4, 1 / 12)  # of the rows: about 1.2 rows computed per real word
BLOCK = 512  # rows of a product


class _Packing(NamedTuple):
    """The captions by falling length, and where their words stand when padding is left out."""

    order: jax.Array  # <int32>[batch] captions by falling length
    lengths: jax.Array  # <int32>[batch] in this order
    num_words: jax.Array  # <int32> of the whole batch
    pack: jax.Array  # <int32>[capacity] word -> its place in [words, batch]; past the end where there is none
    unpack: jax.Array  # <int32>[words * batch] the inverse


def _packing(lengths: jax.Array, max_length: int) -> _Packing:
    order = jnp.argsort(-lengths)
    lengths = lengths[order]
    is_word = (jnp.arange(max_length)[:, None] < lengths).reshape(-1)
    pack = jnp.argsort(~is_word)
    missing = -len(pack) % min(BLOCK, len(pack))
    padded = jnp.concatenate([pack, jnp.full(missing, len(pack))])
    return _Packing(order, lengths, jnp.sum(lengths), padded, jnp.argsort(pack))


@jax.custom_vjp
def bi_gru_packed(directions: Sequence[GRUWeights], words: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns the states of both directions <float32>[2, batch, words, D], zero at padding.

    Args:
      directions: forward and backward.
      words: <dtype>[batch, words, width].
      lengths: <int32>[batch], 1 or more.
    """
    return _forward(directions, words, lengths)[0]


def _forward(directions, words, lengths):
    batch, max_length, _ = words.shape
    packing = _packing(lengths, max_length)
    packed = _take(_in_time(words, packing), packing.pack)
    states, gates = [], []
    for weights, backwards in zip(directions, (False, True), strict=True):
        from_input = _product(packed, weights.input_kernel, packing.num_words)[packing.unpack]
        from_input = from_input.reshape(max_length, batch, -1) + weights.input_bias
        found = _recurrence(from_input, weights, packing.lengths, backwards)
        states.append(found[0])
        gates.append(found[1])
    is_word = (jnp.arange(max_length)[:, None] < packing.lengths)[..., None]
    result = jnp.stack([_as_given(jnp.where(is_word, state, 0.0), packing) for state in states])
    return result, (directions, packed, packing, states, gates)


def _backward(saved, gradient):
    directions, packed, packing, all_states, all_gates = saved
    max_length, batch, dim = all_states[0].shape
    of_directions, of_packed = [], jnp.zeros_like(packed)
    for weights, states, gates, of_states, backwards in zip(
        directions, all_states, all_gates, gradient, (False, True), strict=True
    ):
        nothing = jnp.zeros_like(states[:1])
        before = jnp.concatenate([states[1:], nothing] if backwards else [nothing, states[:-1]])
        of_states = _in_time(of_states, packing)
        of_input, of_hidden = (
            _take(part, packing.pack)
            for part in _recurrence_gradient(of_states, gates, before, weights, packing.lengths, backwards)
        )
        before = _take(before.astype(packed.dtype), packing.pack)
        of_directions.append(
            GRUWeights(
                _transposed_product(packed, of_input, packing.num_words),
                jnp.sum(of_input, axis=0),
                _transposed_product(before, of_hidden, packing.num_words),
                jnp.sum(of_hidden[:, 2 * dim :], axis=0),
            )
        )
        of_packed += _product(of_input, weights.input_kernel.T, packing.num_words)
    of_words = _as_given(of_packed[packing.unpack].reshape(max_length, batch, -1), packing)
    return type(directions)(of_directions), of_words, None


bi_gru_packed.defvjp(_forward, _backward)


def _in_time(x: jax.Array, packing: _Packing) -> jax.Array:
    """Returns [words, batch, ...], captions sorted, from [batch, words, ...]."""
    return jnp.swapaxes(x[packing.order], 0, 1)


def _as_given(x: jax.Array, packing: _Packing) -> jax.Array:
    return jnp.swapaxes(x, 0, 1)[jnp.argsort(packing.order)]


def _take(x: jax.Array, places: jax.Array) -> jax.Array:
    """Returns rows of [words, batch, ...] by place; zeros past the end."""
    return jnp.take(x.reshape(-1, x.shape[-1]), places, axis=0, mode="fill", fill_value=0)


class _Phase(NamedTuple):
    rows: int
    start: jax.Array | int  # first word
    stop: jax.Array  # the word after the last


def _phases(lengths: jax.Array) -> list[_Phase]:
    """Returns the phases from the first word to the last: all rows, then as many as may still have words."""
    sizes = sorted({max(round(share * len(lengths)), 1) for share in PHASES}, reverse=True)
    stops = [lengths[size] for size in sizes[1:]] + [lengths[0]]  # the longest of those that are left out next
    return [_Phase(*phase) for phase in zip(sizes, [0, *stops[:-1]], stops, strict=True)]


def _recurrence(from_input, weights: GRUWeights, lengths, backwards: bool):
    """Returns states <float32>[words, batch, D] and gates; what stands at padding is undefined, but finite."""
    max_length, batch, _ = from_input.shape
    dim = weights.hidden_bias.shape[0]
    states = jnp.zeros((max_length, batch, dim), jnp.float32)
    gates = Gates(*(jnp.zeros((max_length, batch, dim), from_input.dtype) for _ in Gates._fields))
    h = states[0]
    for phase in reversed(_phases(lengths)) if backwards else _phases(lengths):

        def step(i, carry, phase=phase):
            h, states, gates = carry
            word = phase.stop - 1 - (i - phase.start) if backwards else i
            from_hidden = h.astype(weights.hidden_kernel.dtype) @ weights.hidden_kernel
            h, now = gru_step(_get(from_input, word, phase.rows), from_hidden, weights.hidden_bias, h)
            if backwards:  # a caption starts at its own last word
                h = jnp.where((word < lengths[: phase.rows])[:, None], h, 0.0)
            return h, _put(states, h, word), Gates(*map(_put, gates, now, [word] * len(now)))

        h, states, gates = jax.lax.fori_loop(phase.start, phase.stop, step, (_resize(h, phase.rows), states, gates))
    return states, gates


def _recurrence_gradient(of_states, gates: Gates, before, weights: GRUWeights, lengths, backwards: bool):
    """Returns the gradients of W_i x + b_i and of W_h h, <dtype>[words, batch, 3 D] each, zero at padding."""
    max_length, batch, dim = of_states.shape
    of_input = of_hidden = jnp.zeros((max_length, batch, 3 * dim), weights.hidden_kernel.dtype)
    of_next = jnp.zeros((batch, dim), jnp.float32)
    for phase in _phases(lengths) if backwards else reversed(_phases(lengths)):

        def step(i, carry, phase=phase):
            of_next, of_input, of_hidden = carry
            word = i if backwards else phase.stop - 1 - (i - phase.start)
            # At padding nothing comes from outside; forward nothing has come from later words either.
            is_word = (word < lengths[: phase.rows])[:, None]
            of_next = jnp.where(is_word, of_next + _get(of_states, word, phase.rows), 0.0)
            now = Gates(*(_get(gate, word, phase.rows) for gate in gates))
            now_input, now_hidden, passed_on = gru_step_gradient(of_next, now, _get(before, word, phase.rows))
            now_hidden = now_hidden.astype(of_hidden.dtype)
            of_next = passed_on + now_hidden @ weights.hidden_kernel.T
            return of_next, _put(of_input, now_input.astype(of_input.dtype), word), _put(of_hidden, now_hidden, word)

        carry = (_resize(of_next, phase.rows), of_input, of_hidden)
        of_next, of_input, of_hidden = jax.lax.fori_loop(phase.start, phase.stop, step, carry)
    return of_input, of_hidden


def _get(x: jax.Array, word: jax.Array, rows: int) -> jax.Array:
    return jax.lax.dynamic_slice(x, (word, 0, 0), (1, rows, x.shape[2]))[0]


def _put(x: jax.Array, value: jax.Array, word: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(x, value[None], (word, 0, 0))


def _resize(h: jax.Array, rows: int) -> jax.Array:
    """Returns the first rows; zeros where there are not as many."""
    return h[:rows] if len(h) >= rows else jnp.pad(h, ((0, rows - len(h)), (0, 0)))


def _blocks(rows: int, num_words: jax.Array) -> tuple[int, jax.Array]:
    block = min(BLOCK, rows)
    return block, -(-num_words // block)


def _product(x: jax.Array, kernel: jax.Array, num_words: jax.Array) -> jax.Array:
    """Returns x @ kernel for the first `num_words` rows of x, of which there are whole blocks; some more rows."""
    block, num_blocks = _blocks(len(x), num_words)

    def multiply(i, result):
        rows = jax.lax.dynamic_slice_in_dim(x, i * block, block)
        return jax.lax.dynamic_update_slice_in_dim(result, rows @ kernel, i * block, 0)

    return jax.lax.fori_loop(0, num_blocks, multiply, jnp.zeros((len(x), kernel.shape[1]), x.dtype))


def _transposed_product(x: jax.Array, y: jax.Array, num_words: jax.Array) -> jax.Array:
    """Returns x^T @ y over the first `num_words` rows; y is zero beyond."""
    block, num_blocks = _blocks(len(x), num_words)

    def add(i, result):
        rows_x, rows_y = (jax.lax.dynamic_slice_in_dim(part, i * block, block) for part in (x, y))
        return result + jnp.matmul(rows_x.T, rows_y, preferred_element_type=jnp.float32)

    zero = jnp.zeros((x.shape[1], y.shape[1]), jnp.float32)
    return jax.lax.fori_loop(0, num_blocks, add, zero).astype(x.dtype)
