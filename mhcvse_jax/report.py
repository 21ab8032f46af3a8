"""Writes one self-contained HTML file about a run, which opens from disk.

    mhcvse report runs/f30k
    mhcvse report runs/f30k --compare runs/vsepp runs/no_attention=runs/f30k_0_heads --output three.html

It shows what was run, recalls with their intervals, the training curves, matches in both directions, where the model
looks in a few pairs, pictures that turn up where they do not belong, and the concepts. What a run lacks is left out,
and the page says why. A run that has not finished is evaluated on the dev split.
"""

import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax.run import command_line


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.report") -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 embeddings are not finite, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    add = parser.add_argument
    add("run", metavar="RUN", help="a workdir, or NAME=DIR to name it")
    add("--compare", nargs="+", default=[], metavar="RUN", help="runs to put beside it on the same page")
    add("--output", type=path, metavar="FILE.html", help="the page (default: report.html in RUN)")
    add(
        "--split",
        help="the split to show matches of (default: the one that the run was tested on; dev if it has not finished)",
    )
    add("--data_dir", type=path, metavar="DIR", help="the data, if it has moved since the run")
    add("--image_dir", type=path, metavar="DIR", help="where the pictures are (default: images/ in the data directory)")
    add(
        "--pictures",
        type=command_line.positive,
        metavar="N",
        help="match only the first N pictures of the split (default: all; 200 for a model that scores pairs)",
    )
    add(
        "--queries", type=command_line.positive, default=3, metavar="N", help="queries of each kind to show (default 3)"
    )
    add("--seed", type=command_line.not_negative, default=0, help="seed of the queries drawn at random (default 0)")
    add(
        "--card",
        action="store_true",
        help="print only what is needed to trust a row of a table: data, versions, commit, ...",
    )
    arguments = command_line.parse(parser, argv)

    def command() -> None:
        from mhcvse_jax.run import report  # here, so that --help need not wait for JAX

        if arguments.card:
            report.print_cards(arguments)
        else:
            report.report(arguments)

    return command_line.run(command)


if __name__ == "__main__":
    sys.exit(main())
