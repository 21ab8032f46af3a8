"""Evaluates a workdir's best checkpoint, with the configuration saved there.

python -m mhcvse_jax.evaluate --workdir runs/f30k --split test
python -m mhcvse_jax.evaluate --workdir runs/f30k --rerank runs/cross_attention_f30k --rerank_top_k 20
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

from mhcvse_jax import config as config_lib
from mhcvse_jax.config import Config
from mhcvse_jax.data import dataset, feature_source
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols, results, twins
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.report import matches
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.run import command_line
from mhcvse_jax.run.reranking import TOP_K, Reranking


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.evaluate") -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 embeddings are not finite, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    path = pathlib.Path
    parser.add_argument("--workdir", required=True, type=path, metavar="DIR", help="what a run wrote")
    parser.add_argument("--split", help="dev, train, testall, ... (default: the one that the run was tested on)")
    parser.add_argument("--data_dir", type=path, metavar="DIR", help="the data, if it is not where the run had it")
    parser.add_argument("--data_format", choices=("scan", "tfds"), help="of --data_dir, if it is not the run's")
    parser.add_argument(
        "--protocol",
        choices=config_lib.CHOICES["eval.protocol"],
        help="standard: each query is judged alone; label_completion: captions take over concepts of other captions "
        "of the split (transductive); default: as the configuration says",
    )
    parser.add_argument(
        "--folds",
        type=command_line.positive,
        metavar="N",
        help="average over N consecutive parts (default: as the configuration says for the split)",
    )
    parser.add_argument(
        "--output",
        type=path,
        metavar="FILE.json",
        help="write the results, and the rank of each query into FILE_ranks.npz (default: the ranks into the workdir, "
        "named after split and protocol)",
    )
    parser.add_argument(
        "--similarity",
        type=path,
        metavar="FILE.npy",
        help="write the similarities, float32 [pictures, captions], and into FILE.npy.json what they are of",
    )
    parser.add_argument("--matches", type=path, metavar="FILE.png", help="draw a few queries with their top five")
    parser.add_argument("--image_dir", type=path, metavar="DIR", help="the pictures, for --matches")
    parser.add_argument(
        "--num_matches", type=command_line.positive, default=3, metavar="N", help="queries drawn, each way (default 3)"
    )
    parser.add_argument(
        "--rerank",
        type=path,
        metavar="WORKDIR",
        help="a model that scores pairs puts the best candidates of every query in order: prints recalls and seconds "
        "beside those without it and those of all pairs; --output writes the re-ranked recalls and ranks",
    )
    parser.add_argument(
        "--rerank_top_k", type=command_line.positive, metavar="K", help=f"candidates of a query (default {TOP_K})"
    )
    parser.add_argument("--rerank_only", action="store_true", help="do not score all pairs beside it, which takes long")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: evaluate(arguments))


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
    directory = arguments.data_dir or dataset.data_directory(config, workdir)
    feature_source.check(directory, workdir)
    name = arguments.split or config.eval.test_split
    folds = config.eval.folds if name == config.eval.test_split else (1,)
    if arguments.folds:
        folds = (arguments.folds,)
    split = experiment.load_split(directory, name, folds)
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
    transductive = " (transductive)" if protocols.is_transductive(tested.protocol) else ""
    print(f"{tested.protocol} protocol{transductive}, {split.num_images:,} pictures, {split.num_captions:,} captions")
    print(protocols.table(tested.rows()))
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
            arguments.image_dir or directory / "images",
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


if __name__ == "__main__":
    sys.exit(main())
