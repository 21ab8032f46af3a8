"""Puts recalls of runs, other programs and publications into one table.

    mhcvse compare runs/small_0 runs/small_1 runs/small_2 other.csv --published --baseline other

A SOURCE, or NAME=SOURCE to name it, is
  a workdir              the ranks of its test, or of `evaluate`; runs that differ only in their seeds become one row
                         of means and standard deviations
  ranks*.npz, *.json     what `train` and `evaluate` write
  *.csv, *.json          recalls, with the columns name, i2t_r1, i2t_r5, i2t_r10, t2i_r1, t2i_r5, t2i_r10 in percent,
                         "-" where unknown; and, if stated, protocol, label_neighbours, split, folds, num_images,
                         num_captions, num_seeds with i2t_r1_sd ... rsum_sd, printed_mean_recall, note, source
  *.npy                  a similarity matrix [pictures, captions]; a picture's captions are side by side

Rows with different protocols, splits, folds or pictures are refused, unless you give --allow_unlike.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax import config as config_lib
from mhcvse_jax.comparison import formats, side_by_side
from mhcvse_jax.comparison.sources import Wanted
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation.result_rows import EMBEDDINGS
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.run import command_line


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.compare") -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 embeddings are not finite, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="as above")
    add("--published", action="store_true", help="add the published recalls on Flickr30k's 1,000 test pictures")
    add(
        "--ensemble",
        nargs="+",
        action="append",
        default=[],
        metavar="SOURCE",
        help="add a row for the mean similarity of these workdirs (their best checkpoints are evaluated) and .npy "
        "files; may be given again",
    )
    add(
        "--baseline",
        metavar="NAME",
        help="show differences to this row, by its name or its path, with 95%% intervals by paired bootstrap",
    )
    add("--split", help="the split of workdirs (default: the one that each run was tested on)")
    add(
        "--protocol",
        default="standard",
        choices=config_lib.CHOICES["eval.protocol"],
        help="the protocol of workdirs (default: standard)",
    )
    add(
        "--folds",
        type=command_line.positive,
        metavar="N",
        help="average workdirs and matrices over N folds (default: the whole split)",
    )
    add("--embedding", default="fused", choices=EMBEDDINGS, help="the embedding of workdirs (default: fused)")
    add("--allow_unlike", action="store_true", help="compare unlike rows anyway; the table marks them")
    add(
        "--captions_per_image",
        type=command_line.positive,
        default=5,
        metavar="N",
        help="captions per picture in similarity matrices (default 5)",
    )
    add("--data_dir", type=path, metavar="DIR", help="the data for --ensemble, if it has moved since the runs")
    add("--sort", default="rsum", choices=side_by_side.ORDERS, help="the column to sort by, best first (default: rsum)")
    add("--format", choices=formats.FORMATS, help="default: by the name of --output, else terminal")
    add("--output", type=path, metavar="FILE", help="write the table there (.txt, .md, .csv or .html)")
    add(
        "--draws",
        type=command_line.positive,
        default=10_000,
        metavar="N",
        help="bootstrap draws (default 10,000)",
    )
    add("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Prints the table of all sources, or writes it."""
    output = arguments.output
    if output:
        command_line.check_output("--output", output)
    form = arguments.format or (formats.SUFFIXES.get(output.suffix) if output else "terminal")
    if form is None:
        raise InputError(f"--output {output}: unknown format; expected .txt, .md, .csv or .html, or --format")
    if arguments.seed < 0:
        raise InputError(f"--seed is {arguments.seed}; expected 0 or more")
    comparison = side_by_side.compare(
        arguments.sources,
        Wanted(
            protocol=arguments.protocol,
            split=arguments.split,
            folds=arguments.folds,
            embedding=arguments.embedding,
            captions_per_image=arguments.captions_per_image,
        ),
        published=arguments.published,
        ensembles=arguments.ensemble,
        data_dir=arguments.data_dir,
        baseline=arguments.baseline,
        allow_unlike=arguments.allow_unlike,
        order=arguments.sort,
        num_draws=arguments.draws,
        seed=arguments.seed,
    )
    text = formats.render(comparison, form)
    if not output:
        print(text, end="")
        return
    with whole_file(output) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"{len(comparison.entries)} rows in {output}")


if __name__ == "__main__":
    sys.exit(main())
