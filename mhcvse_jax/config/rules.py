"""Which values a run can use: each key's own range, and rules that span several keys."""

from collections.abc import Callable

from mhcvse_jax.config.access import lookup
from mhcvse_jax.config.declare import wrong
from mhcvse_jax.config.defaults import KEYS, Config
from mhcvse_jax.errors import InputError


def check(config: Config) -> None:
    """Raises InputError for the first value that no run could use, and names its key."""
    for name, key in KEYS.items():
        value = lookup(config, name)
        expected = wrong(value, key.allowed)
        if expected:
            raise InputError(f"config.{name} is {value!r}; expected {expected}")
    for rule in RULES:
        rule(config)


def _model(config: Config) -> None:
    from mhcvse_jax import models  # here, as it brings in JAX, which a configuration is read without elsewhere

    model, name = models.MODELS[config.model.name], config.model.name
    model.check(config.model)
    block = config.loss.similarity_block
    if block and issubclass(model, models.PairModel):
        raise InputError(f"config.loss.similarity_block is {block}; expected 0, as {name} scores pairs")
    has = models.keys(name)
    protocol = config.eval.protocol
    if "label_share" not in has and protocol == "label_completion":
        raise InputError(f"config.eval.protocol is {protocol!r}; expected another, as {name} has no labels")
    if protocol == "qb_norm" and issubclass(model, models.PairModel):
        raise InputError(f"config.eval.protocol is {protocol!r}; expected another, as {name} has no embeddings")
    if "consensus_temperature" not in has and config.eval.consensus_weight:
        weight = config.eval.consensus_weight
        raise InputError(f"config.eval.consensus_weight is {weight}; expected 0, as {name} has no consensus")


def _similarity_block(config: Config) -> None:
    block = config.loss.similarity_block
    if block and config.batch_size % block:
        raise InputError(
            f"config.loss.similarity_block is {block}, which does not divide batch_size {config.batch_size}"
        )


def _given_concepts(config: Config) -> None:
    if bool(config.concepts.words_path) != bool(config.concepts.counts_path):
        raise InputError("config.concepts.words_path and config.concepts.counts_path need each other; one is empty")


def _start_from(config: Config) -> None:
    for key in ("text.vocabulary_path", "text.word_vectors_path", "concepts.words_path", "concepts.vectors_path"):
        if config.start_from and lookup(config, key):
            raise InputError(
                f"config.{key} is {lookup(config, key)}; expected none, as words and concepts are those of "
                f"config.start_from, {config.start_from}"
            )


def _warmup(config: Config) -> None:
    if config.optimizer.warmup_epochs >= config.num_epochs:
        raise InputError(
            f"config.optimizer.warmup_epochs is {config.optimizer.warmup_epochs}; "
            f"expected less than num_epochs {config.num_epochs}"
        )


RULES: tuple[Callable[[Config], None], ...] = (_model, _similarity_block, _given_concepts, _start_from, _warmup)
"""Rules that span several keys; each raises InputError if they do not fit together."""
