"""Evaluates a workdir's best checkpoint, with the configuration saved there.

    mhcvse evaluate --workdir runs/f30k --split test
    mhcvse evaluate --workdir runs/f30k --rerank runs/cross_attention_f30k --rerank_top_k 20

Prints recalls, and keeps the rank of every query for `mhcvse compare`.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax import config as config_lib
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation.result_rows import METRICS
from mhcvse_jax.run import command_line


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.evaluate") -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 embeddings are not finite, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    parser.add_argument("--workdir", required=True, type=path, metavar="DIR", help="the workdir of a run")
    parser.add_argument("--split", help="dev, train, testall, ... (default: the one that the run was tested on)")
    parser.add_argument("--data_dir", type=path, metavar="DIR", help="the data, if it has moved since the run")
    parser.add_argument(
        "--data_format", choices=("scan", "tfds"), help="the layout of --data_dir, if it is not the run's"
    )
    parser.add_argument(
        "--protocol",
        choices=config_lib.CHOICES["eval.protocol"],
        help="standard: each query is judged alone; label_completion: captions borrow concepts from other captions "
        "of the split (transductive); inverted_softmax and csls (transductive) and qb_norm (with a bank of training "
        "captions) reduce hubs (default: the configuration's)",
    )
    parser.add_argument(
        "--folds",
        type=command_line.positive,
        metavar="N",
        help="average over N consecutive parts (default: the configuration's for this split)",
    )
    parser.add_argument(
        "--output",
        type=path,
        metavar="FILE.json",
        help="write the results to this file, and each query's rank to FILE_ranks.npz (default: only the ranks, to "
        "the workdir, named after split and protocol)",
    )
    parser.add_argument(
        "--similarity",
        type=path,
        metavar="FILE.npy",
        help="write the similarities, float32 [pictures, captions], and their description to FILE.npy.json",
    )
    parser.add_argument("--matches", type=path, metavar="FILE.png", help="draw a few queries with their top five")
    parser.add_argument("--image_dir", type=path, metavar="DIR", help="the pictures, for --matches")
    parser.add_argument(
        "--num_matches",
        type=command_line.positive,
        default=3,
        metavar="N",
        help="queries to draw in each direction (default 3)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=[],
        metavar="METRIC",
        help="more metrics on COCO's 5,000 test pictures, which accept more answers than COCO's own captions: eccv "
        "(ECCV Caption: mAP@R, R-Precision, R@1), cxc (R@1, 5, 10), pmrp (needs pm_*.json in the data directory); the "
        "data directory must give COCO's number of each caption",
    )
    parser.add_argument(
        "--rerank",
        type=path,
        metavar="WORKDIR",
        help="re-rank each query's best candidates with this run, whose model scores pairs; prints recalls and seconds "
        "without re-ranking, with it, and by the scores of all pairs; --output writes the re-ranked recalls and ranks",
    )
    parser.add_argument(
        "--rerank_top_k", type=command_line.positive, metavar="K", help="candidates per query (default 20)"
    )
    parser.add_argument("--rerank_only", action="store_true", help="do not score all pairs, which takes long")
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints what is tested, then tests it.

    Raises:
      InputError: the options do not go together, a file cannot be written where it is asked for, or the workdir holds
        no run.
    """
    if not arguments.rerank and (arguments.rerank_top_k or arguments.rerank_only):
        raise InputError("--rerank_top_k and --rerank_only need --rerank WORKDIR")
    for name in ("output", "similarity", "matches"):
        path = getattr(arguments, name)
        if path is not None:
            command_line.check_output(f"--{name}", path)
    config = config_lib.load_unchecked(arguments.workdir / "config.json")
    data = f" of {arguments.data_dir}" if arguments.data_dir else ""
    split = arguments.split or config.eval.test_split
    print(f"testing   {config.model.name} of {arguments.workdir} on {split}{data}", flush=True)
    from mhcvse_jax.run import evaluate as evaluation  # here, so that neither this line nor --help waits for JAX

    evaluation.evaluate(arguments)


if __name__ == "__main__":
    sys.exit(main())
