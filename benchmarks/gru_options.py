"""Ways to compute the GRU's recurrence on a GPU, on paper: products, bytes, launches and what they would take.

    python -m benchmarks.gru_options > benchmarks/gru_options.md

The recurrence is a chain: each word's product needs the state after the word before. For each way this counts what a
training step launches, moves and waits for, and puts a time to it at the assumed rates; nothing of it is measured.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from mhcvse_jax.layers.gru_pallas import MULTIPROCESSORS, tiles_of_gpu


class Sizes(NamedTuple):
    """Of the recurrence, both directions."""

    batch: int
    dim: int
    words: int  # to which the captions are padded
    item_bytes: int  # of a factor in a product; states are float32


class Gpu(NamedTuple):
    """What is assumed of an H100."""

    tflops: float  # of dense products in the type, as its data sheet has it
    product_share: float = 0.4  # of that which such small products reach
    cache_gb: float = 5500.0  # a second, between the L2 cache and all multiprocessors; not published
    launch_us: float = 3.0  # from one kernel to the next, launched one by one
    graph_us: float = 1.0  # from one kernel to the next within a CUDA graph
    barrier_us: float = 1.5  # until all programs of a kernel have met


TFLOPS = {4: 495.0, 2: 990.0}  # TF32 and bfloat16, by the bytes of an item


class Way(NamedTuple):
    """What a way to compute the recurrence does in a training step, forward and backward."""

    name: str
    launches: int  # by the host
    kernels: int
    barriers: int  # within kernels
    cache_bytes: float  # between the L2 cache and the multiprocessors
    gap: str  # field of `Gpu`, between kernels
    share: float = 1.0  # of the multiprocessors that have work


def flops(sizes: Sizes) -> float:
    """Returns the operations of the products in the chain: one per word, direction and pass."""
    return 2 * 2 * sizes.words * 2 * sizes.batch * sizes.dim * 3 * sizes.dim


def ways(sizes: Sizes) -> list[Way]:
    """Returns the ways.

    A tile of a library's product is taken as 128 x 128: the factors are read once for each tile across. Beside the
    product, a kernel of its own reads the product, the input's part and the state, and writes state and gates; in
    Pallas these stay in the program that made them, but for what it saves for the backward pass.
    """
    batch, dim, words, item = sizes
    tile = 128
    weights, state = 2 * 3 * dim * dim * item, 2 * batch * dim
    product = -(-batch // tile) * weights + -(-3 * dim // tile) * state * item + 3 * state * item
    backward_product = -(-batch // tile) * weights + -(-dim // tile) * 3 * state * item + state * 4
    gates = state * (3 * item + 3 * item + 4 + 4 + 4 * item)
    gate_gradients = state * (4 * item + 4 + 4 + 4 + 6 * item + 4)
    loop = words * (product + backward_product + gates + gate_gradients)
    own = tiles_of_gpu(batch, dim, MULTIPROCESSORS)
    across, down = -(-dim // own.columns), -(-batch // own.rows)
    share = min(2 * across * down / MULTIPROCESSORS, 1.0)
    saved = state * (3 * item + 4 + 4 + 4 * item + item)
    states = words * (across * (1 + 3) * state * item + 2 * saved + 6 * state * item)
    again, once = (2 * times * down * weights for times in (words, 1))
    return [
        Way("XLA's loop, a direction after the other", 8 * words, 8 * words, 0, loop, "launch_us"),
        Way("XLA's loop, both directions in one product (`scan`)", 4 * words, 4 * words, 0, loop, "launch_us"),
        Way("the same unrolled, in one CUDA graph", 2, 4 * words, 0, loop, "graph_us"),
        Way("a persistent kernel (`pallas`)", 2, 2, 2 * words, again + states, "launch_us", share),
        Way("one that also keeps its weights (not built)", 2, 2, 2 * words, once + states, "launch_us", share),
    ]


def seconds(way: Way, sizes: Sizes, gpu: Gpu) -> tuple[float, float]:
    """Returns the seconds of the work (the slower of products and bytes), and those of gaps and barriers."""
    work = max(flops(sizes) / (1e12 * gpu.tflops * gpu.product_share), way.cache_bytes / (1e9 * gpu.cache_gb))
    return work / way.share, 1e-6 * (way.kernels * getattr(gpu, way.gap) + way.barriers * gpu.barrier_us)


def table(sizes: Sizes, gpu: Gpu) -> str:
    """Returns the ways as a table in Markdown."""
    lines = [
        "| way | launches | kernels | barriers | GFLOP | MB by the L2 cache | work, us | waiting, us | together, us |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way in ways(sizes):
        work, waiting = (1e6 * part for part in seconds(way, sizes, gpu))
        lines.append(
            f"| {way.name} | {way.launches} | {way.kernels} | {way.barriers} | {flops(sizes) / 1e9:.0f} | "
            f"{way.cache_bytes / 1e6:,.0f} | {work:.0f} | {waiting:.0f} | {work + waiting:.0f} |"
        )
    return "\n".join(lines)


INTRODUCTION = """# The GRU's recurrence on a GPU, on paper

Written by `python -m benchmarks.gru_options > benchmarks/gru_options.md`; nothing here is measured. A training step,
forward and backward, both directions, without the products of the input and the gradients of the weights, which stand
outside of the chain. Assumed of an H100: {assumed}.
"""

CONCLUSION = """
What follows from it:

- Both directions in one product halve the launches and cost nothing: `scan` does that, and is what `auto` takes.
- A CUDA graph takes most of the waiting away and needs no kernel of ours: XLA's flag `--xla_gpu_enable_command_buffer`
  decides which operations it puts into graphs. It is the first thing to measure.
- A kernel that keeps a block of captions to itself needs no barrier, but reads all weights at every word: a
  multiprocessor gets some {per_core:.0f} GB/s out of the L2 cache, so a direction's {weights:.1f} MB would take it
  {alone:,.0f} us a word. It was not built.
- So the programs of `gru_pallas` share the columns of a direction and meet at a barrier after each word. They save the
  gaps between kernels and the traffic of the gates. But each reads its weights and the whole state of its captions at
  every word, more than the tiles of a library's product do. By these figures it is no gain at D 1,024, and one
  at 512 in bfloat16 and at 256.
- Weights that stay in a multiprocessor's memory would be one at 1,024 in bfloat16 only; in TF32 they do not fit.
  Pallas's Triton, which the kernel is written for, has no way to say so. Its Mosaic has, on Hopper.

The rates of small products and of the cache are guesses, so the table says what to try in which order, not how it ends.
`python -m benchmarks.gru --pallas` measures it.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="captions (default 128)")
    parser.add_argument("--words", type=int, default=24, help="to which they are padded (default 24)")
    parser.add_argument("--dims", type=int, nargs="+", default=[1024, 512, 256], help="D (default 1024 512 256)")
    options = parser.parse_args(arguments)
    gpu = Gpu(TFLOPS[2])
    assumed = (
        f"{TFLOPS[4]:.0f} TFLOP/s in TF32 and {TFLOPS[2]:.0f} in bfloat16, of which such products reach "
        f"{gpu.product_share:.0%};\n{gpu.cache_gb:,.0f} GB/s between the L2 cache and the {MULTIPROCESSORS} "
        f"multiprocessors; {gpu.launch_us:.0f} us from kernel to kernel, {gpu.graph_us:.0f} us in a CUDA\n"
        f"graph, {gpu.barrier_us} us a barrier"
    )
    print(INTRODUCTION.format(assumed=assumed))
    for dim in options.dims:
        for item_bytes, name in ((4, "TF32"), (2, "bfloat16")):
            sizes = Sizes(options.batch, dim, options.words, item_bytes)
            print(f"## {sizes.batch} captions of {sizes.words} words, D {dim:,}, {name}\n")
            print(table(sizes, Gpu(TFLOPS[item_bytes])) + "\n")
    weights = 3 * options.dims[0] ** 2 * 2 / 1e6
    per_core = gpu.cache_gb / MULTIPROCESSORS
    print(CONCLUSION.strip("\n").format(per_core=per_core, weights=weights, alone=1e3 * weights / per_core))


if __name__ == "__main__":
    main()
