"""Trains an experiment, from its start to its best checkpoint."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from mhcvse_jax import models
from mhcvse_jax.data import batches, word_vectors
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.word_vectors import WordVectors
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.compilation import Compilations
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import parts, training_parts
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.training import loop
from mhcvse_jax.training.checkpoint import Checkpoints, Progress
from mhcvse_jax.training.feed import make_feed
from mhcvse_jax.training.loop import LoopSettings
from mhcvse_jax.training.metrics_log import MetricsLog, NoLog
from mhcvse_jax.training.step import LossSettings, TrainState, initialize
from mhcvse_jax.training.watches import CollapseWatch, NonFiniteWatch, collapse_values


class Start(NamedTuple):
    """What a training starts from, if not from random values."""

    word_vectors: WordVectors | None = None  # a row per word of the vocabulary
    variables: Any = None  # {params, batch_stats}, which the first step takes over


def prepare(experiment: Experiment, train_split: Split, *, has_begun: bool) -> Start:
    """Returns what the training starts from, and prints it.

    Args:
      experiment: what is trained.
      train_split: what it learns from.
      has_begun: whether it goes on from a checkpoint of its own.

    Raises:
      InputError: a batch is larger than the data, or a file or the run to start from cannot be used.
    """
    size, captions = experiment.config.batch_size, train_split.num_captions
    if size > captions:
        raise InputError(f"config.batch_size is {size}; expected at most the {captions} captions of train")
    vectors = _initial_word_vectors(experiment)
    return Start(vectors, None if has_begun else _initial_variables(experiment, train_split.regions.shape[1:]))


def _initial_word_vectors(experiment: Experiment) -> WordVectors | None:
    config, words = experiment.config, experiment.language.vocabulary.words
    path = config.text.word_vectors_path
    if not path:
        return None
    vectors = word_vectors.read_word_vectors(path, words, config.model.word_dim, config.seed)
    print(describe_word_vectors(path, words, vectors))
    return vectors


def describe_word_vectors(path: str, words: Sequence[str], vectors: WordVectors) -> str:
    """Returns how many words have a vector, and a warning if most have none."""
    covered = f"{vectors.found.sum():,} of {len(words):,} tokens ({100 * vectors.found.mean():.1f}%)"
    lowered = f", {vectors.num_lowered:,} of them only in capitals" if vectors.num_lowered else ""
    lines = [f"words     {path} has {covered}{lowered}"]
    if vectors.found.mean() < 0.5:
        missing = [word for word, found in zip(words, vectors.found, strict=True) if not found and word.isalnum()]
        lines.append(
            "warning: more than half of the words have no vector in this file, "
            f"for example {', '.join(missing[:5])}; these words start with random vectors"
        )
    return "\n".join(lines)


def _initial_variables(experiment: Experiment, regions_shape: tuple[int, ...]) -> Any:
    if not experiment.config.start_from:
        return None
    start = pathlib.Path(experiment.config.start_from)
    variables, progress = dataclasses.replace(experiment, workdir=start).restore_best(regions_shape)
    print(f"starting  from {start}, {progress.best()}")
    return variables


def train(experiment: Experiment, train_split: Split, dev_split: Split, start: Start) -> Progress:
    """Returns the progress of the finished training; goes on from the workdir's latest checkpoint.

    Args:
      experiment: what is trained.
      train_split: what it learns from.
      dev_split: what every epoch is validated on.
      start: what it begins with.

    Raises:
      InputError: the workdir holds a run on other data.
      Interrupted: a signal asked to stop; all is saved.
      RunFailedError: a loss is not finite.
    """
    with jax.default_matmul_precision(parts.precision(experiment.config)):
        return _train(experiment, train_split, dev_split, start)


def _train(experiment: Experiment, train_split: Split, dev_split: Split, start: Start) -> Progress:
    config, mesh, compilations = experiment.config, experiment.mesh, Compilations()
    steps = batches.steps_per_epoch(train_split, config.batch_size)
    step_parts = training_parts.step_parts(config, experiment.model, experiment.graph, mesh, steps)
    state = initialize(
        step_parts,
        regions_shape=train_split.regions.shape[1:],
        seed=config.seed,
        word_vectors=start.word_vectors,
    )
    if start.variables is not None:
        state = state.replace(**start.variables)
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    dim = config.model.embedding_dim
    print(f"model     {config.model.name}, D {dim}, {parts.choices(config)}: {parameters:,} parameters")
    print(
        f"training  {config.num_epochs} epochs of {steps:,} steps of {config.batch_size} pairs; "
        f"{config.loss.weighting} weights, {config.loss.reduction} over the batch; seed {config.seed}",
        flush=True,
    )
    settings = training_parts.loop_settings(config, steps)
    checkpoints = Checkpoints(
        experiment.workdir / "checkpoints",
        keep_best=config.checkpoint.keep_best,
        keep_latest=config.checkpoint.keep_latest,
    )
    state, progress = _resume(experiment, checkpoints, state, settings)
    if loop.is_over(settings, progress):
        checkpoints.close()
        return progress
    feeding, were_on_devices = training_parts.feed_settings(config), progress.features_on_devices
    feed = make_feed(step_parts, feeding, train_split, state, were_on_devices=were_on_devices)
    progress.features_on_devices = feed.on_devices
    log = MetricsLog(experiment.workdir, resume_step=int(state.step)) if distributed.is_first() else NoLog()
    try:
        return loop.train(
            settings,
            state,
            progress,
            feed=feed,
            encode=experiment.encoder,
            dev_split=dev_split,
            mesh=mesh,
            checkpoints=checkpoints,
            collapse_watch=_collapse_watch(experiment, step_parts.settings),
            nonfinite_watch=_nonfinite_watch(experiment, train_split),
            log=log,
            compilations=compilations,
        )
    finally:
        log.close()
        checkpoints.close()
        compilations.close()


def _resume(
    experiment: Experiment, checkpoints: Checkpoints, state: TrainState, settings: LoopSettings
) -> tuple[TrainState, Progress]:
    """Returns state and progress of the latest checkpoint; the state that was given where there is none."""
    latest = checkpoints.newest_step()
    if latest is None:
        return state, Progress()
    state, progress = checkpoints.restore(state, latest, experiment.mesh)
    if loop.is_over(settings, progress):
        return state, progress
    steps = settings.steps_per_epoch
    if not 0 <= latest - progress.epochs_done * steps < steps:
        raise InputError(
            f"{experiment.workdir} is at step {latest} after {progress.epochs_done} epochs, but an epoch of these "
            f"data has {steps} steps; expected the data that it began with, or another --workdir"
        )
    print(f"resuming  at step {latest:,}, epoch {progress.epochs_done + 1}", flush=True)
    return state, progress


def _collapse_watch(experiment: Experiment, settings: LossSettings) -> CollapseWatch:
    config = experiment.config
    mined = config.model.mined_negatives if "mined_negatives" in models.keys(config.model.name) else 0
    return CollapseWatch(collapse_values(settings, config.batch_size, mined), config.log.collapse_steps)


def _nonfinite_watch(experiment: Experiment, train_split: Split) -> NonFiniteWatch:
    config = experiment.config

    def pictures_of(step: int) -> list[str]:
        steps = batches.steps_per_epoch(train_split, config.batch_size)
        epoch, step_of_epoch = divmod(step - 1, steps)
        captions = batches.captions_of_step(
            train_split.num_captions, step_of_epoch, batch_size=config.batch_size, seed=config.seed, epoch=epoch
        )
        return [train_split.image_ids[image] for image in train_split.image_of_caption[captions]]

    return NonFiniteWatch(config.optimizer.nonfinite_steps, config.optimizer.nonfinite_limit, pictures_of)
