"""Where a training step's time goes, against the least that this device could take for it.

    python -m benchmarks.floor --size full
    python -m benchmarks.floor --precision tf32 --device_rates h100    # what a GPU would take, run on any machine

For each part of the model: the products and bytes that its mathematics needs, forward and backward; the time that
these take at the rates that the device shows in the same minute; and the time of the part alone, compiled, forward
and backward. Captions count by their words, not by their padding, so padding is a distance from the floor. On a GPU
whose rates are published (`published.py`) the time at these stands beside.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from benchmarks.published import PUBLISHED, Rates, of_device
from benchmarks.workload import (
    PRECISIONS,
    SIZES,
    ResidentTrainer,
    Sizes,
    Trainer,
    make_batches,
    make_config,
    set_precision,
)
from mhcvse_jax import losses
from mhcvse_jax.data.batches import Batch
from mhcvse_jax.layers.concept_gcn import ConceptGCN
from mhcvse_jax.layers.consensus import Consensus
from mhcvse_jax.layers.fusion import Fusion
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.layers.self_attention import SelfAttention
from mhcvse_jax.layers.text_gru import TextGRU
from mhcvse_jax.models.embeddings import Embeddings


class Cost(NamedTuple):
    """What a part cannot do without, forward and backward."""

    flops: float
    bytes: float


def costs(sizes: Sizes, lengths: np.ndarray, *, item_bytes: int = 4) -> dict[str, Cost]:
    """Returns the cost of each part of a step of MH-CVSE with mean pooling and `weight_sum`; `TWICE` of one modality.

    A product of the forward pass has two in the backward pass, one for each factor that needs a gradient.
    Parameters are read twice and their gradients written once, in float32; activations are read in both passes,
    written in the forward pass, and their gradients once written and once read.

    Args:
      sizes: of the step.
      lengths: <int32>[batch] words of the captions.
      item_bytes: of an activation.
    """
    batch, dim, concepts = sizes.batch, sizes.embedding_dim, sizes.concepts
    regions, words = batch * sizes.regions, int(lengths.sum())

    def cost(flops: float, parameters: float, inputs: float, outputs: float) -> Cost:
        return Cost(flops, 3 * 4 * parameters + item_bytes * (3 * inputs + 3 * outputs))

    def attention(elements: int, squares: float) -> Cost:
        # Averaged attention: Q and K for each element, V and the output once a pair and head.
        per_element = 2 * elements * dim * 2 * dim + 2 * elements * dim * sizes.num_heads
        return cost(
            3 * (per_element + 2 * squares * dim + 2 * batch * 2 * dim * dim),
            4 * dim * dim,
            elements * dim,
            batch * dim,
        )

    consensus = cost(
        3 * 2 * (concepts * dim * dim + batch * dim * dim + 2 * batch * concepts * dim),
        2 * dim * dim,
        (batch + concepts) * dim,
        batch * (dim + concepts),
    )
    fusion = cost(3 * 2 * batch * (2 * dim) ** 2, 4 * dim * dim, 2 * batch * dim, batch * dim)
    gcn = cost(
        2 * 2 * concepts * sizes.concept_dim * dim / 2 + 3 * 2 * concepts * dim / 2 * dim,
        sizes.concept_dim * dim / 2 + dim / 2 * dim,
        concepts * sizes.concept_dim,
        concepts * dim,
    )
    parameters = num_parameters(sizes)
    return {
        "region projection": cost(  # features need no gradient
            2 * 2 * regions * sizes.features * dim, sizes.features * dim, regions * sizes.features / 3, regions * dim
        ),
        # Of the embedding only the rows of the words are read; its gradient is written whole.
        "word embedding": Cost(0, 4 * sizes.vocabulary * sizes.word_dim + item_bytes * 4 * words * sizes.word_dim),
        "GRU, input": cost(
            3 * 2 * words * sizes.word_dim * 6 * dim, 6 * dim * sizes.word_dim, words * sizes.word_dim, words * 6 * dim
        ),
        "GRU, recurrence": cost(3 * 2 * words * dim * 6 * dim, 6 * dim * dim, 0, 2 * words * dim),
        "attention, regions": attention(regions, regions * sizes.regions),
        "attention, words": attention(words, float(np.sum(lengths.astype(np.float64) ** 2))),
        "consensus": consensus,
        "concept GCN": gcn,
        "fusion": fusion,
        "losses": cost(3 * 3 * 2 * batch * batch * dim, 0, 2 * batch * (3 * dim + concepts), 0),
        # Adam reads parameter, gradient and two moments and writes three; clipping reads the gradient once more.
        "optimiser": Cost(0, 4 * 8 * parameters),
    }


def num_parameters(sizes: Sizes) -> int:
    """Returns the parameters of the model, but for biases and norms."""
    dim = sizes.embedding_dim
    return (
        sizes.features * dim
        + sizes.vocabulary * sizes.word_dim
        + 6 * dim * (sizes.word_dim + dim)
        + 2 * (4 + 2 + 4) * dim * dim
        + dim // 2 * (sizes.concept_dim + dim)
    )


WHOLE, EMBEDDED_GRU = "whole step", "GRU with its embedding"
AT_ONCE = 4  # steps
DISPATCHED = f"{WHOLE}, {AT_ONCE} at once"  # a step's share of them
GRU_PARTS = ("GRU, input", "GRU, recurrence")
TWICE = ("consensus", "fusion")  # once for pictures, once for captions


def part_programs(
    sizes: Sizes, trainer: Trainer, batch: Batch, gru: str, dtype: jnp.dtype
) -> dict[str, tuple[Callable, tuple[Any, ...]]]:
    """Returns a function (value and all gradients) and its arguments for each measured part."""
    rng = np.random.default_rng(3)
    batch_size, dim = sizes.batch, sizes.embedding_dim
    longest = batch.captions.tokens.shape[1]
    mask = jnp.asarray(batch.captions.mask)

    def unit(*shape: int) -> jax.Array:
        return l2_normalize(jnp.asarray(rng.standard_normal(shape, dtype=np.float32)))

    def with_gradients(apply: Callable, params: Any, *inputs: Any, fixed: Sequence[Any] = ()) -> tuple[Callable, tuple]:
        cotangents = jax.tree.map(
            lambda x: jnp.asarray(rng.standard_normal(x.shape, dtype=np.float32)),
            jax.eval_shape(lambda p, *x: apply(p, *x, *fixed), params, *inputs),
        )

        # Cotangents are arguments: what a compiler knows of a constant it would compute beforehand.
        def run(params, inputs, fixed, cotangents):
            outputs, pull_back = jax.vjp(lambda p, *x: apply(p, *x, *fixed), params, *inputs)
            return outputs, pull_back(jax.tree.map(lambda c, y: c.astype(y.dtype), cotangents, outputs))

        return jax.jit(run), (params, inputs, tuple(fixed), cotangents)

    def module(layer: nn.Module, *inputs: Any, fixed: Sequence[Any] = (), finish: Callable = lambda x: x, **options):
        variables: Any = layer.init(jax.random.key(0), *inputs, *fixed, **options)

        def apply(params, *args):
            keys = {"dropout": jax.random.key(1)}
            out, _ = layer.apply(variables | {"params": params}, *args, rngs=keys, mutable=["batch_stats"], **options)
            return finish(out)

        return with_gradients(apply, variables.get("params", {}), *inputs, fixed=fixed)

    def embeddings() -> Embeddings:
        distribution = nn.softmax(unit(batch_size, sizes.concepts))
        return Embeddings(unit(batch_size, dim), unit(batch_size, dim), unit(batch_size, dim), distribution)

    def attend(elements: jax.Array, mask: jax.Array | None) -> tuple[Callable, tuple]:
        layer = SelfAttention(sizes.num_heads, "scaled", False, 0.0, dtype)
        return module(layer, elements, fixed=(mask,), train=True, pooled=True)

    settings = trainer.parts.settings

    def all_losses(params, image, text):
        return losses.loss_terms(
            image,
            text,
            batch.image_index,
            losses.Contrast(settings.margin, True, settings.negative_temperature),
            mask_same_image=settings.mask_same_image,
            reduction=settings.reduction,
        )[0]

    def update(gradients, params, opt_state):
        updates, opt_state = trainer.parts.optimizer.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), optax.tree.norm(gradients)

    compiled_update = jax.jit(update, donate_argnums=(1, 2))
    updated = [jax.tree.map(jnp.copy, (trainer.state.params, trainer.state.opt_state))]
    gradients = jax.tree.map(jnp.copy, trainer.state.params)

    def optimise():
        updated[0], norm = compiled_update(gradients, *updated[0])
        return norm, updated[0]

    concepts = unit(sizes.concepts, dim)
    consensus = Consensus("batch", 10.0, dtype)
    fusion = Fusion("weight_sum", 0.85, dtype)
    gcn = ConceptGCN(dim, 0.2, "sparse", False)
    gru_layer = TextGRU(sizes.vocabulary, sizes.word_dim, dim, 0.4, gru, dtype)
    embed = nn.Embed(sizes.vocabulary, sizes.word_dim, dtype=dtype)
    tokens, lengths = jnp.asarray(batch.captions.tokens), jnp.asarray(batch.captions.lengths)
    return {
        "region projection": module(
            nn.Dense(dim, dtype=dtype), fixed=(jnp.asarray(batch.regions),), finish=l2_normalize
        ),
        "word embedding": module(embed, fixed=(tokens,)),
        EMBEDDED_GRU: module(gru_layer, fixed=(tokens, lengths), train=True),
        "attention, regions": attend(unit(batch_size, sizes.regions, dim), None),
        "attention, words": attend(unit(batch_size, longest, dim) * mask[..., None], mask),
        "consensus": module(consensus, unit(batch_size, dim), concepts, fixed=(None, 0.0), train=True),
        "concept GCN": module(gcn, fixed=(trainer.graph,)),
        "fusion": module(fusion, unit(batch_size, dim), unit(batch_size, dim)),
        "losses": with_gradients(all_losses, {}, embeddings(), embeddings()),
        "optimiser": (optimise, ()),
    }


def floor_seconds(name: str, cost: dict[str, Cost], rates: Rates) -> float:
    """Returns the least time of a part, or of a whole step: products or bytes, whichever takes longer, by part."""
    return sum(max(part.flops / rates.flops, part.bytes / rates.bytes) for part in members(name, cost))


def members(name: str, cost: dict[str, Cost]) -> list[Cost]:
    """Returns the costs that make up a measured part."""
    if name in (WHOLE, DISPATCHED):
        return [*cost.values(), *(cost[key] for key in TWICE)]
    return [cost[key] for key in ("word embedding", *GRU_PARTS)] if name == EMBEDDED_GRU else [cost[name]]


def print_published(cost: dict[str, Cost], precision: str, device: str) -> None:
    """Prints what each part would take at least on a device, at the rates that its maker prints."""
    rates = PUBLISHED[device].at(precision)
    print(
        f"rates     {rates.flops / 1e12:.1f} TFLOP/s, {rates.bytes / 1e9:.0f} GB/s: {device} as published, {precision}"
    )
    print(f"\n{'part':<26}{'GFLOP':>8}{'MB':>8}{'floor us':>10}{'of the step':>13}  bound by")
    whole = floor_seconds(WHOLE, cost, rates)
    for name in [*cost, WHOLE]:
        flops, num_bytes = (sum(values) for values in zip(*members(name, cost), strict=True))
        seconds = floor_seconds(name, cost, rates)
        share = seconds * (2 if name in TWICE else 1) / whole
        bound = "products" if flops / rates.flops > num_bytes / rates.bytes else "memory"
        print(f"{name:<26}{flops / 1e9:>8.2f}{num_bytes / 1e6:>8.0f}{1e6 * seconds:>10.1f}{share:>13.0%}  {bound}")
    print(f"\n{' and '.join(TWICE)} come twice in a step, once for pictures and once for captions")


def rate_programs(precision: str, width: int) -> dict[str, Callable[[], jax.Array]]:
    """Returns a product of `width` and a copy of 16 times as many numbers, at least."""
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    x = jnp.ones((width, width), dtype) / width
    long = jnp.ones(_copied(width), jnp.float32)
    multiply, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    return {"product": lambda: multiply(x), "copy": lambda: copy(long)}


def _copied(width: int) -> int:
    return 4 * width * width


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=7)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--gru", choices=("auto", "plain", "scan", "packed", "pallas"), default="auto")
    parser.add_argument("--width", type=int, default=4096, help="of the square product that shows the device's rate")
    parser.add_argument(
        "--device_rates", choices=PUBLISHED, help="run nothing: print the floor at a GPU's published rates"
    )
    options = parser.parse_args(arguments)

    sizes = SIZES[options.size]
    config = make_config(sizes, gru=options.gru)
    config.compute_dtype = set_precision(options.precision)
    dtype = jnp.dtype(config.compute_dtype)
    (batch,) = make_batches(sizes, config, 1)
    cost = costs(sizes, batch.captions.lengths, item_bytes=dtype.itemsize)
    if options.device_rates:
        print_published(cost, options.precision, options.device_rates)
        return
    trainer = Trainer(sizes, config)
    parts = part_programs(sizes, trainer, batch, options.gru, dtype)
    programs: dict[str, Callable[[], Any]] = {
        name: lambda function=function, args=args: function(*args) for name, (function, args) in parts.items()
    }
    placed = trainer.place(batch)
    programs[WHOLE] = lambda: trainer.step(placed)
    programs[DISPATCHED] = ResidentTrainer(sizes, config, [batch] * AT_ONCE).run
    rates = rate_programs(options.precision, options.width)
    times = timing.interleave(rates | programs, options.rounds)
    times[DISPATCHED] = times[DISPATCHED].shared(AT_ONCE)

    # The best run is what the device can do; a part's floor is to be below anything that it does.
    best = Rates(
        2 * options.width**3 / times["product"].seconds.min(), 8 * _copied(options.width) / times["copy"].seconds.min()
    )
    known = of_device(timing.device_name())
    words, places = int(batch.captions.lengths.sum()), batch.captions.tokens.size
    print(f"device    {timing.device_name()}, {options.precision}; GRU {options.gru}")
    print(f"rates     {best.flops / 1e12:.3f} TFLOP/s (product of {options.width}), {best.bytes / 1e9:.1f} GB/s (copy)")
    print(f"batch     {words} words in {places} places, {batch.captions.tokens.shape[1]} a caption")
    published_head = f"{f'{known} ms':>9}" if known else ""
    head = f"{'part':<26}{'GFLOP':>8}{'MB':>8}{published_head}{'floor ms':>10}{'ours ms':>10}{'ratio':>7}"
    print(f"\n{head}  fastest to slowest")
    rows, missing = [], {}
    for name in [*parts, WHOLE, DISPATCHED]:
        floor = floor_seconds(name, cost, best)
        published = 1e3 * floor_seconds(name, cost, PUBLISHED[known].at(options.precision)) if known else None
        flops, num_bytes = (sum(values) for values in zip(*members(name, cost), strict=True))
        ours = times[name]
        print(
            f"{name:<26}{flops / 1e9:>8.2f}{num_bytes / 1e6:>8.0f}{'' if published is None else f'{published:>9.3f}'}"
            f"{1e3 * floor:>10.3f}{1e3 * ours.median:>10.3f}{ours.median / floor:>7.1f}  {ours.spread}"
        )
        missing[name] = (ours.median - floor) * (2 if name in TWICE else 1)
        rows.append(
            timing.row(
                f"floor: {name}, {options.size}, {options.precision}, GRU {options.gru}",
                ours=1e3 * ours.median,
                theirs=1e3 * floor,
                ratio=floor / ours.median,
                unit="ms (theirs: the floor)",
                spread=ours.spread,
                **({} if published is None else {f"{known}_published_ms": float(f"{published:.4g}")}),
            )
        )
    farthest = max(parts, key=lambda name: missing[name])
    print(f"\nfarthest from its floor: {farthest}, by {1e3 * missing[farthest]:.1f} ms")
    timing.save(options.output, rows)


if __name__ == "__main__":
    main()
