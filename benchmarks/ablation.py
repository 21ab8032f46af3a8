"""What each part that MH-CVSE's paper claims is worth: a model with it left out or changed, against the whole one.

    python -m benchmarks.ablation --data data/f30k_small --out runs/ablation --seeds 0 1 2

Trains every variant below with every seed, one after another, by `configs/f30k_small.py`, and ends in the table of
`mhcvse_jax.compare`: mean and standard deviation over seeds, and the difference to the whole model with its paired
bootstrap interval. A run that is finished is not done again, one that was stopped goes on; so the command may be
stopped and started at will, and the table holds what there is.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import runs
from mhcvse_jax import command_line

VARIANTS = {
    "whole": {},
    "no_attention": {"model.num_heads": 0},
    "one_head": {"model.num_heads": 1},
    "concat": {"model.fusion": "concat"},
    "adap_sum": {"model.fusion": "adap_sum"},
    "fixed_sum": {"model.fusion": "fixed_sum"},
    "fixed_weights": {"loss.weighting": "fixed"},
    "inverse_weights": {"loss.weighting": "inverse"},
    "mean_eq15": {"loss.reduction": "mean"},
    "mean_fixed_weights": {"loss.reduction": "mean", "loss.weighting": "fixed"},
    "mean_inverse_weights": {"loss.reduction": "mean", "loss.weighting": "inverse"},
    "no_cosine": {"optimizer.schedule": "step", "optimizer.step_epochs": 1_000},
}
"""By name, what differs from the configuration, whose losses are summed and weighted by Eq. 15."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 a run failed, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs.add_arguments(parser)
    parser.add_argument("--config", default="configs/f30k_small.py", metavar="FILE", help="(default %(default)s)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="(default all)")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Trains what is not finished, a seed of every variant before the next seed, and prints the table."""
    wanted = [
        runs.Run(name, seed, arguments.config, VARIANTS[name])
        for seed in arguments.seeds
        for name in arguments.variants
    ]
    runs.train(wanted, arguments)
    runs.tabulate(runs.finished(wanted, arguments.out), "whole", arguments.out / "ablation.md")


if __name__ == "__main__":
    sys.exit(main())
