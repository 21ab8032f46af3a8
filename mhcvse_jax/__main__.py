"""Image-text matching in JAX: trains, tests, compares and searches."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mhcvse_jax import __version__
from mhcvse_jax.terminal import completion


class Command(NamedTuple):
    """A module with `main(argv, prog)`, which returns an exit code; imported only when its command is called."""

    module: str
    summary: str
    arguments: tuple[str, ...] = ()  # put before the user's


COMMANDS = {
    "demo": Command("mhcvse_jax.main", "train on the built-in data set", ("--config", "demo")),
    "check": Command("mhcvse_jax.check_data", "read a data directory and say what is wrong with it"),
    "extract": Command("mhcvse_jax.extract", "make a data directory from pictures and their captions"),
    "import-features": Command(
        "mhcvse_jax.import_features", "make a data directory from features that others extracted"
    ),
    "build-tfds": Command("mhcvse_jax.build_tfds", "turn a data directory into a tensorflow-datasets data set"),
    "train": Command("mhcvse_jax.main", "train a model and test it"),
    "evaluate": Command("mhcvse_jax.evaluate", "test a trained model"),
    "index": Command("mhcvse_jax.index", "encode pictures once so that they can be searched"),
    "search": Command("mhcvse_jax.search", "find pictures that match a text or resemble a picture"),
    "serve": Command("mhcvse_jax.serve", "search an index in the browser, and see what matched and why"),
    "encode": Command("mhcvse_jax.encode", "write the vectors of pictures and texts for other tools"),
    "compare": Command("mhcvse_jax.compare", "put the recalls of runs and publications into one table"),
    "report": Command("mhcvse_jax.report", "write a page about a run: recalls, curves, matches, concepts"),
    "sweep": Command("mhcvse_jax.sweep", "train a grid of settings and seeds, and compare them"),
    "import-pytorch": Command("mhcvse_jax.import_pytorch", "turn a checkpoint of PyTorch's CVSE into a workdir"),
    "export-pytorch": Command("mhcvse_jax.export_pytorch", "write a workdir's model as a checkpoint of PyTorch's CVSE"),
}


MORE = """For example: mhcvse train --config f30k --config.data.dir=data/f30k_precomp
mhcvse COMMAND --help explains a command; mhcvse --version prints the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code of the command that the arguments name."""
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="mhcvse",
        usage="mhcvse COMMAND ...",
        description=f"{__doc__}\n\n{listing}\n\n{MORE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,  # argparse would list it, in more lines than a screen has
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"mhcvse_jax {__version__}", help=argparse.SUPPRESS)
    parser.add_argument("name", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    words = list(sys.argv[1:] if argv is None else argv)
    if completion.is_asked():
        words = completion.words()[1:]
        if not words or words[0] not in COMMANDS:
            completion.answer(parser)
        completion.of_subcommand()
    name = parser.parse_args(words[:1]).name  # the rest is the command's own
    chosen = COMMANDS[name]
    try:
        return importlib.import_module(chosen.module).main([*chosen.arguments, *words[1:]], prog=f"mhcvse {name}")
    except KeyboardInterrupt:  # before the command minds it
        print("stopped; start the same command again", file=sys.stderr)
        return 75  # as `run.command_line` has it


if __name__ == "__main__":
    sys.exit(main())
