"""A bidirectional GRU that does not compute padding, for CPUs.

A batch is as long as its longest caption, which is more than twice the mean. Here the captions are sorted by
length, and the loop over the words runs in phases. Each phase has a fixed number of rows, the first of the sorted
captions, and a range of words that depends on the lengths. So shapes are static, the computed rows follow the lengths,
and a batch may have any composition. The backward direction starts at each caption's own last word, so both directions
run through the same phases, in the same loops. Products over all words take blocks of rows, as many as there are words.

On a GPU such loops wait for the host at each word, and a shorter row does not shorten the chain: `gru_scan`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mhcvse_jax.layers.gru_cell import Gates, GRUWeights, gru_step, gru_step_gradient

PHASES = (1, 1 / 2, 1 / 4, 1 / 12)  # of the rows: about 1.2 rows computed per real word
BLOCK = 512  # rows of a product


class _Places(NamedTuple):
    """Where each word stands: `a_from_b` has the shape of a, and says which row of b comes there; past the end: none.

    Given is [batch, words]; with both directions [2, batch, words]. Packed, [capacity], has one word after another
    without padding; with both [capacity, 2]. In time, [words, 2, batch], has the captions by falling length, and for
    the backward direction a caption's last word first.
    """

    lengths: jax.Array  # <int32>[batch], falling
    num_words: jax.Array  # <int32> of the whole batch
    packed_from_given: jax.Array  # <int32>[capacity]
    given_from_packed: jax.Array  # <int32>[batch, words]
    time_from_given: jax.Array  # <int32>[words, 2, batch], of both directions
    time_from_packed: jax.Array  # <int32>[words, 2, batch], of both directions
    given_from_time: jax.Array  # <int32>[2, batch, words]
    packed_from_time: jax.Array  # <int32>[2, capacity]


def _places(lengths: jax.Array, max_length: int) -> _Places:
    batch, word, direction = len(lengths), jnp.arange(max_length), jnp.arange(2)[:, None]
    size = batch * max_length
    capacity = size + -size % min(BLOCK, size)
    num_words = jnp.sum(lengths)
    # As given: [batch, words], and [2, batch, words].
    order = jnp.argsort(-lengths)
    is_word = word < lengths[:, None]
    packed = (jnp.cumsum(lengths) - lengths)[:, None] + word
    turn = jnp.stack(jnp.broadcast_arrays(word, lengths[:, None] - 1 - word))
    in_time = (2 * turn + direction[..., None]) * batch + jnp.argsort(order)[:, None]
    given_from_time = jnp.where(is_word, in_time, 2 * size)
    # Packed: [capacity]. A stable order by what is a word has the words first.
    given = jnp.pad(jnp.argsort(~is_word.reshape(-1)), (0, capacity - size))
    is_packed = jnp.arange(capacity) < num_words
    # In time: [words, 2, batch].
    falling, word = lengths[order], word[:, None]
    is_in_time = (word < falling)[:, None]
    turn = jnp.stack(jnp.broadcast_arrays(word, falling - 1 - word), axis=1)
    return _Places(
        lengths=falling,
        num_words=num_words,
        packed_from_given=jnp.where(is_packed, given, size),
        given_from_packed=jnp.where(is_word, packed, capacity),
        time_from_given=jnp.where(is_in_time, (direction * batch + order) * max_length + turn, 2 * size),
        time_from_packed=jnp.where(is_in_time, 2 * (packed[order, 0] + turn) + direction, 2 * capacity),
        given_from_time=given_from_time,
        packed_from_time=jnp.where(is_packed, given_from_time.reshape(2, -1)[:, given], 2 * size),
    )


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
    places, weights = _places(lengths, words.shape[1]), _side_by_side(directions)
    packed = _take(words, places.packed_from_given)
    from_input = _product(packed, weights.input_kernel, places.num_words)
    from_input = _take(from_input.reshape(-1, from_input.shape[1] // 2), places.time_from_packed) + weights.input_bias
    states, gates = _recurrence(from_input, weights, places.lengths)
    return _take(states[1:], places.given_from_time), (directions, packed, places, states, gates)


def _backward(saved, gradient):
    directions, packed, places, states, gates = saved
    weights = _side_by_side(directions)
    of_states = _take(gradient, places.time_from_given)
    of_input, of_hidden = (
        _take(part, places.packed_from_time) for part in _recurrence_gradient(of_states, gates, states, weights, places)
    )
    before = _take(states[:-1].astype(packed.dtype), places.packed_from_time)
    of_hidden_kernel = _transposed_product(before, of_hidden, places.num_words)
    of_hidden_bias = jnp.sum(of_hidden[..., 2 * states.shape[-1] :], axis=1)
    of_input_bias = jnp.sum(of_input, axis=1)
    of_input = jnp.concatenate(list(of_input), axis=1)
    of_input_kernel = jnp.split(_transposed_product(packed, of_input, places.num_words), 2, axis=1)
    of_packed = _product(of_input, weights.input_kernel.T, places.num_words)
    of_directions = map(GRUWeights, of_input_kernel, of_input_bias, of_hidden_kernel, of_hidden_bias)
    return type(directions)(of_directions), _take(of_packed, places.given_from_packed), None


bi_gru_packed.defvjp(_forward, _backward)


def _side_by_side(directions: Sequence[GRUWeights]) -> GRUWeights:
    """Returns both: kernels [width, 6 D] and [2, D, 3 D], biases [2, 1, 3 D] and [2, 1, D]."""
    input_kernels, input_biases, hidden_kernels, hidden_biases = zip(*directions, strict=True)
    return GRUWeights(
        jnp.concatenate(input_kernels, axis=1),
        jnp.stack(input_biases)[:, None],
        jnp.stack(hidden_kernels),
        jnp.stack(hidden_biases)[:, None],
    )


def _take(x: jax.Array, places: jax.Array) -> jax.Array:
    """Returns the rows of x <dtype>[..., width] by place, zeros past the end."""
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


def _recurrence(from_input, weights: GRUWeights, lengths):
    """Returns states <float32>[1 + words, 2, batch, D], zero before the first word, and gates [words, 2, batch, D].

    What stands at padding is undefined, but finite.
    """
    max_length, _, batch, _ = from_input.shape
    dim = weights.hidden_kernel.shape[1]
    states = jnp.zeros((1 + max_length, 2, batch, dim), jnp.float32)
    gates = Gates(*(jnp.zeros((max_length, 2, batch, dim), from_input.dtype) for _ in Gates._fields))
    h = states[0]
    for phase in _phases(lengths):

        def step(word, carry, phase=phase):
            h, states, gates = carry
            from_hidden = jnp.einsum("gbd,gdf->gbf", h.astype(weights.hidden_kernel.dtype), weights.hidden_kernel)
            h, now = gru_step(_get(from_input, word, phase.rows), from_hidden, weights.hidden_bias, h)
            return h, _put(states, h, word + 1), Gates(*map(_put, gates, now, [word] * len(now)))

        h, states, gates = jax.lax.fori_loop(phase.start, phase.stop, step, (h[:, : phase.rows], states, gates))
    return states, gates


def _recurrence_gradient(of_states, gates: Gates, states, weights: GRUWeights, places: _Places):
    """Returns the gradients of W_i x + b_i and of W_h h, <dtype>[words, 2, batch, 3 D] each, zero at padding."""
    max_length, _, batch, dim = of_states.shape
    of_input = of_hidden = jnp.zeros((max_length, 2, batch, 3 * dim), weights.hidden_kernel.dtype)
    of_next = jnp.zeros((2, 0, dim), jnp.float32)
    for phase in reversed(_phases(places.lengths)):

        def step(i, carry, phase=phase):
            of_next, of_input, of_hidden = carry
            word = phase.stop - 1 - (i - phase.start)
            of_next += _get(of_states, word, phase.rows)  # both are zero at padding, and so is what is made of them
            now = Gates(*(_get(gate, word, phase.rows) for gate in gates))
            now_input, now_hidden, passed_on = gru_step_gradient(of_next, now, _get(states, word, phase.rows))
            now_hidden = now_hidden.astype(of_hidden.dtype)
            of_next = passed_on + jnp.einsum("gbf,gdf->gbd", now_hidden, weights.hidden_kernel)
            return of_next, _put(of_input, now_input.astype(of_input.dtype), word), _put(of_hidden, now_hidden, word)

        of_next = jnp.pad(of_next, ((0, 0), (0, phase.rows - of_next.shape[1]), (0, 0)))
        carry = (of_next, of_input, of_hidden)
        of_next, of_input, of_hidden = jax.lax.fori_loop(phase.start, phase.stop, step, carry)
    return of_input, of_hidden


def _get(x: jax.Array, word: jax.Array, rows: int) -> jax.Array:
    return jax.lax.dynamic_slice(x, (word, 0, 0, 0), (1, 2, rows, x.shape[3]))[0]


def _put(x: jax.Array, value: jax.Array, word: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(x, value[None], (word, 0, 0, 0))


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
    """Returns x^T @ y over the first `num_words` rows, <dtype>[..., rows, width] each; y is zero beyond."""
    block, num_blocks = _blocks(x.shape[-2], num_words)

    def add(i, result):
        rows_x, rows_y = (jax.lax.dynamic_slice_in_dim(part, i * block, block, part.ndim - 2) for part in (x, y))
        return result + jnp.einsum("...ka,...kb->...ab", rows_x, rows_y, preferred_element_type=jnp.float32)

    zero = jnp.zeros((*x.shape[:-2], x.shape[-1], y.shape[-1]), jnp.float32)
    return jax.lax.fori_loop(0, num_blocks, add, zero).astype(x.dtype)
