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
    """Returns the exit code: 0 done, 2 bad input, 3 embeddings are not finite, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m mhcvse_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    path = pathlib.Path
    protocol_names = config_lib.CHOICES["eval.protocol"]
    parser.add_argument("--workdir", required=True, type=path, metavar="DIR", help="what a run wrote")
    parser.add_argument("--split", help="dev, train, testall, ... (default: the one that the run was tested on)")
    parser.add_argument("--data_dir", type=path, metavar="DIR", help="the data, if it is not where the run had it")
    parser.add_argument(
        "--protocol",
        default="standard",
        choices=protocol_names,
        help="standard (default): each query is judged alone",
    )
    parser.add_argument(
        "--folds",
        type=positive,
        metavar="N",
        help="average over N consecutive parts (default: as the configuration says for the split)",
    )
    parser.add_argument("--output", type=path, metavar="FILE", help="write the results as JSON, too")
    parser.add_argument("--matches", type=path, metavar="FILE.png", help="draw a few queries with their top five")
    parser.add_argument("--image_dir", type=path, metavar="DIR", help="the pictures, for --matches")
    parser.add_argument(
        "--num_matches", type=positive, default=3, metavar="N", help="queries drawn, each way (default 3)"
    )
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: evaluate(arguments))


def positive(text: str) -> int:
    """Returns the whole number of 1 or more that a text holds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}; expected 1 or more")
    return number


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints the recall table of a split, and writes what the arguments ask for."""
    started = time.monotonic()
    workdir = arguments.workdir
    for name, path in (("--output", arguments.output), ("--matches", arguments.matches)):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{name} {path}: no such directory; expected one that exists")
    config = config_lib.load(workdir / "config.json").unlock()
    config.eval.protocol = arguments.protocol
    language = Language.load(workdir, remove_stop_words=config.text.remove_stop_words)
    experiment = Experiment.assemble(config, workdir, language)
    directory = arguments.data_dir or dataset.data_directory(config, workdir)
    name = arguments.split or config.eval.test_split
    folds = config.eval.folds if name == config.eval.test_split else (1,)
    if arguments.folds:
        folds = (arguments.folds,)
    split = experiment.load_split(directory, name, folds)
    encoded = experiment.encode_with_best(split)
    rows = experiment.test(encoded, split, folds)
    print(f"{arguments.protocol} protocol, {split.num_images:,} pictures, {split.num_captions:,} captions")
    print(protocols.table(rows))
    pairs = twins.read(directory, split.name)
    more = {} if pairs is None else {"twins": twins.measure(encoded, split, pairs)}
    if more:
        print(twins.describe(more["twins"]))
    if arguments.output:
        seconds = time.monotonic() - started
        results.save_results(arguments.output, rows, seed=config.seed, seconds=seconds, **more)
    if arguments.matches:
        image_dir = arguments.image_dir or directory / "images"
        number = arguments.num_matches
        matches.draw(encoded, split, image_dir, arguments.matches, num_queries=number, seed=config.seed)
        print(f"matches in {arguments.matches}")


if __name__ == "__main__":
    sys.exit(main())
