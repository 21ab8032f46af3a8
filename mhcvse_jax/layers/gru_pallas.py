"""A bidirectional GRU whose loop over the words is one GPU kernel, written in Pallas. Not yet measured on a GPU.

A recurrent kernel is too large for one multiprocessor (D 1024 in bfloat16: 6.3 MB per direction). So each program of
the grid owns some columns of a direction for some rows of the batch. At every word it computes their three gates and
leaves them in global memory, where all programs of the direction read them at the next word. Between two words all
programs wait for each other at a counter, so all must run at once: there are no more programs than the GPU has
multiprocessors. Each reads its part of the weights, about 100 KB, at every word: from the second on, from the L2 cache.

A barrier cannot be interpreted, as the interpreter ends one program before the next begins. The steps below do not know
about it: on a CPU the same steps run in a grid whose first axis is the words. That tests everything but the barrier.

The products of the input and the gradients of the weights are those of `gru_scan`. What is computed is the same, with
the sum of a product kept in float32. Several devices do not share the work: each computes the whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from mhcvse_jax.devices.platform import platform
from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.gru_cell import Gates, GRUWeights, gate_gradients, gates_and_state
from mhcvse_jax.layers.gru_scan import bi_gru_scan, weight_gradients

MULTIPROCESSORS = 132  # of an H100, where no GPU says how many it has
SIDES = (16, 32, 64, 128)  # rows and columns that a program may have
DEPTH = 64  # of a product at a time
WARPS = 8

Refs: TypeAlias = Any
"""Arrays in global memory, as a kernel reads and writes them."""


class Tiles(NamedTuple):
    """What a program computes at each word."""

    rows: int  # captions
    columns: int  # units of one direction
    depth: int  # of a product at a time


_TILES = [Tiles(rows, columns, DEPTH) for rows in SIDES for columns in SIDES]


class Place(NamedTuple):
    """Of a program."""

    direction: jax.Array
    rows: Any  # slice
    columns: Any  # slice


def bi_gru_pallas(directions: Sequence[GRUWeights], words: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the states of both directions <float32>[2, batch, words, D], zero at padding; as `bi_gru_scan`.

    Raises:
      InputError: the GPU has too few multiprocessors for batch and D.
    """
    return bi_gru_scan(directions, words, mask, recurrence=_recurrence)


def tiles(batch: int, dim: int) -> Tiles:
    """Returns what each program computes; on a CPU a program is a direction.

    Raises:
      InputError: see `bi_gru_pallas`.
    """
    if _is_interpreted():
        return Tiles(batch, dim, dim)
    return tiles_of_gpu(batch, dim, getattr(jax.devices()[0], "core_count", MULTIPROCESSORS))


def tiles_of_gpu(batch: int, dim: int, multiprocessors: int) -> Tiles:
    """Returns the tiles for which the programs read least, among those that make no more than can run at once.

    Raises:
      InputError: see `bi_gru_pallas`.
    """

    def num_programs(tile: Tiles) -> int:
        rows, columns = _padded(batch, dim, tile)
        return 2 * (rows // tile.rows) * (columns // tile.columns)

    def num_read(tile: Tiles) -> int:
        """In vectors of D: forward a state a row and three gates a column, backward three of each."""
        return 4 * tile.rows + 6 * tile.columns

    fitting = [tile for tile in _TILES if num_programs(tile) <= multiprocessors]
    if not fitting:
        raise InputError(
            f"config.model.gru is 'pallas', and {batch} captions at D {dim} need more programs than the GPU's "
            f"{multiprocessors} multiprocessors; expected fewer captions at once, or config.model.gru=scan"
        )
    return min(fitting, key=num_read)


def _is_interpreted() -> bool:
    return platform() == "cpu"


@jax.custom_vjp
def _recurrence(from_input: jax.Array, mask: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns the states <float32>[words, 2, batch, D] from W_i x + b_i <dtype>[words, 2, batch, 3 D]."""
    return _forward(from_input, mask, kernel, bias)[0]


def _forward(from_input, mask, kernel, bias):
    (words, _, batch, _), dim, dtype = from_input.shape, kernel.shape[1], kernel.dtype
    tile = tiles(batch, dim)
    by_state = (words, 2, *_padded(batch, dim, tile))
    states, _, *gates = _over_words(
        _forward_step,
        tile,
        inputs=(
            _pad(from_input.reshape(words, 2, batch, 3, dim), tile, rows=2, columns=4),
            _pad(mask.astype(jnp.float32), tile, rows=2),
            _pad(_pad(kernel.reshape(2, dim, 3, dim), tile, columns=1), tile, columns=3),
            _pad(bias[:, 0], tile, columns=1),
        ),
        outputs=(
            jax.ShapeDtypeStruct(by_state, jnp.float32),
            *(jax.ShapeDtypeStruct(by_state, dtype) for _ in ("h as it is multiplied", *Gates._fields)),
        ),
    )
    found = states[:, :, :batch, :dim]
    return found, (states, Gates(*gates), mask, kernel)


def _forward_step(number: jax.Array, num_words: int, tile: Tiles, place: Place, refs: Refs) -> None:
    """Computes a program's part of the states at a word."""
    from_input, mask, kernel, bias, states, multiplied, *gates = refs
    word, before, here = number, jnp.maximum(number - 1, 0), place
    direction, rows, columns = here

    def multiply(k: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        depth = pl.ds(k * tile.depth, tile.depth)
        h = multiplied[before, direction, rows, depth]
        return tuple(
            total + jnp.dot(h, kernel[direction, depth, gate, columns], preferred_element_type=jnp.float32)
            for gate, total in enumerate(sums)
        )

    zero = jnp.zeros((tile.rows, tile.columns), jnp.float32)
    from_hidden = jax.lax.fori_loop(0, kernel.shape[1] // tile.depth, multiply, (zero, zero, zero))
    # Before the first word nothing has been written yet.
    from_hidden = [jnp.where(number == 0, 0.0, total) for total in from_hidden]
    h = jnp.where(number == 0, 0.0, states[before, direction, rows, columns])
    from_word = [from_input[word, direction, rows, gate, columns].astype(jnp.float32) for gate in range(3)]
    of_bias = bias[direction, columns].astype(jnp.float32)
    h, now = gates_and_state(from_word, from_hidden, of_bias[None], h)
    h = jnp.where(mask[word, direction, rows][:, None] > 0, h, 0.0)
    states[word, direction, rows, columns] = h
    multiplied[word, direction, rows, columns] = h.astype(kernel.dtype)
    for ref, gate in zip(gates, now, strict=True):
        ref[word, direction, rows, columns] = gate.astype(kernel.dtype)


def _backward(saved, gradient):
    states, gates, mask, kernel = saved
    words, _, batch, dim = gradient.shape
    tile = tiles(batch, dim)
    rows, columns = _padded(batch, dim, tile)
    by_gate = jax.ShapeDtypeStruct((words, 2, rows, 3, columns), kernel.dtype)
    of_input, of_hidden, _ = _over_words(
        _backward_step,
        tile,
        inputs=(
            _pad(gradient, tile, rows=2, columns=3),
            _pad(mask.astype(jnp.float32), tile, rows=2),
            _pad(_pad(kernel.reshape(2, dim, 3, dim), tile, columns=1), tile, columns=3),
            states,
            *gates,
        ),
        outputs=(by_gate, by_gate, jax.ShapeDtypeStruct((2, rows, columns), jnp.float32)),
    )
    of_input, of_hidden = (x[:, :, :batch, :, :dim].reshape(words, 2, batch, -1) for x in (of_input, of_hidden))
    return of_input, None, *weight_gradients(states[:, :, :batch, :dim], of_hidden)


def _backward_step(number: jax.Array, num_words: int, tile: Tiles, place: Place, refs: Refs) -> None:
    """Computes a program's part of the gradients of a word's products; the words come last to first."""
    of_states, mask, kernel, states, r, z, n, hidden, of_input, of_hidden, passed_on = refs
    word = num_words - 1 - number
    before, after = jnp.maximum(word - 1, 0), jnp.minimum(word + 1, num_words - 1)
    direction, rows, columns = place

    def multiply(k: jax.Array, total: jax.Array) -> jax.Array:
        depth = pl.ds(k * tile.depth, tile.depth)
        for gate in range(3):
            total += jnp.dot(
                of_hidden[after, direction, rows, gate, depth],
                kernel[direction, columns, gate, depth].T,
                preferred_element_type=jnp.float32,
            )
        return total

    zero = jnp.zeros((tile.rows, tile.columns), jnp.float32)
    of_next = jax.lax.fori_loop(0, kernel.shape[1] // tile.depth, multiply, zero)
    of_next = jnp.where(number == 0, 0.0, of_next + passed_on[direction, rows, columns])
    of_next += of_states[word, direction, rows, columns]
    of_next = jnp.where(mask[word, direction, rows][:, None] > 0, of_next, 0.0)
    here = (word, direction, rows, columns)
    now = Gates(*(gate[here].astype(jnp.float32) for gate in (r, z, n, hidden)))
    h = jnp.where(word == 0, 0.0, states[before, direction, rows, columns])
    found_input, found_hidden, passed_on[direction, rows, columns] = gate_gradients(of_next, now, h)
    for gate in range(3):
        of_input[word, direction, rows, gate, columns] = found_input[gate].astype(of_input.dtype)
        of_hidden[word, direction, rows, gate, columns] = found_hidden[gate].astype(of_hidden.dtype)


_recurrence.defvjp(_forward, _backward)


def _over_words(
    step: Callable[[jax.Array, int, Tiles, Place, Refs], None],
    tile: Tiles,
    *,
    inputs: Sequence[jax.Array],
    outputs: Sequence[jax.ShapeDtypeStruct],
) -> Sequence[jax.Array]:
    """Returns what a step leaves in the outputs after all words; each word sees what all programs left before it.

    Args:
      step: writes its part, given the number of the word, the number of words, the tile, the place and the arrays.
      tile: the tile of a program.
      inputs: the first is [words, 2, rows, ...]; all are padded to whole tiles.
      outputs: their shapes; the first has [..., D] last.
    """
    num_words, _, rows = inputs[0].shape[:3]
    places = (2, rows // tile.rows, outputs[0].shape[-1] // tile.columns)

    def place(first_axis: int) -> Place:
        direction, row, column = (pl.program_id(first_axis + axis) for axis in range(3))
        return Place(direction, pl.ds(row * tile.rows, tile.rows), pl.ds(column * tile.columns, tile.columns))

    if _is_interpreted():

        def one_word(*refs: Refs) -> None:
            step(pl.program_id(0), num_words, tile, place(1), refs)

        return pl.pallas_call(one_word, grid=(num_words, *places), out_shape=outputs, interpret=True)(*inputs)

    from jax.experimental.pallas import triton  # here, as it is not there where JAX knows no GPU

    num_programs = places[0] * places[1] * places[2]

    def all_words(*refs: Refs) -> None:
        given, _, made, arrived = refs[: len(inputs)], refs[len(inputs)], refs[len(inputs) + 1 : -1], refs[-1]
        here = place(0)

        def one_word(number: jax.Array, nothing: int) -> int:
            step(number, num_words, tile, here, (*given, *made))
            # All of this program's values are written; the last to arrive lets all go on.
            triton.debug_barrier()
            seen = 1 + triton.atomic_add(arrived, (0,), jnp.int32(1))
            wanted = (number + 1) * num_programs
            jax.lax.while_loop(
                lambda seen: seen < wanted, lambda _: triton.atomic_add(arrived, (0,), jnp.int32(0)), seen
            )
            triton.debug_barrier()
            return nothing

        jax.lax.fori_loop(0, num_words, one_word, 0)

    counter = jnp.zeros(1, jnp.int32)
    return pl.pallas_call(
        all_words,
        grid=places,
        out_shape=(*outputs, jax.ShapeDtypeStruct(counter.shape, counter.dtype)),
        input_output_aliases={len(inputs): len(outputs)},
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=2),
    )(*inputs, counter)[:-1]


def _padded(batch: int, dim: int, tile: Tiles) -> tuple[int, int]:
    """Returns rows and columns in whole tiles; a column's products are taken in whole depths, too."""
    whole = max(tile.columns, tile.depth)  # one divides the other
    return pl.cdiv(batch, tile.rows) * tile.rows, pl.cdiv(dim, whole) * whole


def _pad(x: jax.Array, tile: Tiles, *, rows: int | None = None, columns: int | None = None) -> jax.Array:
    """Returns an array with zeros up to whole tiles on these axes. A unit or caption of zeros stays at zero."""
    widths = [(0, 0)] * x.ndim
    for axis, number in ((rows, 0), (columns, 1)):
        if axis is not None:
            sizes = (x.shape[axis], 1) if number == 0 else (1, x.shape[axis])
            widths[axis] = (0, _padded(*sizes, tile)[number] - x.shape[axis])
    return jnp.pad(x, widths) if any(after for _, after in widths) else x
