"""Trains and tests a model.

    python -m mhcvse_jax.main --config configs/f30k.py --config.data.dir=data/f30k_precomp

Any key of the configuration can be overridden: --config.batch_size=64 --config.model.fusion=concat. All keys
stand, with their meaning, in mhcvse_jax/config/defaults.py. Started again with the same workdir it resumes; a finished
run prints its results. Several processes are one run: see launch/ and mhcvse_jax/devices/distributed.py.
"""

import argparse
import hashlib
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mhcvse_jax import __version__, models
from mhcvse_jax import config as config_lib
from mhcvse_jax.config import Config
from mhcvse_jax.data import dataset
from mhcvse_jax.data.dataset import Language, Split, TrainingData
from mhcvse_jax.data.text import unknown_share
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.errors import InputError, Interrupted
from mhcvse_jax.evaluation import protocols, provenance, results, twins
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.experiment.parts import check_devices
from mhcvse_jax.report import matches
from mhcvse_jax.run import command_line
from mhcvse_jax.run.workdir import WorkdirLock, check_can_be_made

FREE_TO_CHANGE = (
    *("data.dir", "data.format", "data.placement", "data.prefetch_batches", "data.read_threads"),
    *("steps_per_dispatch", "eval.test_split", "eval.folds"),
    *("eval.pair_images", "eval.pair_captions", "eval.pair_resident_images"),
    *("optimizer.nonfinite_steps", "optimizer.nonfinite_limit"),
)
"""Keys that may differ when a run is resumed, beside those of `log` and `checkpoint`: they do not touch training."""

KEPT_FROM_START = (
    *("text.remove_stop_words", "text.bytes_literal"),
    *("concepts.num", "concepts.vector_dim", "concepts.scale", "concepts.shift", "concepts.threshold"),
    "concepts.neighbour_weight",
)
"""Keys that a run and the one that it starts from have in common, beside those that its model reads."""

FREE_FROM_START = ("dropout_rate", "attention_dropout_rate", "gru", "graph_product", "mined_negatives")
"""Keys of `model` that may differ: trained parameters mean the same with another value."""


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.main") -> int:
    """Returns the exit code: 0 finished, 2 bad input, 3 the run failed, 75 stopped and to be started again."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="NAME", help="one of configs/, f30k for example, or a file")
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        type=pathlib.Path,
        help="what the run writes (default: runs/NAME of the config)",
    )
    parser.add_argument("--config.KEY", metavar="VALUE", help="overrides a key of the configuration")
    parser.add_argument(
        "--dry_run", action="store_true", help="print command, processes, devices and the batch of each; do nothing"
    )
    arguments, overrides = parser.parse_known_args(argv)
    workdir = arguments.workdir or pathlib.Path("runs") / pathlib.Path(arguments.config).stem

    together = False  # whether all processes leave, and none because of an error of its own

    def command() -> None:
        nonlocal together
        distributed.initialize()
        config = config_lib.read(arguments.config, overrides)
        try:
            if arguments.dry_run:
                describe_run(config, workdir, sys.argv[1:] if argv is None else argv)
            else:
                run(config, workdir)
            together = True
        except Interrupted:
            together = True
            raise

    code = command_line.run(command)
    return distributed.leave(code, together=together)


def describe_run(config: Config, workdir: pathlib.Path, arguments: Sequence[str]) -> None:
    """Prints what would run where; makes nothing and reads no data."""
    mesh = check_devices(config)
    processes, local = jax.process_count(), jax.local_device_count()
    print(f"command   {shlex.join(['python', '-m', 'mhcvse_jax.main', *arguments])}")
    print(f"workdir   {workdir}")
    print(f"processes {processes}, {local} devices each")
    print(f"devices   {provenance.device_name()}")
    print(f"mesh      {dict(mesh.shape)}")
    for key, size in (("batch_size", config.batch_size), ("eval.batch_size", config.eval.batch_size)):
        print(f"{key:<16} {size}: {size // processes} a process, {size // mesh.size} a device")


def run(config: Config, workdir: pathlib.Path) -> None:
    """Trains where that is not finished, tests once, and prints the results."""
    keep_compiled()
    check_workdir(workdir, config)
    distributed.check_same("configuration", config.to_json())
    results_path = workdir / "results.json"
    if distributed.from_first(results_path.exists):
        print(f"{workdir} is finished; its results:")
    else:
        lock = WorkdirLock(workdir)
        if distributed.from_first(workdir.exists):
            distributed.from_first(lock.acquire)
        train_and_test(config, workdir, lock, results_path)
    finished = results.load_results(results_path)
    print(protocols.table(finished["results"]))
    if "twins" in finished:
        print(twins.describe(finished["twins"]))
    print(f"results in {results_path}")


def check_workdir(workdir: pathlib.Path, config: Config) -> None:
    """Checks that a workdir can be made, or is one of this configuration; writes nothing.

    A run that left no checkpoint may be started with another.

    Raises:
      InputError: it cannot be written, or belongs to a run with another configuration.
    """
    check_can_be_made(workdir)
    path = workdir / "config.json"
    if path.exists() and (is_begun(workdir) or (workdir / "results.json").exists()):
        saved = config_lib.load(path)
        for key in config_lib.keys(config):
            old, new = config_lib.lookup(saved, key), config_lib.lookup(config, key)
            if old != new and key not in FREE_TO_CHANGE and not key.startswith(("log.", "checkpoint.")):
                raise InputError(
                    f"{workdir} holds a run with config.{key}={old!r}, not {new!r}; expected the same, or another "
                    "--workdir"
                )


def check_start(config: Config) -> None:
    """Raises InputError where `start_from` is no run, one of another model, or one that reads captions otherwise."""
    if not config.start_from:
        return
    path = pathlib.Path(config.start_from) / "config.json"
    start = config_lib.load(path)
    read = models.keys(config.model.name) & set(config.model) - set(FREE_FROM_START)
    for key in ("model.name", *(f"model.{name}" for name in sorted(read)), *KEPT_FROM_START):
        old, new = config_lib.lookup(start, key), config_lib.lookup(config, key)
        if old != new:
            raise InputError(
                f"{path} has {key} {old!r}, and config.{key} is {new!r}; expected the same where a run starts from it"
            )


def train_and_test(config: Config, workdir: pathlib.Path, lock: WorkdirLock, results_path: pathlib.Path) -> None:
    """Trains from the latest checkpoint, or from the start; tests the best once; writes the results.

    Writes nothing in the workdir before everything that was given is known to be usable; the built-in data set
    is the exception, as it has to be drawn to be looked at.
    """
    print(f"mhcvse_jax {__version__}: {config.model.name} in {workdir}", flush=True)
    check_devices(config)
    has_begun = distributed.from_first(lambda: is_begun(workdir))  # then the workdir holds all that it started from
    if not has_begun:
        check_start(config)
    if config.data.format == "scenes":
        distributed.from_first(lock.acquire)
    directory = pathlib.Path(distributed.from_first(lambda: str(dataset.data_directory(config, workdir))))
    print(f"reading   {directory}", flush=True)
    start = workdir if has_begun else pathlib.Path(config.start_from)
    language = Language.load(start, config.text) if config.start_from else None
    data = dataset.load_training(config, directory, language)
    experiment = Experiment.assemble(config, workdir, data.language)
    # Before the training: a test split that cannot be used is to be known now.
    test_split = experiment.load_split(directory, config.eval.test_split, config.eval.folds)
    if test_split.regions.shape[1:] != data.train.regions.shape[1:]:
        raise InputError(
            f"{directory}: regions and features of {test_split.name} are {test_split.regions.shape[1:]}; "
            f"expected those of train, {data.train.regions.shape[1:]}"
        )
    experiment.check_batch_size(data.train)
    word_vectors = experiment.initial_word_vectors()
    variables = None if has_begun else experiment.initial_variables(data.train.regions.shape[1:])
    distributed.check_same("data", data_digest(data))
    distributed.from_first(lambda: prepare_workdir(config, data.language, workdir, lock))
    describe_data(config, data, test_split)
    progress = experiment.train(data.train, data.dev, initial_word_vectors=word_vectors, initial_variables=variables)
    stopped_early = progress.epochs_done < config.num_epochs
    why = f", the last {config.patience_epochs} without a better one" if stopped_early else ""
    print(
        f"trained   {progress.epochs_done} epochs{why}; best dev rsum {progress.best_rsum:.1f} "
        f"at step {progress.best_step:,}",
        flush=True,
    )
    testing = time.monotonic()
    encoded = experiment.encode_with_best(test_split)
    tested = experiment.test(encoded, test_split, config.eval.folds)
    more: dict[str, Any] = {"test_seconds": round(time.monotonic() - testing, 1)}
    pairs = twins.read(directory, test_split)
    if pairs is not None:
        more["twins"] = twins.measure(encoded, test_split, pairs, consensus_weight=config.eval.consensus_weight)
    encoded = distributed.local(encoded)

    def keep() -> None:
        if config.log.matches:
            draw_matches(config, workdir, directory, encoded, test_split)
        tested.save(workdir / "ranks.npz")  # before the results: where these are, the run is finished
        results.save_results(results_path, tested.rows(), seed=config.seed, seconds=progress.train_seconds, **more)

    distributed.from_first(keep)


def is_begun(workdir: pathlib.Path) -> bool:
    """Returns whether there is a checkpoint to go on from; one that was not finished, as a kill leaves it, is none."""
    return any(path.name.isdigit() and path.is_dir() for path in (workdir / "checkpoints").glob("*"))


def prepare_workdir(config: Config, language: Language, workdir: pathlib.Path, lock: WorkdirLock) -> None:
    """Makes the workdir, and keeps in it what the run is made from."""
    lock.acquire()
    keep_language(config, language, workdir)
    config_lib.save(config, workdir / "config.json")
    for ranks in workdir.glob("ranks*.npz"):  # of a checkpoint that need not stay the best
        ranks.unlink()


def data_digest(data: TrainingData) -> str:
    """Returns what tells data apart by which a process would train another model: captions, words, concepts."""
    digest = hashlib.sha256(repr((data.language.vocabulary.words, data.language.concepts.words)).encode())
    for split in (data.train, data.dev):
        shape = np.array(split.regions.shape)
        for array in (*split.tokens, split.image_of_caption, split.image_labels, shape):
            digest.update(array.tobytes())
    return digest.hexdigest()


def draw_matches(
    config: Config, workdir: pathlib.Path, directory: pathlib.Path, encoded: protocols.Found, split: Split
) -> None:
    """Draws the matches of a few queries, or says why it cannot."""
    image_dir = pathlib.Path(config.log.image_dir or directory / "images")
    path = workdir / "matches.png"
    try:
        matches.draw(
            encoded,
            split,
            image_dir,
            path,
            consensus_weight=config.eval.consensus_weight,
            num_queries=config.log.matches,
            seed=config.seed,
        )
        print(f"matches   {path}")
    except InputError as error:
        print(f"matches   not drawn: {error}")


def keep_language(config: Config, language: Language, workdir: pathlib.Path) -> None:
    """Saves vocabulary and concepts in the workdir, or checks that they are those of the run that it holds.

    Raises:
      InputError: the data have changed since: a resumed model would read other words, or use another graph.
    """
    if not is_begun(workdir):
        language.save(workdir)
        return
    saved = Language.load(workdir, config.text)
    same = {
        "words": saved.vocabulary.words == language.vocabulary.words,
        "concepts": saved.concepts.words == language.concepts.words,
        "counts of concepts": np.array_equal(saved.concepts.occurrences, language.concepts.occurrences)
        and np.array_equal(saved.concepts.cooccurrences, language.concepts.cooccurrences),
        "concept graph": np.array_equal(
            dataset.adjacency(saved.concepts, config.concepts), dataset.adjacency(language.concepts, config.concepts)
        ),
        "concept vectors": np.array_equal(saved.concept_vectors, language.concept_vectors),
    }
    for name, is_same in same.items():
        if not is_same:
            raise InputError(
                f"{workdir} holds a run with other {name} than these data give; expected the data that it began "
                "with, or another --workdir"
            )


def describe_data(config: Config, data: TrainingData, test_split: Split) -> None:
    """Prints devices, data, vocabulary and concepts."""
    train, language, concepts = data.train, data.language, data.language.concepts
    regions, width = train.regions.shape[1:]
    splits = (train, data.dev, test_split)
    counts = "; ".join(
        f"{split.name} {split.num_images:,} pictures, {split.num_captions:,} captions" for split in splits
    )
    names = {"object": "objects", "property": "properties", "motion": "motions", "": "of no known kind"}
    kinds = ", ".join(f"{concepts.kinds.count(kind)} {names[kind]}" for kind in dict.fromkeys(concepts.kinds))
    if config.start_from:
        vectors = f"vectors of {config.start_from}"
    elif data.concepts_found is None:
        vectors = "random vectors"
    else:
        vectors = f"{config.concepts.vectors_path} has vectors of {data.concepts_found}"
    print(f"devices   {provenance.device_name()}, {config.compute_dtype}")
    print(f"data      {counts}; {regions} regions of {width}, {train.regions.dtype}")
    print(
        f"text      {len(language.vocabulary):,} tokens, "
        f"{100 * unknown_share(data.dev.tokens.ids):.2f}% of dev unknown; "
        f"captions of {train.lengths.mean():.1f} tokens, {train.lengths.max()} at most; "
        f"stop words {'removed' if language.remove_stop_words else 'kept'}"
    )
    print(
        f"concepts  {len(concepts.words)} ({kinds}), {vectors}; "
        f"named by {100 * train.caption_labels.any(axis=1).mean():.1f}% of training captions, "
        f"{100 * train.image_labels.any(axis=1).mean():.1f}% of pictures",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
