"""Evaluates a workdir's best checkpoint, with the configuration saved there.

python -m mhcvse_jax.evaluate --workdir runs/f30k --split test
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

from mhcvse_jax import command_line, results
from mhcvse_jax import config as config_lib
from mhcvse_jax.data import dataset
from mhcvse_jax.data.dataset import Language
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import Experiment
from mhcvse_jax.retrieval import matches, protocols, twins


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m mhcvse_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    path = pathlib.Path
    parser.add_argument("--workdir", required=True, type=path, metavar="DIR", help="what a run wrote")
    parser.add_argument("--split", default="test", help="test (default), dev, train, testall, ...")
    parser.add_argument("--data_dir", type=path, metavar="DIR", help="the data, if it is not where the run had it")
    parser.add_argument(
        "--protocol",
        default="standard",
        choices=config_lib.CHOICES["eval.protocol"],
        help="standard (default): each query is judged alone",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="average over N consecutive parts (default: as the configuration says for the split)",
    )
    parser.add_argument("--output", type=path, metavar="FILE", help="write the results as JSON, too")
    parser.add_argument("--matches", type=path, metavar="FILE.png", help="draw a few queries with their top five")
    parser.add_argument("--image_dir", type=path, metavar="DIR", help="the pictures, for --matches")
    parser.add_argument("--num_matches", type=int, default=3, metavar="N", help="queries drawn, each way (default 3)")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints the recall table of a split, and writes what the arguments ask for."""
    started = time.monotonic()
    workdir = arguments.workdir
    config = config_lib.load(workdir / "config.json").unlock()
    config.eval.protocol = arguments.protocol
    if arguments.data_dir:
        config.data.dir = str(arguments.data_dir)
    language = Language.load(workdir, remove_stop_words=config.text.remove_stop_words)
    experiment = Experiment.assemble(config, workdir, language)
    directory = dataset.data_directory(config, workdir)
    split = experiment.load_split(directory, arguments.split)
    encoded = experiment.encode_with_best(split)
    folds = config.eval.folds if split.name == config.eval.test_split else (1,)
    rows = experiment.test(encoded, split, [arguments.folds] if arguments.folds else folds)
    print(f"{arguments.protocol} protocol, {split.num_images:,} pictures, {split.num_captions:,} captions")
    print(protocols.table(rows))
    more = {}
    pairs = twins.read(directory, split.name)
    if pairs is not None:
        more["twins"] = twins.measure(encoded, split, pairs)
        print(twins.describe(more["twins"]))
    if arguments.output:
        seconds = time.monotonic() - started
        results.save_results(arguments.output, rows, seed=config.seed, seconds=seconds, **more)
    if arguments.matches:
        image_dir = arguments.image_dir or directory / "images"
        if not matches.draw(
            encoded, split, image_dir, arguments.matches, num_queries=arguments.num_matches, seed=config.seed
        ):
            raise InputError(f"--matches: no picture of the {split.name} split is in {image_dir}; name its --image_dir")
        print(f"matches in {arguments.matches}")


if __name__ == "__main__":
    sys.exit(main())
