"""Turns a configuration into the values that a training needs, and that nothing else does."""

import optax
from jax.sharding import Mesh

from mhcvse_jax.config import Config
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.losses import LossTerms
from mhcvse_jax.models import Model
from mhcvse_jax.training.feed import FeedSettings
from mhcvse_jax.training.loop import LoopSettings
from mhcvse_jax.training.optimizer import cosine_schedule, make_optimizer, step_schedule
from mhcvse_jax.training.step import LossSettings, StepParts


def schedule_and_optimizer(config: Config, steps_per_epoch: int) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Returns the rate by step and the optimizer that `config.optimizer` describes."""
    values = config.optimizer
    warmup_steps = round(values.warmup_epochs * steps_per_epoch)
    if values.schedule == "cosine":
        schedule = cosine_schedule(
            peak=values.learning_rate,
            total_steps=config.num_epochs * steps_per_epoch,
            warmup_steps=warmup_steps,
            cycles=values.cosine_cycles,
            final_share=values.final_rate_share,
        )
    else:
        schedule = step_schedule(
            peak=values.learning_rate,
            warmup_steps=warmup_steps,
            steps=values.step_epochs * steps_per_epoch,
            factor=values.step_factor,
        )
    optimizer = make_optimizer(
        schedule,
        clip_norm=values.clip_norm,
        b1=values.adam_b1,
        b2=values.adam_b2,
        eps=values.adam_eps,
        gcn_rate_factor=values.gcn_rate_factor,
        weight_decay=values.weight_decay,
    )
    return schedule, optimizer


def loss_settings(config: Config, steps_per_epoch: int) -> LossSettings:
    """Returns `config.loss` as the step takes it."""
    loss = config.loss
    return LossSettings(
        margin=loss.margin,
        reduction=loss.reduction,
        weighting=loss.weighting,
        base_weights=LossTerms(*(loss[f"{name}_weight"] for name in LossTerms._fields)),
        mask_same_image=loss.mask_same_image,
        all_negatives_steps=all_negatives_steps(config, steps_per_epoch),
        negative_temperature=loss.negative_temperature if loss.negatives == "soft" else 0.0,
        infonce=loss.contrastive == "infonce",
        similarity_block=loss.similarity_block,
    )


def all_negatives_steps(config: Config, steps_per_epoch: int) -> int:
    """Returns the number of steps in which all negatives count; at most the whole run."""
    return round(min(config.loss.all_negatives_epochs, config.num_epochs) * steps_per_epoch)


def step_parts(config: Config, model: Model, graph: ConceptGraph, mesh: Mesh, steps_per_epoch: int) -> StepParts:
    """Returns what a training step is made of."""
    schedule, optimizer = schedule_and_optimizer(config, steps_per_epoch)
    return StepParts(model, optimizer, schedule, graph, loss_settings(config, steps_per_epoch), mesh)


def feed_settings(config: Config) -> FeedSettings:
    """Returns how training batches are made and read."""
    return FeedSettings(
        batch_size=config.batch_size,
        seed=config.seed,
        caption_lengths=config.data.caption_lengths,
        training_label=config.concepts.training_label,
        placement=config.data.placement,
        dtype=config.compute_dtype,
        steps_per_dispatch=config.steps_per_dispatch,
        threads=config.data.read_threads,
        prefetch=config.data.prefetch_batches,
    )


def loop_settings(config: Config, steps_per_epoch: int) -> LoopSettings:
    """Returns how long a training lasts, and how often it logs and saves."""
    return LoopSettings(
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
        num_epochs=config.num_epochs,
        patience_epochs=config.patience_epochs,
        log_every_steps=config.log.every_steps,
        save_every_minutes=config.checkpoint.every_minutes,
        consensus_weight=config.eval.consensus_weight,
    )
