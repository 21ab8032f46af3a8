"""Trains and tests a model.

    python -m mhcvse_jax.main --config configs/f30k.py --config.data.dir=data/f30k_precomp

Any key of the configuration can be overridden: --config.batch_size=64 --config.model.fusion=concat. All keys
stand, with their meaning, in mhcvse_jax/config.py. Started again with the same workdir it resumes; a finished
run prints its results.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from mhcvse_jax import __version__, command_line, results
from mhcvse_jax import config as config_lib
from mhcvse_jax.data import batches, dataset, word_vectors
from mhcvse_jax.data.dataset import Language, Split
from mhcvse_jax.data.text import unknown_share
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import Experiment, open_checkpoints
from mhcvse_jax.losses import LossTerms
from mhcvse_jax.retrieval import matches, protocols, twins
from mhcvse_jax.training import loop
from mhcvse_jax.training.checkpoint import Progress
from mhcvse_jax.training.metrics_log import MetricsLog
from mhcvse_jax.training.optimizer import learning_rate_schedule, make_optimizer
from mhcvse_jax.training.step import LossSettings, initialize, make_train_step

FREE_TO_CHANGE = ("data.dir", "data.prefetch_batches", "data.read_threads", "log.", "checkpoint.")
"""Keys that may differ when a run is resumed: they do not change its results."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 finished, 2 bad input, 3 the run failed, 75 stopped and to be started again."""
    parser = argparse.ArgumentParser(
        prog="python -m mhcvse_jax.main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="a file in configs/")
    parser.add_argument(
        "--workdir", metavar="DIR", type=pathlib.Path, help="what the run writes (default: runs/NAME of the config)"
    )
    parser.add_argument("--config.KEY", metavar="VALUE", help="overrides a key of the configuration")
    arguments, overrides = parser.parse_known_args(argv)
    workdir = arguments.workdir or pathlib.Path("runs") / pathlib.Path(arguments.config).stem
    return command_line.run(lambda: run(config_lib.read(arguments.config, overrides), workdir))


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Trains where that is not finished, tests once, and prints the results."""
    claim(workdir, config)
    results_path = workdir / "results.json"
    if results_path.exists():
        print(f"{workdir} is finished; its results:")
    else:
        train_and_test(config, workdir, results_path)
    finished = results.load_results(results_path)
    print(protocols.table(finished["results"]))
    if "twins" in finished:
        print(twins.describe(finished["twins"]))
    print(f"results in {results_path}")


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Makes the workdir of this configuration, or checks that it is one.

    Raises:
      InputError: it cannot be written, or belongs to a run with another configuration.
    """
    path = workdir / "config.json"
    if path.exists():
        saved = config_lib.load(path)
        for key in config_lib.keys(config):
            old, new = config_lib.lookup(saved, key), config_lib.lookup(config, key)
            if old != new and not key.startswith(FREE_TO_CHANGE):
                raise InputError(
                    f"{workdir} holds a run with config.{key}={old!r}, not {new!r}; expected the same, or another "
                    "--workdir"
                )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        config_lib.save(config, path)
    except OSError as error:
        raise InputError(f"{workdir}: cannot be written ({error.strerror})") from error


def train_and_test(config: ConfigDict, workdir: pathlib.Path, results_path: pathlib.Path) -> None:
    """Trains from the latest checkpoint, or from the start; tests the best once; writes the results."""
    print(f"mhcvse_jax {__version__}: {config.model.name} in {workdir}", flush=True)
    directory = dataset.data_directory(config, workdir)
    train_split, dev_split, language = dataset.load_training(config, directory)
    language.save(workdir)
    experiment = Experiment.assemble(config, workdir, language)
    progress = train(experiment, train_split, dev_split, directory)
    rows, more = test(experiment, directory, width=train_split.regions.shape[2])
    results.save_results(results_path, rows, seed=config.seed, seconds=progress.train_seconds, **more)


def train(experiment: Experiment, train_split: Split, dev_split: Split, directory: pathlib.Path) -> Progress:
    """Returns the progress of the finished training of an experiment; says what it is about to do."""
    config, mesh = experiment.config, experiment.mesh
    steps = batches.steps_per_epoch(train_split, config.batch_size)
    if not steps:
        raise InputError(
            f"config.batch_size is {config.batch_size}, but the training split has {train_split.num_captions} captions"
        )
    schedule = learning_rate_schedule(
        peak=config.optimizer.learning_rate,
        total_steps=config.num_epochs * steps,
        warmup_steps=round(config.optimizer.warmup_epochs * steps),
        cycles=config.optimizer.cosine_cycles,
        final_share=config.optimizer.final_rate_share,
    )
    optimizer = make_optimizer(
        schedule,
        clip_norm=config.optimizer.clip_norm,
        b1=config.optimizer.adam_b1,
        b2=config.optimizer.adam_b2,
        eps=config.optimizer.adam_eps,
        gcn_rate_factor=config.optimizer.gcn_rate_factor,
    )
    describe_data(config, train_split, dev_split, experiment.language, directory)
    vectors = initial_word_vectors(config, experiment.language)
    example = batches.read_batch(train_split, batches.epoch_order(config.batch_size, seed=0, epoch=0), (2,))
    state = initialize(
        experiment.model, optimizer, experiment.graph, example, seed=config.seed, mesh=mesh, word_vectors=vectors
    )
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    print(f"model     D {config.model.embedding_dim}, {config.model.num_heads} heads, {config.model.fusion}; "
          f"{parameters:,} parameters, {len(experiment.graph.edges):,} weights in the concept graph")
    print(f"training  {config.num_epochs} epochs of {steps:,} steps of {config.batch_size} pairs; "
          f"{config.loss.weighting} weights, {config.loss.reduction} over the batch; seed {config.seed}", flush=True)
    step_fn = make_train_step(
        experiment.model, optimizer, schedule, experiment.graph, loss_settings(config, steps), mesh
    )
    checkpoints = open_checkpoints(config, experiment.workdir)
    progress = Progress()
    latest = checkpoints.latest_step()
    if latest is not None:
        state, progress = checkpoints.restore(state, latest, mesh)
        print(f"resuming  at step {latest:,}, epoch {latest // steps + 1}", flush=True)
    log = MetricsLog(experiment.workdir, resume_step=latest or 0)
    try:
        progress = loop.train(
            config,
            state,
            progress,
            step_fn=step_fn,
            encode=experiment.encode,
            train_split=train_split,
            dev_split=dev_split,
            mesh=mesh,
            checkpoints=checkpoints,
            log=log,
        )
    finally:
        log.close()
        checkpoints.close()
    why = "" if progress.epochs_done == config.num_epochs else f", {config.patience_epochs} epochs without a better one"
    print(f"\ntrained   {progress.epochs_done} epochs{why}; best dev rsum {progress.best_rsum:.1f} "
          f"at step {progress.best_step:,}", flush=True)
    return progress


def loss_settings(config: ConfigDict, steps_per_epoch: int) -> LossSettings:
    """Returns `config.loss` for the step."""
    loss = config.loss
    return LossSettings(
        margin=loss.margin,
        reduction=loss.reduction,
        weighting=loss.weighting,
        base_weights=LossTerms(loss.fusion_weight, loss.instance_weight, loss.consensus_weight, loss.kl_weight),
        mask_same_image=loss.mask_same_image,
        all_negatives_steps=round(loss.all_negatives_epochs * steps_per_epoch),
    )


def initial_word_vectors(config: ConfigDict, language: Language) -> word_vectors.WordVectors | None:
    """Returns the vectors that the user brought, and says how many words they cover; None for random ones."""
    if not config.text.word_vectors_path:
        return None
    words = language.vocabulary.words
    vectors = word_vectors.read_word_vectors(
        pathlib.Path(config.text.word_vectors_path), words, config.model.word_dim
    )
    print(f"words     {config.text.word_vectors_path} has {vectors.found.sum():,} of {len(words):,} tokens "
          f"({100 * vectors.found.mean():.1f}%)")
    return vectors


def describe_data(
    config: ConfigDict, train_split: Split, dev_split: Split, language: Language, directory: pathlib.Path
) -> None:
    """Prints devices, data, vocabulary and concepts."""
    regions, width = train_split.regions.shape[1:]
    counts = "; ".join(f"{s.name} {s.num_images:,} pictures, {s.num_captions:,} captions" for s in (train_split, dev_split))
    kinds = [language.concepts.kinds.count(kind) for kind in ("object", "property", "motion")]
    print(f"devices   {results.device_name()}, {config.compute_dtype}")
    print(f"data      {directory}: {counts}; {regions} regions of {width}")
    print(f"text      {len(language.vocabulary):,} tokens, {100 * unknown_share(dev_split):.2f}% of dev unknown; "
          f"captions of {train_split.lengths.mean():.1f} tokens, {train_split.lengths.max()} at most; "
          f"stop words {'removed' if language.remove_stop_words else 'kept'}")
    print(f"concepts  {len(language.concepts.words)} ({kinds[0]} objects, {kinds[1]} properties, {kinds[2]} motions); "
          f"on in {100 * train_split.caption_labels.any(axis=1).mean():.1f}% of training captions, "
          f"{100 * train_split.image_labels.any(axis=1).mean():.1f}% of pictures", flush=True)


def test(experiment: Experiment, directory: pathlib.Path, *, width: int) -> tuple[list[dict], dict]:
    """Returns the rows of all test splits by the best checkpoint, and what else `results.json` holds.

    Draws the matches where the configuration asks for them.
    """
    config = experiment.config
    rows, more = [], {}
    encoded, split = None, None
    for name, folds in zip(config.eval.test_splits, config.eval.folds, strict=True):
        if split is None or split.name != name:
            split = dataset.load_split(
                directory,
                name,
                experiment.language,
                captions_per_image=config.data.num_captions_per_image,
                width=width,
            )
            encoded = experiment.encode(experiment.best_variables(split), split)
            pairs = twins.read(directory, name)
            if pairs is not None:
                more["twins"] = twins.measure(encoded, split, pairs)
            if config.log.matches:
                image_dir = pathlib.Path(config.log.image_dir or directory / "images")
                path = experiment.workdir / f"matches_{name}.png"
                if matches.draw(encoded, split, image_dir, path, num_queries=config.log.matches, seed=config.seed):
                    print(f"matches   {path}")
        rows += experiment.test(encoded, split, folds=folds)
    return rows, more


if __name__ == "__main__":
    sys.exit(main())
