"""Testing a workdir's best checkpoint: recalls, ranks, similarities, matches."""

import argparse
import pathlib
import time

from mhcvse_jax.config import Config
from mhcvse_jax.data import feature_source
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.drawing import matches
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols, result_rows, results, twins
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.run import command_line
from mhcvse_jax.run.reranking import TOP_K, Reranking


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints the recall table of a split, and writes what the arguments ask for."""
    started = time.monotonic()
    keep_compiled()
    workdir = arguments.workdir
    if not arguments.rerank and (arguments.rerank_top_k or arguments.rerank_only):
        raise InputError("--rerank_top_k and --rerank_only go with --rerank WORKDIR; expected it too")
    for name in ("output", "similarity", "matches"):
        path = getattr(arguments, name)
        if path is not None:
            command_line.check_output(f"--{name}", path)
    experiment = Experiment.of_workdir(workdir, protocol=arguments.protocol, data_format=arguments.data_format)
    config = experiment.config
    directory = arguments.data_dir or reading.data_directory(config, workdir)
    feature_source.check(directory, workdir)
    name = arguments.split or config.eval.test_split
    folds = config.eval.folds if name == config.eval.test_split else (1,)
    if arguments.folds:
        folds = (arguments.folds,)
    split = experiment.load_split(directory, name, folds)
    image_dir = arguments.image_dir or directory / "images"
    if arguments.matches:
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
    tested = experiment.test(encoded, split, folds)
    transductive = " (transductive)" if result_rows.is_transductive(tested.protocol) else ""
    print(f"{tested.protocol} protocol{transductive}, {split.num_images:,} pictures, {split.num_captions:,} captions")
    result_rows.show(tested.rows())
    pairs = twins.read(directory, split)
    more = {}
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
