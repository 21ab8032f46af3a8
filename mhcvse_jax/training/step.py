"""One training step over all devices, or several at once: outputs, losses, their weights, gradients, update."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mhcvse_jax.data.batches import Batch
from mhcvse_jax.data.word_vectors import WordVectors
from mhcvse_jax.devices.mesh import by_batch, replicated
from mhcvse_jax.devices.platform import platform
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.layers.self_attention import attention_entropy
from mhcvse_jax.losses import Contrast, LossTerms, loss_terms, negatives
from mhcvse_jax.losses.pairs import pair_loss_terms
from mhcvse_jax.losses.weighting import loss_weights
from mhcvse_jax.models import Model
from mhcvse_jax.models.pair_scores import PairScores
from mhcvse_jax.training.resident import Placement, ResidentSplit, gather_captions, gather_regions

Metrics = dict[str, jax.Array]

LARGEST_LOG_SCALE = math.log(100.0)
"""Of InfoNCE's learned scale, as CLIP bounds it."""


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes. The next step depends only on this and the batch."""

    step: jax.Array  # <int32>, steps done
    params: Any
    batch_stats: Any  # of batch norm; empty where there is none
    opt_state: Any
    key: jax.Array  # of dropout; a step folds its number in


class LossSettings(NamedTuple):
    """The values of `config.loss`, with `all_negatives_epochs` in steps."""

    margin: float
    reduction: str
    weighting: str
    base_weights: LossTerms
    mask_same_image: bool
    all_negatives_steps: int
    negative_temperature: float = 0.0  # 0: the hardest, or all in the first steps
    infonce: bool = False  # by the model's learned scales
    similarity_block: int = 0


class StepParts(NamedTuple):
    """What a step is made of."""

    model: Model
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule  # the rate by step
    graph: ConceptGraph
    settings: LossSettings
    mesh: Mesh


def init_variables(model: Model, graph: ConceptGraph, regions_shape: tuple[int, ...], key: jax.Array) -> dict[str, Any]:
    """Returns fresh {params, batch_stats} for pictures of `regions_shape`, (regions, features)."""
    variables = model.init(
        key,
        jnp.zeros((1, *regions_shape)),
        Captions(jnp.zeros((1, 2), jnp.int32), jnp.full((1,), 2, jnp.int32), jnp.zeros((1, len(graph.nodes)), bool)),
        graph,
        train=False,
    )
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def initialize(
    parts: StepParts, *, regions_shape: tuple[int, ...], seed: int, word_vectors: WordVectors | None = None
) -> TrainState:
    """Returns the state before the first step, replicated over the mesh.

    Args:
      parts: what the steps are made of.
      regions_shape: (regions, features) of a picture.
      seed: the seed of parameters and dropout.
      word_vectors: those of the vocabulary; words without one keep their random vector.
    """

    def create() -> TrainState:
        init_key, dropout_key = jax.random.split(jax.random.key(seed))
        variables = init_variables(parts.model, parts.graph, regions_shape, init_key)
        params = variables["params"]
        if word_vectors is not None:
            embed = params["text_gru"]["embed"]
            embed["embedding"] = jnp.where(word_vectors.found[:, None], word_vectors.vectors, embed["embedding"])
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            opt_state=parts.optimizer.init(params),
            key=dropout_key,
        )

    return jax.jit(create, out_shardings=replicated(parts.mesh))()


def make_train_step(parts: StepParts) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the compiled step: (state, batch) -> (next state, metrics).

    The batch is split over the mesh; similarities, and with them the negatives, span the whole of it: XLA puts
    in the collectives. The state is donated. Compiles once for each caption length of the batches. Where the
    loss or the gradient is not finite, the next state is this one with its step counted.

    Metrics are <float32> scalars on the device: `loss` (weighted total), `loss_*` and `weight_*` for each term,
    `hardness_*` of each contrastive term (0: all negatives count alike, 1: the hardest alone), `learning_rate`,
    `gradient_norm` (before clipping), `attention_entropy_*` where there is attention.
    """
    gradient, update = _gradient(parts), _update(parts)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return update(state, gradient(state, batch))

    everywhere = replicated(parts.mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, by_batch(parts.mesh)),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )


def make_resident_steps(parts: StepParts, *, placement: Placement, caption_lengths: Sequence[int]) -> Any:
    """Returns the jitted function that takes several steps on a split that lies on the devices.

    (state, split, captions, length_index, num_steps) -> (state after them, metrics), where captions <int32>[most,
    batch] are those of each step and length_index <int32>[most] says which of `caption_lengths` each step is padded
    to; num_steps <= most of them are taken. A step is that of `make_train_step`, whatever the others beside it are.
    One compilation holds all lengths. Metrics are as there, each <float32>[most]. The state is donated.

    Args:
      parts: what a step is made of.
      placement: "replicated" or "sharded", as the split was placed.
      caption_lengths: the lengths that occur.
    """
    gradient, update, mesh = _gradient(parts), _update(parts), parts.mesh

    def steps(
        state: TrainState, split: ResidentSplit, captions: jax.Array, length_index: jax.Array, num_steps: jax.Array
    ) -> tuple[TrainState, Metrics]:
        # Jitted, though within a jitted function, so that it is traced once for its shapes and for the loop.
        @functools.partial(jax.jit, inline=True)
        def step(
            state: TrainState, split: ResidentSplit, captions: jax.Array, length_index: jax.Array
        ) -> tuple[TrainState, Metrics]:
            regions = gather_regions(split, split.image_of_caption[captions], mesh, placement)
            branches = [
                lambda length=length: gradient(state, gather_captions(split, captions, regions, length, mesh))
                for length in caption_lengths
            ]
            # The update stays outside of the branches, so that XLA updates the state in place.
            return update(state, jax.lax.switch(length_index, branches))

        def numbered(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = carry
            state, values = step(state, split, captions[i], length_index[i])
            return state, {name: metrics[name].at[i].set(value) for name, value in values.items()}

        _, shapes = jax.eval_shape(step, state, split, captions[0], length_index[0])
        metrics = jax.tree.map(lambda value: jnp.zeros((len(captions), *value.shape), value.dtype), shapes)
        return jax.lax.fori_loop(0, num_steps, numbered, (state, metrics))

    everywhere = replicated(mesh)
    return jax.jit(steps, out_shardings=(everywhere, everywhere), donate_argnums=0)


class _Gradient(NamedTuple):
    """Of one batch."""

    gradients: Any
    metrics: Metrics
    batch_stats: Any


def _gradient(parts: StepParts) -> Callable[[TrainState, Batch], _Gradient]:
    model, graph, settings = parts.model, parts.graph, parts.settings

    def gradient(state: TrainState, batch: Batch) -> _Gradient:
        contrast = Contrast(settings.margin, state.step >= settings.all_negatives_steps, settings.negative_temperature)

        def objective(params):
            scale = jnp.exp(jnp.minimum(params["log_scale"], LARGEST_LOG_SCALE)) if settings.infonce else None
            compared = contrast._replace(scale=scale)
            outputs, updated = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.regions,
                batch.captions,
                graph,
                negatives(batch.image_index, mask_same_image=settings.mask_same_image),
                _mining_temperature(compared),
                num_regions=batch.num_regions,
                train=True,
                rngs={"dropout": jax.random.fold_in(state.key, state.step)},
                mutable=["batch_stats", "intermediates"],
            )
            options = {"mask_same_image": settings.mask_same_image, "reduction": settings.reduction}
            if isinstance(outputs, PairScores):
                losses, hard = pair_loss_terms(outputs, batch.image_index, compared, **options)
            else:
                image, text = outputs
                block = settings.similarity_block
                losses, hard = loss_terms(image, text, batch.image_index, compared, **options, similarity_block=block)
            weights = loss_weights(losses, settings.base_weights, settings.weighting)
            total = sum(jax.tree.leaves(jax.tree.map(jnp.multiply, losses, weights)))
            return total, (losses, weights, hard, updated)

        (total, (losses, weights, hard, updated)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        metrics = {"loss": total}
        metrics |= {f"loss_{name}": value for name, value in losses.present().items()}
        metrics |= {f"weight_{name}": value for name, value in weights.present().items()}
        metrics |= {f"hardness_{name}": value for name, value in hard.items()}
        entropies = attention_entropy(updated.get("intermediates", {}))
        metrics |= {f"attention_entropy_{name.split('_')[0]}": value for name, value in entropies.items()}
        return _Gradient(gradients, metrics, updated.get("batch_stats", {}))

    return gradient


def _mining_temperature(contrast: Contrast) -> jax.Array:
    """Returns that by which a pair model draws the negatives that it scores, so that they are as hard as the loss's."""
    if contrast.scale is not None:
        return 1 / jax.lax.stop_gradient(contrast.scale[0])
    if contrast.temperature:
        return jnp.asarray(contrast.temperature)
    return jnp.where(contrast.hardest, 0.0, jnp.inf)


def _update(parts: StepParts) -> Callable[[TrainState, _Gradient], tuple[TrainState, Metrics]]:
    optimizer, schedule = parts.optimizer, parts.schedule

    def take(state: TrainState, found: _Gradient) -> TrainState:
        updates, opt_state = optimizer.update(found.gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, batch_stats=found.batch_stats, opt_state=opt_state)

    def update(state: TrainState, found: _Gradient) -> tuple[TrainState, Metrics]:
        norm = optax.tree.norm(found.gradients)
        metrics = found.metrics | {"learning_rate": schedule(state.step), "gradient_norm": norm}
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        if platform() == "cpu":
            # What is computed around an update is not fused with it then, so parameters of one shape are one kernel.
            next_state = jax.lax.cond(finite, take, lambda state, _: state, state, found)
        else:  # a device would wait for the host to choose a branch
            next_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), take(state, found), state)
        return next_state.replace(step=state.step + 1), metrics

    return update
