"""One training step over all devices: embeddings or pair scores, losses, their weights, gradients, update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mhcvse_jax.data.batches import Batch
from mhcvse_jax.data.word_vectors import WordVectors
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.layers.self_attention import attention_entropy
from mhcvse_jax.loss_weighting import loss_weights
from mhcvse_jax.losses import LossTerms, loss_terms, negatives
from mhcvse_jax.mesh import by_batch, replicated
from mhcvse_jax.models import Model
from mhcvse_jax.models.pair_scores import PairScores
from mhcvse_jax.pair_losses import pair_loss_terms

Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """All that a step changes. Everything that decides the next step is in here or in the batch."""

    step: jax.Array  # <int32>, steps done
    params: Any
    batch_stats: Any  # of batch norm; empty where there is none
    opt_state: Any
    key: jax.Array  # of dropout; a step folds its number in


class LossSettings(NamedTuple):
    """`config.loss` by name, with the epochs of all negatives in steps."""

    margin: float
    reduction: str
    weighting: str
    base_weights: LossTerms
    mask_same_image: bool
    all_negatives_steps: int


def init_variables(model: Model, graph: ConceptGraph, regions_shape: tuple[int, ...], key: jax.Array) -> dict[str, Any]:
    """Returns fresh {params, batch_stats} for pictures of `regions_shape`, (regions, features)."""
    variables = model.init(
        key,
        jnp.zeros((1, *regions_shape)),
        jnp.zeros((1, 2), jnp.int32),
        jnp.full((1,), 2, jnp.int32),
        jnp.zeros((1, graph.nodes.shape[0]), bool),
        graph,
        train=False,
    )
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def initialize(
    model: Model,
    optimizer: optax.GradientTransformation,
    graph: ConceptGraph,
    *,
    regions_shape: tuple[int, ...],
    seed: int,
    mesh: Mesh,
    word_vectors: WordVectors | None = None,
) -> TrainState:
    """Returns the state before the first step, replicated over the mesh.

    Args:
      model: the model.
      optimizer: what `make_optimizer` returned.
      graph: the concept graph.
      regions_shape: (regions, features) of a picture.
      seed: of parameters and dropout.
      mesh: the devices.
      word_vectors: of the vocabulary; words without one keep their random vector.
    """

    def create() -> TrainState:
        init_key, dropout_key = jax.random.split(jax.random.key(seed))
        variables = init_variables(model, graph, regions_shape, init_key)
        params = variables["params"]
        if word_vectors is not None:
            embed = params["text_gru"]["embed"]
            embed["embedding"] = jnp.where(word_vectors.found[:, None], word_vectors.vectors, embed["embedding"])
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(params),
            key=dropout_key,
        )

    return jax.jit(create, out_shardings=replicated(mesh))()


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    graph: ConceptGraph,
    settings: LossSettings,
    mesh: Mesh,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the compiled step: (state, batch) -> (next state, metrics).

    The batch is split over the mesh; similarities, and with them the negatives, span the whole of it: XLA puts
    in the collectives. The state is donated. Compiles once for each caption length of the batches. Where the
    loss or the gradient is not finite, the next state is this one with its step counted.

    Metrics are <float32> scalars on the device: `loss` (weighted total), `loss_*` and `weight_*` for each term,
    `learning_rate`, `gradient_norm` (before clipping), `attention_entropy_*` where there is attention.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def objective(params):
            outputs, updated = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.regions,
                batch.tokens,
                batch.lengths,
                batch.labels,
                graph,
                negatives(batch.image_index, mask_same_image=settings.mask_same_image),
                train=True,
                rngs={"dropout": jax.random.fold_in(state.key, state.step)},
                mutable=["batch_stats", "intermediates"],
            )
            options = {
                "margin": settings.margin,
                "mask_same_image": settings.mask_same_image,
                "hardest": state.step >= settings.all_negatives_steps,
                "reduction": settings.reduction,
            }
            if isinstance(outputs, PairScores):
                losses = pair_loss_terms(outputs, batch.image_index, **options)
            else:
                image, text = outputs
                losses = loss_terms(image, text, batch.image_index, **options)
            weights = loss_weights(losses, settings.base_weights, settings.weighting)
            total = sum(jax.tree.leaves(jax.tree.map(jnp.multiply, losses, weights)))
            return total, (losses, weights, updated)

        (total, (losses, weights, updated)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics = {"loss": total, "learning_rate": schedule(state.step)}
        metrics |= {f"loss_{name}": value for name, value in losses.present().items()}
        metrics |= {f"weight_{name}": value for name, value in weights.present().items()}
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        entropies = attention_entropy(updated.get("intermediates", {}))
        metrics |= {f"attention_entropy_{name.split('_')[0]}": value for name, value in entropies.items()}
        next_state = state.replace(
            params=optax.apply_updates(state.params, updates),
            batch_stats=updated.get("batch_stats", {}),
            opt_state=opt_state,
        )
        finite = jnp.isfinite(total) & jnp.isfinite(metrics["gradient_norm"])
        next_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), next_state, state)
        return next_state.replace(step=state.step + 1), metrics

    everywhere = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, by_batch(mesh)),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )
