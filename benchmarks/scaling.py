"""What a training step would take on many GPUs, on paper: products, bytes and collectives at assumed rates.

    python -m benchmarks.scaling

Writes `benchmarks/scaling.md`. Nothing of it is measured: `benchmarks.floor` counts the products and bytes of a step,
the rates below are what makers print, times a share that programs reach; each can be overridden. Collectives are rings:
between all GPUs of a node at the rate of its links, between nodes at that of a GPU's share of the network. Nothing
overlaps, but for a share of the gradients' all-reduce that may run beside the backward pass.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.floor import TWICE, Cost, costs, num_parameters
from benchmarks.synthetic import caption_lengths
from benchmarks.workload import Sizes

GPUS = (1, 8, 64, 512, 4096)
BATCH_OF_GPU = 128
GLOBAL_BATCH = 32_768
BLOCK_OF_GPU = 128  # queries of a GPU whose similarities are held at once, with `config.loss.similarity_block`
OUTPUT = pathlib.Path(__file__).with_name("scaling.md")


@dataclasses.dataclass(frozen=True)
class Rates:
    """A GPU and its links: an H100 SXM as its maker prints it."""

    tflops: float = 495.0  # TFLOP/s of a product in TF32, dense
    float32_tflops: float = 67.0  # TFLOP/s in float32, in which the similarities and losses are computed
    product_share: float = 0.4  # of both which products of these sizes reach
    memory_gb: float = 3350.0  # GB/s of the GPU's memory
    memory_share: float = 0.7  # of that which reading and writing reaches
    node_gb: float = 450.0  # GB/s that a GPU sends within its node, NVLink
    network_gb: float = 50.0  # GB/s that a GPU sends out of its node, 400 Gbit/s
    link_share: float = 0.7  # of both which a ring reaches
    hop_us: float = 5.0  # microseconds of one hop of a ring
    gpus_of_node: int = 8
    overlap: float = 0.5  # share of the gradients' all-reduce hidden behind the backward pass


class Step(NamedTuple):
    """A step on a number of GPUs; seconds, and bytes of a GPU."""

    gpus: int
    batch: int  # over all GPUs
    compute: float  # all but the losses
    losses: float
    gather: float  # of embeddings, and the reduction of their gradients
    reduce: float  # of the parameters' gradients, what is not hidden
    similarity_bytes: float  # held by a GPU for one term

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute + self.losses + self.gather + self.reduce


def ring_seconds(num_bytes: float, gpus: int, rates: Rates) -> float:
    """Returns the seconds of an all-gather that ends in `num_bytes` on each GPU; an all-reduce takes two of these.

    Rings within the nodes and, side by side, between nodes: each GPU receives what its node's others and all other
    nodes hold.
    """
    if gpus == 1:
        return 0.0
    inside = min(gpus, rates.gpus_of_node)
    nodes = gpus // inside
    # Between nodes first, each GPU its own part; then within the node all of it.
    between = num_bytes / inside * (nodes - 1) / nodes / (1e9 * rates.network_gb * rates.link_share)
    within = num_bytes * (inside - 1) / inside / (1e9 * rates.node_gb * rates.link_share)
    hops = (nodes - 1 if nodes < 32 else 2 * np.log2(nodes)) + (inside - 1)  # of many nodes a tree
    return between + within + 1e-6 * rates.hop_us * hops


def seconds_of(cost: Cost, tflops: float, rates: Rates) -> float:
    """Returns the seconds of a part on a GPU: its products or its bytes, whichever takes longer."""
    return max(
        cost.flops / (1e12 * tflops * rates.product_share), cost.bytes / (1e9 * rates.memory_gb * rates.memory_share)
    )


def step(gpus: int, batch: int, rates: Rates, *, in_blocks: bool = False) -> Step:
    """Returns a step at Flickr30k's sizes.

    Args:
      gpus: of the whole run.
      batch: pairs over all GPUs.
      rates: of each.
      in_blocks: whether the similarity is never held whole (`config.loss.similarity_block`).
    """
    share = batch // gpus
    sizes = Sizes(batch=share)
    lengths = caption_lengths((np.arange(share) + 0.5) / share, remove_stop_words=True)
    parts = costs(sizes, lengths)
    parts.pop("losses")
    compute = sum(seconds_of(cost, rates.tflops, rates) * (2 if name in TWICE else 1) for name, cost in parts.items())
    dim = sizes.embedding_dim
    # Of three terms: the GPU's pictures against all captions, and back; in blocks both directions, and once more.
    products = 8 if in_blocks else 3
    held = 4 * (BLOCK_OF_GPU if in_blocks else share) * batch
    # Written and read by the product, the hinge of two directions, and their gradients; a block as often, in turn.
    passes = 4 * 4 * share * batch * (2 if in_blocks else 1)
    cost = Cost(products * 2 * share * batch * dim, passes + 4 * 2 * batch * dim)
    losses = 3 * seconds_of(cost, rates.float32_tflops, rates)
    # Of three embeddings of both sides: gathered, and their gradients reduced back, which is a gather reversed.
    embeddings = 3 * (2 if in_blocks else 1) * 4 * batch * dim
    gather = 2 * ring_seconds(embeddings, gpus, rates)
    reduce = 2 * ring_seconds(4 * num_parameters(sizes), gpus, rates) * (1 - rates.overlap)
    return Step(gpus, batch, compute, losses, gather, reduce, held)


def dominates(found: Step) -> str:
    """Returns which part of a step takes longest."""
    parts = {
        "layers": found.compute,
        "losses": found.losses,
        "all-gather": found.gather,
        "all-reduce": found.reduce,
    }
    return max(parts, key=lambda name: parts[name])


def table(steps: Sequence[Step]) -> list[str]:
    """Returns Markdown; efficiency is the pairs a second and GPU, relative to the first row."""
    found = [
        "| GPUs | batch | a GPU | layers ms | losses ms | all-gather ms | all-reduce ms | step ms | pairs/s "
        "| efficiency | similarity a term | longest |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    first = steps[0].batch / steps[0].seconds / steps[0].gpus
    for one in steps:
        rate = one.batch / one.seconds
        times = " | ".join(f"{1e3 * x:.2f}" for x in (one.compute, one.losses, one.gather, one.reduce, one.seconds))
        found.append(
            f"| {one.gpus:,} | {one.batch:,} | {one.batch // one.gpus:,} | {times} | {rate:,.0f} | "
            f"{100 * rate / one.gpus / first:.0f}% | {_size(one.similarity_bytes)} | {dominates(one)} |"
        )
    return found


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"


def crossing(rates: Rates, part: str) -> str:
    """Returns from how many GPUs on, a power of two, a part takes longer than the layers; at a fixed batch a GPU."""
    for power in range(1, 21):
        found = step(2**power, BATCH_OF_GPU * 2**power, rates)
        if getattr(found, part) > found.compute:
            return f"from {found.gpus:,} GPUs (batch {found.batch:,}) on"
    return "at no number of GPUs up to 1,048,576"


def report(rates: Rates, command: str) -> str:
    """Returns the whole of `scaling.md`."""
    fixed = [step(gpus, GLOBAL_BATCH, rates) for gpus in GPUS if gpus <= GLOBAL_BATCH]
    growing = [step(gpus, BATCH_OF_GPU * gpus, rates) for gpus in GPUS]
    pairs = [
        (step(gpus, batch, rates), step(gpus, batch, rates, in_blocks=True))
        for gpus, batch in ((8, 8_192), (8, 32_768), (64, 32_768), (64, 131_072), (512, 524_288))
    ]
    blocks = [
        f"| {whole.gpus:,} | {whole.batch:,} | {_size(3 * whole.similarity_bytes)} | "
        f"{_size(3 * one.similarity_bytes)} | {1e3 * whole.seconds:.1f} | {1e3 * one.seconds:.1f} |"
        for whole, one in pairs
    ]
    sizes = Sizes()
    return "\n".join(
        [
            "# Scale, on paper",
            "",
            f"Written by `{command}`; nothing here is measured. MH-CVSE at Flickr30k's sizes (36 regions of "
            f"{sizes.features:,}, D {sizes.embedding_dim:,}, {num_parameters(sizes) / 1e6:.1f} million parameters), "
            "products and bytes as `benchmarks/floor.py` counts them, collectives as rings, at these rates of a GPU:",
            "",
            "| assumed | value |",
            "|---|---|",
            *(f"| {name} | {value:g} |" for name, value in dataclasses.asdict(rates).items()),
            "",
            f"## A fixed global batch of {GLOBAL_BATCH:,}",
            "",
            *table(fixed),
            "",
            f"## A fixed batch of {BATCH_OF_GPU} a GPU",
            "",
            *table(growing),
            "",
            f"At {BATCH_OF_GPU} a GPU the all-gather of the embeddings, which grows with the global batch, takes "
            f"longer than the layers {crossing(rates, 'gather')}; the similarities and losses, in float32, do "
            f"{crossing(rates, 'losses')}; the all-reduce of the gradients, which hardly grows with the number of "
            f"GPUs, {crossing(rates, 'reduce')}. The layers are taken at a rate that no recurrence reaches: where they "
            "are slower all else weighs less, and the efficiencies are higher.",
            "",
            "## The similarity in blocks",
            "",
            "`config.loss.similarity_block` never holds the whole similarity: what a GPU holds of it for the three "
            f"terms, in blocks of {BLOCK_OF_GPU} queries a GPU, and the time of a step. It computes eight products "
            "where the whole one needs three, so it pays where the memory is short and not before.",
            "",
            "| GPUs | batch | whole | in blocks | step whole ms | step in blocks ms |",
            "|---|---|---|---|---|---|",
            *blocks,
            "",
            "That is the least, one matrix a term. XLA holds more of them at once: on eight CPU devices, batch 32,768, "
            "`XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.loss_memory` counts 6,913 MiB a "
            "device with the whole similarity and 325 MiB in blocks of 1,024; batch 8,192: 384 and 84 MiB.",
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in dataclasses.fields(Rates):
        kind = int if field.name == "gpus_of_node" else float
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help="(default %(default)s)")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, metavar="FILE.md", help="(default %(default)s)")
    values = vars(parser.parse_args(argv))
    output = values.pop("output")
    rates = Rates(**values)
    changed = [
        f" --{field.name} {values[field.name]:g}"
        for field in dataclasses.fields(Rates)
        if values[field.name] != field.default
    ]
    text = report(rates, "python -m benchmarks.scaling" + "".join(changed))
    output.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
