"""Which values a run can use."""

from collections.abc import Sequence
from typing import Any

from mhcvse_jax import models
from mhcvse_jax.config.access import lookup
from mhcvse_jax.config.defaults import CHOICES, Config
from mhcvse_jax.errors import InputError
from mhcvse_jax.models.cross_attention import LEVELS


def check(config: Config) -> None:
    """Raises InputError for the first value that no run could use, naming its key."""
    for key, choices in CHOICES.items():
        value = lookup(config, key)
        if value not in choices:
            raise InputError(f"config.{key} is {value!r}; expected one of {', '.join(map(repr, choices))}")
    positive = """batch_size steps_per_dispatch num_epochs patience_epochs data.num_captions_per_image
        data.prefetch_batches data.read_threads text.min_count concepts.num concepts.vector_dim
        model.embedding_dim model.word_dim
        optimizer.learning_rate optimizer.cosine_cycles optimizer.step_epochs optimizer.step_factor
        optimizer.gcn_rate_factor optimizer.clip_norm model.gpo_dim model.gpo_temperature model.cross_layers
        model.cross_temperature model.scan_attention_temperature model.scan_lse_temperature eval.batch_size
        eval.pair_images eval.pair_captions eval.pair_resident_images checkpoint.keep_best checkpoint.keep_latest
        checkpoint.every_minutes log.every_steps log.collapse_steps"""
    for key in positive.split():
        if not lookup(config, key) > 0:
            raise InputError(f"config.{key} is {lookup(config, key)}; expected more than 0")
    not_negative = """model.num_heads model.mined_negatives loss.margin loss.fusion_weight loss.instance_weight
        loss.consensus_weight loss.kl_weight loss.matching_weight loss.similarity_block loss.all_negatives_epochs
        optimizer.warmup_epochs optimizer.nonfinite_limit eval.max_captions eval.validation_captions log.matches seed"""
    for key in not_negative.split():
        if not lookup(config, key) >= 0:
            raise InputError(f"config.{key} is {lookup(config, key)}; expected 0 or more")
    parts = """model.dropout_rate model.attention_dropout_rate model.label_share model.fixed_instance_weight
        optimizer.final_rate_share optimizer.step_factor eval.consensus_weight data.scenes.twin_share"""
    for key in parts.split():
        if not 0 <= lookup(config, key) <= 1:
            raise InputError(f"config.{key} is {lookup(config, key)}; expected a share between 0 and 1")
    if config.loss.similarity_block and issubclass(models.MODELS[config.model.name], models.PairModel):
        raise InputError(
            f"config.loss.similarity_block is {config.loss.similarity_block}; expected 0, as {config.model.name} "
            "scores pairs"
        )
    if config.loss.similarity_block and config.batch_size % config.loss.similarity_block:
        raise InputError(
            f"config.loss.similarity_block is {config.loss.similarity_block}, which does not divide batch_size "
            f"{config.batch_size}"
        )
    heads, dim = config.model.num_heads, config.model.embedding_dim
    if heads and dim % heads:
        raise InputError(f"config.model.num_heads is {heads}, which does not divide model.embedding_dim {dim}")
    name, has = config.model.name, models.keys(config.model.name)
    if not heads and "cross_layers" in has:
        raise InputError(f"config.model.num_heads is 0; expected 1 or more for {name}")
    levels = config.model.cross_levels
    if not levels or any(level not in LEVELS or levels.count(level) > 1 for level in levels):
        raise InputError(
            f"config.model.cross_levels is {levels}; expected one or more of {', '.join(LEVELS)}, once each"
        )
    if heads and "num_heads" not in has:
        raise InputError(f"config.model.num_heads is {heads}; expected 0, as {name} has no heads")
    if "label_share" not in has and config.eval.protocol != "standard":
        raise InputError(
            f"config.eval.protocol is {config.eval.protocol!r}; expected 'standard', as {name} has no labels"
        )
    if "consensus_temperature" not in has and config.eval.consensus_weight:
        weight = config.eval.consensus_weight
        raise InputError(f"config.eval.consensus_weight is {weight}; expected 0, as {name} has no consensus")
    lengths = config.data.caption_lengths
    if not lengths or not _whole(lengths, 2) or sorted(set(lengths)) != list(lengths):
        raise InputError(f"config.data.caption_lengths is {lengths}; expected rising whole numbers of 2 or more")
    if not config.eval.folds or not _whole(config.eval.folds, 1):
        raise InputError(f"config.eval.folds is {config.eval.folds}; expected whole numbers of 1 or more")
    shares = config.concepts.shares
    if len(shares) != 3 or not _whole(shares, 0) or not any(shares):
        raise InputError(f"config.concepts.shares is {shares}; expected three whole numbers, not all 0")
    if not config.concepts.scale > 1:
        raise InputError(f"config.concepts.scale is {config.concepts.scale}; expected more than 1")
    if bool(config.concepts.words_path) != bool(config.concepts.counts_path):
        raise InputError("config.concepts.words_path and config.concepts.counts_path go together; one is empty")
    for key in ("text.vocabulary_path", "text.word_vectors_path", "concepts.words_path", "concepts.vectors_path"):
        if config.start_from and lookup(config, key):
            raise InputError(
                f"config.{key} is {lookup(config, key)}; expected none, as words and concepts are those of "
                f"config.start_from, {config.start_from}"
            )
    if config.optimizer.warmup_epochs >= config.num_epochs:
        raise InputError(
            f"config.optimizer.warmup_epochs is {config.optimizer.warmup_epochs}; "
            f"expected less than num_epochs {config.num_epochs}"
        )


def _whole(numbers: Sequence[Any], least: int) -> bool:
    return all(isinstance(number, int) and number >= least for number in numbers)
