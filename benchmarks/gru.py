"""The ways to compute the bidirectional GRU, forward and backward, in turn.

    python -m benchmarks.gru --dim 1024 --words 24

Those of the program ("plain", "scan", "packed", with --pallas also "pallas") beside what they were chosen from, and
PyTorch's where it is installed. Captions have Flickr30k's lengths up to `--words`; one has them all.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.synthetic import caption_lengths
from benchmarks.workload import PRECISIONS, set_precision
from mhcvse_jax.layers.gru_cell import GRUWeights, fuse_gates, gru_step
from mhcvse_jax.layers.gru_packed import bi_gru_packed
from mhcvse_jax.layers.gru_pallas import bi_gru_pallas
from mhcvse_jax.layers.gru_scan import bi_gru_scan
from mhcvse_jax.layers.text_gru import word_mask

PLAIN = "plain"


def flax_rnn(cells: Any, words: jax.Array, lengths: jax.Array, *, unroll: int) -> jax.Array:
    """Returns the states [2, batch, words, D] by `flax.linen.RNN`, zero at padding."""
    dim = cells["forward"]["hn"]["bias"].shape[0]
    states = []
    for name, backwards in (("forward", False), ("backward", True)):
        rnn = nn.RNN(nn.GRUCell(dim, dtype=words.dtype), reverse=backwards, keep_order=backwards, unroll=unroll)
        states.append(rnn.apply({"params": {"cell": cells[name]}}, words, seq_lengths=lengths))
    return jnp.where(word_mask(lengths, words.shape[1])[..., None], jnp.stack(states), 0.0)


def hoisted(cells: Any, words: jax.Array, lengths: jax.Array, *, together: bool) -> jax.Array:
    """Returns the same with the input's products before the scan, the gradient as JAX derives it.

    Args:
      cells: {forward, backward}, parameters of `flax.linen.GRUCell`.
      words: <dtype>[batch, words, width].
      lengths: <int32>[batch].
      together: both directions in one scan, or a scan for each.
    """
    mask = word_mask(lengths, words.shape[1])
    backwards = [False, True]
    weights = [fuse_gates(cells[name], words.dtype) for name in ("forward", "backward")]
    groups = [(weights, backwards)] if together else [([w], [b]) for w, b in zip(weights, backwards, strict=True)]
    return jnp.concatenate([_scan(group, words, mask, flipped) for group, flipped in groups])


def _scan(group: list[GRUWeights], words: jax.Array, mask: jax.Array, flipped: list[bool]) -> jax.Array:
    def turn(x: jax.Array, flip: bool) -> jax.Array:
        return jnp.flip(x, 0) if flip else x

    weights = GRUWeights(*map(jnp.stack, zip(*group, strict=True)))
    in_time = jnp.stack([turn(jnp.swapaxes(words, 0, 1), flip) for flip in flipped], axis=1)
    is_word = jnp.stack([turn(mask.T, flip) for flip in flipped], axis=1)
    from_input = jnp.einsum("tgbe,gef->tgbf", in_time, weights.input_kernel) + weights.input_bias[:, None]

    def step(h, now):
        from_word, is_word = now
        from_hidden = jnp.einsum("gbd,gdf->gbf", h.astype(words.dtype), weights.hidden_kernel)
        h = jnp.where(is_word[..., None], gru_step(from_word, from_hidden, weights.hidden_bias[:, None], h)[0], 0.0)
        return h, h

    start = jnp.zeros((len(group), len(mask), weights.hidden_kernel.shape[1]))
    _, states = jax.lax.scan(step, start, (from_input, is_word))
    return jnp.stack([jnp.swapaxes(turn(states[:, i], flip), 0, 1) for i, flip in enumerate(flipped)])


def fast(cells: Any, words: jax.Array, lengths: jax.Array, *, way: str) -> jax.Array:
    """Returns the same by the program's own ways."""
    directions = [fuse_gates(cells[name], words.dtype) for name in ("forward", "backward")]
    if way == "packed":
        return bi_gru_packed(directions, words, lengths)
    return (bi_gru_scan if way == "scan" else bi_gru_pallas)(directions, words, word_mask(lengths, words.shape[1]))


CANDIDATES: dict[str, Callable] = {
    PLAIN: functools.partial(flax_rnn, unroll=1),
    "plain, unrolled 4 times": functools.partial(flax_rnn, unroll=4),
    "input hoisted, a scan a direction": functools.partial(hoisted, together=False),
    "input hoisted, one scan": functools.partial(hoisted, together=True),
    **{way: functools.partial(fast, way=way) for way in ("scan", "packed", "pallas")},
}


def jax_programs(
    cells: Any, words: np.ndarray, lengths: np.ndarray, cotangent: np.ndarray, dtype: jnp.dtype, *, pallas: bool
) -> dict[str, Callable[[], Any]]:
    """Returns the candidates, each giving its states and the gradients of `cells` and words; "pallas" if asked for."""

    def value_and_gradients(candidate, cells, words, lengths, cotangent):
        states, pull_back = jax.vjp(lambda c, x: candidate(c, x.astype(dtype), lengths), cells, words)
        return states, pull_back(cotangent.astype(states.dtype))

    programs = {}
    for name, candidate in CANDIDATES.items():
        if name == "pallas" and not pallas:
            continue
        run = jax.jit(functools.partial(value_and_gradients, candidate))
        programs[name] = functools.partial(run, cells, *map(jnp.asarray, (words, lengths, cotangent)))
    return programs


def check_equal(programs: dict[str, Callable[[], Any]], tolerance: float) -> float:
    """Returns the largest difference to `PLAIN`, relative to the largest value of each array.

    Raises:
      AssertionError: it is above the tolerance.
    """
    expected = programs[PLAIN]()
    worst = 0.0
    for name, program in programs.items():
        for found, wanted in zip(jax.tree.leaves(program()), jax.tree.leaves(expected), strict=True):
            difference = float(jnp.max(jnp.abs(found - wanted)) / jnp.max(jnp.abs(wanted)))
            assert difference < tolerance, f"{name} is not equal to {PLAIN}: {difference:.1e}"
            worst = max(worst, difference)
    return worst


def torch_programs(
    words: np.ndarray, lengths: np.ndarray, cotangent: np.ndarray, dim: int, precision: str
) -> dict[str, Callable[[], Any]]:
    """Returns PyTorch's GRU on a packed and on a padded batch; its own random parameters."""
    import torch  # pyright: ignore[reportMissingImports]

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    gru = torch.nn.GRU(words.shape[2], dim, batch_first=True, bidirectional=True).to(device, dtype)
    x = torch.from_numpy(words).to(device, dtype).requires_grad_()
    of_states = torch.from_numpy(np.concatenate(list(cotangent), axis=2)).to(device, dtype)
    sizes = torch.from_numpy(lengths.astype(np.int64))

    def run(packed: bool):
        if packed:
            sequence = torch.nn.utils.rnn.pack_padded_sequence(x, sizes, batch_first=True, enforce_sorted=False)
            states, _ = torch.nn.utils.rnn.pad_packed_sequence(gru(sequence)[0], True, total_length=x.shape[1])
        else:
            states, _ = gru(x)
        gradients = torch.autograd.grad(states, [x, *gru.parameters()], of_states)
        if device == "cuda":
            torch.cuda.synchronize()
        return len(gradients)

    return {"torch, packed": functools.partial(run, True), "torch, padded": functools.partial(run, False)}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--words", type=int, default=24, help="length that the batch is padded to")
    parser.add_argument("--word_dim", type=int, default=300)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--pallas", action="store_true", help="also the kernel in Pallas, which a CPU interprets")
    options = parser.parse_args(arguments)
    dtype = jnp.dtype(set_precision(options.precision))

    rng = np.random.default_rng(0)
    lengths = np.minimum(caption_lengths(rng.random(options.batch), remove_stop_words=True), options.words)
    lengths[0] = options.words
    words = rng.standard_normal((options.batch, options.words, options.word_dim), dtype=np.float32)
    cell = nn.GRUCell(options.dim)
    start = jnp.zeros((1, options.dim))
    keys = jax.random.split(jax.random.key(0))
    cells = {
        name: cell.init(key, start, words[:1, 0])["params"]
        for name, key in zip(("forward", "backward"), keys, strict=True)
    }
    cotangent = rng.standard_normal((2, options.batch, options.words, options.dim), dtype=np.float32)
    cotangent *= word_mask(jnp.asarray(lengths), options.words)[..., None]

    programs = jax_programs(cells, words, lengths, cotangent, dtype, pallas=options.pallas)
    tolerance = 0.1 if dtype == jnp.bfloat16 else 1e-2 if options.precision == "tf32" else 1e-4
    difference = check_equal(programs, tolerance)
    if importlib.util.find_spec("torch"):
        programs |= torch_programs(words, lengths, cotangent, options.dim, options.precision)
    times = timing.interleave(programs, options.rounds)

    sizes = f"B {options.batch}, L {options.words}, E {options.word_dim}, D {options.dim}, {options.precision}"
    print(
        f"device    {timing.device_name()}; {sizes}; {lengths.sum()} words in {words.shape[0] * words.shape[1]} places"
    )
    print(f"values    equal within {difference:.1e}")
    print(f"\n{'forward and backward':<36}{'median ms':>11}{'speed':>8}  fastest to slowest")
    rows = []
    for name, time in times.items():
        speed = timing.ratio(times[PLAIN], time)
        print(f"{name:<36}{1e3 * time.median:>11.1f}{speed:>8.2f}  {time.spread}")
        rows.append(
            timing.row(
                f"GRU: {name} against {PLAIN}, {sizes}",
                ours=1e3 * time.median,
                theirs=1e3 * times[PLAIN].median,
                ratio=speed,
                unit="ms",
                spread=time.spread,
            )
        )
    timing.save(options.output, rows)


if __name__ == "__main__":
    main()
