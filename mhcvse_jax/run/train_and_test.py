"""A training run from its start, or from where it stopped, to the results of its test."""

import hashlib
import pathlib
import time
from typing import Any

import jax
import numpy as np

from mhcvse_jax import __version__
from mhcvse_jax import config as config_lib
from mhcvse_jax.config import Config
from mhcvse_jax.data import feature_source, fingerprint, region_shape
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.fingerprint import DataFacts
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.drawing import matches
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import card, hub_rows, protocols, result_rows, results, twins
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.experiment.parts import check_devices
from mhcvse_jax.experiment.reading import TrainingData
from mhcvse_jax.experiment.train import prepare, train
from mhcvse_jax.run.describe import describe_data
from mhcvse_jax.run.resume import check_start, check_workdir, keep_language
from mhcvse_jax.run.workdir import REPORT, WorkdirLock, is_begun, is_finished, results_path


def run(config: Config, workdir: pathlib.Path) -> None:
    """Trains if that is not finished, tests once, and prints the results."""
    keep_compiled()
    check_workdir(workdir, config)
    distributed.check_same("configuration", config.to_json())
    if distributed.from_first(lambda: is_finished(workdir)):
        print(f"{workdir} is finished; its results:")
    else:
        lock = WorkdirLock(workdir)
        if distributed.from_first(workdir.exists):
            distributed.from_first(lock.acquire)
        train_and_test(config, workdir, lock)
        if config.log.report:
            distributed.from_first(lambda: write_report(config, workdir))
    finished = results.load_results(results_path(workdir))
    result_rows.show(finished["results"])
    if "twins" in finished:
        print(twins.describe(finished["twins"]))
    print(f"results in {results_path(workdir)}")
    if (workdir / REPORT).exists():
        print(f"open {workdir / REPORT}")


def train_and_test(config: Config, workdir: pathlib.Path, lock: WorkdirLock) -> None:
    """Trains from the latest checkpoint, or from the start; tests the best once; writes the results.

    Writes nothing in the workdir until all input is known to be usable. The built-in data set is the exception, as it
    must be drawn before it can be checked.
    """
    print(f"mhcvse_jax {__version__}: {config.model.name} in {workdir}", flush=True)
    check_devices(config)
    has_begun = distributed.from_first(lambda: is_begun(workdir))  # the workdir then has everything the run needs
    if not has_begun:
        check_start(config)
    if config.data.format == "scenes":
        distributed.from_first(lock.acquire)
    directory = pathlib.Path(distributed.from_first(lambda: str(reading.data_directory(config, workdir))))
    print(f"reading   {directory}", flush=True)
    start = workdir if has_begun else pathlib.Path(config.start_from)
    if has_begun or config.start_from:
        distributed.from_first(lambda: feature_source.check(directory, start))
    language = reading.load_language(start, config) if config.start_from else None
    data = reading.load_training(config, directory, language)
    experiment = Experiment.assemble(config, workdir, data.language)
    # Fail now, not after the training, if the test split cannot be used.
    test_split = experiment.load_split(directory, config.eval.test_split, config.eval.folds)
    if test_split.regions.shape[1:] != data.train.regions.shape[1:]:
        raise InputError(
            f"{directory}: regions and features of {test_split.name} are {test_split.regions.shape[1:]}; "
            f"expected those of train, {data.train.regions.shape[1:]}"
        )
    begin = prepare(experiment, data.train, has_begun=has_begun)
    distributed.check_same("data", data_digest(data))
    splits = {"train": data.train, "dev": data.dev, config.eval.test_split: test_split}
    facts = DataFacts.from_dict(distributed.from_first(lambda: fingerprint.of_data(directory, splits).to_dict()))
    distributed.from_first(lambda: prepare_workdir(config, data, facts, directory, workdir, lock))
    describe_data(config, data, test_split, feature_source.read(directory))
    progress = train(experiment, data.train, data.dev, begin)
    stopped_early = progress.epochs_done < config.num_epochs
    why = f", no better one in the last {config.patience_epochs}" if stopped_early else ""
    print(
        f"trained   {progress.epochs_done} epochs{why}; best dev rsum {progress.best_rsum:.1f} "
        f"at step {progress.best_step:,}",
        flush=True,
    )
    testing = time.monotonic()
    variables, _ = experiment.restore_best(test_split.regions.shape[1:])
    encoded = experiment.encode_for_protocol(variables, test_split)
    against = experiment.against_hubs(variables, lambda: data.train)
    tested = experiment.test(encoded, test_split, config.eval.folds, against)
    more: dict[str, Any] = {"model": config.model.name, "test_seconds": round(time.monotonic() - testing, 1)}
    more |= {"data": facts.to_dict(), "selection": card.selection_of(progress, config.num_epochs)}
    more["hubness"] = hub_rows.measure(protocols.both_ways(encoded, "fused", config.eval.consensus_weight, against))
    pairs = twins.read(directory, test_split)
    if pairs is not None:
        more["twins"] = twins.measure(encoded, test_split, pairs, consensus_weight=config.eval.consensus_weight)
    encoded = distributed.local(encoded)

    def keep() -> None:
        tested.save(workdir / "ranks.npz")  # before the results: where these are, the run is finished
        results.save_results(
            results_path(workdir), tested.rows(), seed=config.seed, seconds=progress.train_seconds, **more
        )
        if config.log.matches:
            draw_matches(config, workdir, directory, encoded, test_split)

    distributed.from_first(keep)


def prepare_workdir(
    config: Config,
    data: TrainingData,
    facts: DataFacts,
    directory: pathlib.Path,
    workdir: pathlib.Path,
    lock: WorkdirLock,
) -> None:
    """Makes the workdir, and stores in it what the run is made from."""
    lock.acquire()
    keep_language(config, data.language, workdir)
    feature_source.keep(directory, workdir)
    region_shape.save(workdir, data.train.regions.shape[1:])
    fingerprint.keep(facts, workdir)
    config_lib.save(config, workdir / "config.json")
    for ranks in workdir.glob("ranks*.npz"):  # may be outdated once training continues
        ranks.unlink()


def data_digest(data: TrainingData) -> str:
    """Returns a hash of everything that must match across processes: captions, words, concepts."""
    digest = hashlib.sha256(repr((data.language.vocabulary.words, data.language.concepts.words)).encode())
    for split in (data.train, data.dev):
        shape = np.array(split.regions.shape)
        for array in (*split.tokens, split.image_of_caption, split.image_labels, shape):
            digest.update(array.tobytes())
    return digest.hexdigest()


def draw_matches(
    config: Config, workdir: pathlib.Path, directory: pathlib.Path, encoded: protocols.Found, split: Split
) -> None:
    """Draws the matches of a few queries, or prints why it cannot."""
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


def write_report(config: Config, workdir: pathlib.Path) -> None:
    """Writes the report of a finished run, or prints why it cannot."""
    if jax.process_count() > 1:  # it restores the model on the devices of one process
        print(f"report    not written by several processes; mhcvse report {workdir} writes it")
        return
    from mhcvse_jax.run import report  # here, as what it draws with takes seconds to import

    try:
        report.write_for(workdir, pathlib.Path(config.log.image_dir) if config.log.image_dir else None)
    except InputError as error:
        print(f"report    not written: {error}")
