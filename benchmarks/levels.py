"""What each level of a trained cross attention ranks alone, beside the score that they make together.

    python -m benchmarks.levels --workdir runs/cross_attention_f30k --data data/f30k_precomp

Tells which level does the work: one whose own recall is far below the score's adds little to it.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax.numpy as jnp

from mhcvse_jax.data import dataset
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols, result_rows
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.models import CrossAttention
from mhcvse_jax.retrieval.recall import Retrieval
from mhcvse_jax.run import command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.levels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    path = pathlib.Path
    parser.add_argument("--workdir", required=True, type=path, metavar="DIR", help="of the run")
    parser.add_argument("--data", required=True, type=path, metavar="DIR", help="a directory in SCAN's layout")
    help_text = "the test's first; all pairs are scored once a level (default 1000)"
    parser.add_argument("--captions", type=command_line.positive, default=1000, help=help_text)
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Prints a row of recalls for the score and for each of its levels.

    Raises:
      InputError: the workdir is not of a cross attention, or the data do not fit it.
    """
    experiment = Experiment.of_workdir(arguments.workdir)
    if not isinstance(experiment.model, CrossAttention):
        name = experiment.config.model.name
        raise InputError(f"{arguments.workdir} is of {name}; expected cross_attention, which alone has levels")
    split = dataset.first_captions(experiment.load_split(arguments.data, "test", (1,)), arguments.captions)
    variables, _ = experiment.restore_best(split.regions.shape[1:])
    results = {"score": recall(experiment, variables, split)}
    no_gate = {"level_kernel": jnp.zeros((1, 1)), "level_bias": jnp.zeros(1)}
    for level in experiment.config.model.cross_levels:
        config = experiment.config.copy_and_resolve_references().unlock()
        config.model.cross_levels = (level,)
        alone = Experiment.assemble(config.lock(), arguments.workdir, experiment.language)
        results[level] = recall(alone, variables | {"params": variables["params"] | no_gate}, split)
    rows = result_rows.make(
        results,
        split=split.name,
        protocol="standard",
        folds=1,
        num_images=split.num_images,
        num_captions=split.num_captions,
    )
    print(f"{split.num_images:,} pictures, {split.num_captions:,} captions")
    result_rows.show(rows)


def recall(experiment: Experiment, variables: dict, split: dataset.Split) -> Retrieval:
    """Returns the recall of all pairs of a split by a model that scores them."""
    found = experiment.encoder(variables, split)
    (retrieval,) = protocols.standard(found, split.image_of_caption, consensus_weight=0.0, folds=1).values()
    return retrieval


if __name__ == "__main__":
    sys.exit(main())
