"""Tests a workdir's best checkpoint: recalls, ranks, similarities, matches."""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from mhcvse_jax.config import Config
from mhcvse_jax.data import coco_ids, feature_source, fingerprint
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import card, coco, hub_rows, protocols, result_rows, results, twins
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.run.reranking import TOP_K, Reranking


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints the recall table of a split, and writes what the arguments ask for."""
    started = time.monotonic()
    keep_compiled()
    workdir = arguments.workdir
    metrics = list(dict.fromkeys(arguments.metrics))
    experiment = Experiment.of_workdir(workdir, protocol=arguments.protocol, data_format=arguments.data_format)
    config = experiment.config
    directory = arguments.data_dir or reading.data_directory(config, workdir)
    feature_source.check(directory, workdir)
    check_against_hubs(config, arguments)
    name = arguments.split or config.eval.test_split
    folds = config.eval.folds if name == config.eval.test_split else (1,)
    if arguments.folds:
        folds = (arguments.folds,)
    split = experiment.load_split(directory, name, folds)
    transfer = transfer_of(workdir, directory, split, config)
    truth = coco_truth(metrics, directory, split) if metrics else None
    image_dir = arguments.image_dir or directory / "images"
    if arguments.matches:
        from mhcvse_jax.drawing import matches  # here, as it brings in matplotlib

        matches.names_of(split, image_dir)
    second = None
    if arguments.rerank:
        second = Reranking.load(
            experiment,
            arguments.rerank,
            split,
            directory,
            folds,
            data_format=arguments.data_format,
            top_k=arguments.rerank_top_k or TOP_K,
            only=arguments.rerank_only,
        )
    encoding = time.monotonic()
    variables, progress = experiment.restore_best(split.regions.shape[1:])
    print(f"checkpoint of {progress.best()}", flush=True)
    encoded = experiment.encode_for_protocol(variables, split)
    against = experiment.against_hubs(variables, lambda: experiment.load_split(directory, "train", ()))
    tested = dataclasses.replace(experiment.test(encoded, split, folds, against), **transfer)
    transductive = " (transductive)" if result_rows.is_transductive(tested.protocol) else ""
    setting = f", {tested.setting}" if tested.setting else ""
    print(
        f"{tested.protocol} protocol{transductive}{setting}, {split.num_images:,} pictures, "
        f"{split.num_captions:,} captions"
    )
    if transfer:
        print(f"transfer  trained on {tested.trained_on}, tested on {tested.tested_on}")
    unknown = experiment.language.unknown_words(split.captions)
    print(unknown.describe())
    result_rows.show(tested.rows())
    more: dict[str, Any] = {"model": config.model.name, "unknown_words": unknown._asdict()}
    more |= {"data": fingerprint.of_data(directory, {split.name: split}).to_dict()}
    more["selection"] = card.selection_of(progress, config.num_epochs)
    if transfer:
        more["transfer"] = transfer
    ways = protocols.both_ways(encoded, "fused", config.eval.consensus_weight, against)
    more["hubness"] = hub_rows.measure(ways)
    print(hub_rows.describe(more["hubness"]))
    if truth:
        more["coco"] = coco.measure(ways, truth.numbers, truth.package, metrics)
        print(coco.describe(more["coco"]))
    pairs = None if against else twins.read(directory, split)
    if pairs is not None:
        more["twins"] = twins.measure(encoded, split, pairs, consensus_weight=config.eval.consensus_weight)
        print(twins.describe(more["twins"]))
    if second:
        tested, more["rerank"] = second.run(encoded, tested, time.monotonic() - encoding)
    if arguments.output:
        tested.save(results.ranks_path(arguments.output))
        seconds = time.monotonic() - started
        results.save_results(arguments.output, tested.rows(), seed=config.seed, seconds=seconds, **more)
    elif not second:
        keep_ranks(tested, workdir)
    if arguments.similarity:
        save_similarity(encoded, tested, config, arguments.similarity)
    if arguments.matches:
        from mhcvse_jax.drawing import matches

        matches.draw(
            encoded,
            split,
            image_dir,
            arguments.matches,
            consensus_weight=config.eval.consensus_weight,
            num_queries=arguments.num_matches,
            seed=config.seed,
        )
        print(f"matches in {arguments.matches}")


def check_against_hubs(config: Config, arguments: argparse.Namespace) -> None:
    """Raises InputError where one similarity is asked for under a protocol that gives each direction its own."""
    for option in ("similarity", "matches", "rerank"):
        if getattr(arguments, option) and config.eval.protocol in protocols.AGAINST_HUBS:
            raise InputError(
                f"--{option} is by one similarity, and under {config.eval.protocol} each direction has its own; "
                "expected --protocol standard"
            )


def transfer_of(workdir: pathlib.Path, directory: pathlib.Path, split: Split, config: Config) -> dict[str, str]:
    """Returns {trained_on, tested_on} where the split is of other data than the run's; else, or not known, nothing.

    The run's data are known by their captions: those of the split where the run read it, else those of train.
    """
    kept = fingerprint.read(workdir)
    if kept is None:
        return {}
    name, captions, owner = split.name, split.captions, split.image_of_caption
    if name not in kept.splits:
        try:
            train = reading.read_scan(config.data, directory, "train")
        except InputError:
            return {}
        name, captions, owner = "train", train.captions, train.image_of_caption
    if fingerprint.captions_digest(captions, owner) == kept.splits[name].captions_sha256:
        return {}
    return {"trained_on": kept.name, "tested_on": directory.resolve().name}


class CocoTruth(NamedTuple):
    """What the measures beyond COCO's own captions need."""

    package: Any
    numbers: coco.Numbers


def coco_truth(metrics: Sequence[str], directory: pathlib.Path, split: Split) -> CocoTruth:
    """Returns the annotations, and COCO's numbers of the split's pictures and captions.

    Raises:
      InputError: the package is not there, or the split is not known to be COCO's 5,000 test pictures.
    """
    package = coco.load(metrics, directory)
    captions = coco_ids.read(directory, split.name, split.image_ids, split.captions, split.image_of_caption)
    return CocoTruth(package, coco.numbers_of(package, captions, split.image_of_caption, split.num_images))


def keep_ranks(tested: Evaluation, workdir: pathlib.Path) -> None:
    """Writes the ranks into the workdir, or says why it cannot: the recalls stand on the terminal either way."""
    path = workdir / tested.file_name()
    try:
        tested.save(path)
        print(f"ranks in {path}")
    except OSError as error:
        print(f"ranks not kept: {path} cannot be written ({error.strerror}); --output writes them elsewhere")


def save_similarity(encoded: protocols.Found, tested: Evaluation, config: Config, path: pathlib.Path) -> None:
    """Writes the fused similarity, and beside it as JSON what it is of."""
    matrix = protocols.similarity_of(encoded, "fused", config.eval.consensus_weight)
    size = 4 * matrix.num_images * matrix.num_captions
    print(
        f"writing   {path}: float32 [{matrix.num_images:,} pictures, {matrix.num_captions:,} captions], "
        f"{size / 1e6:,.1f} MB",
        flush=True,
    )
    similarity.save(path, matrix)
    results.save_similarity_facts(path, tested)
