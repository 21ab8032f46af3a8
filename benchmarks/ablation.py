"""What each part that MH-CVSE's paper claims is worth: a model with it left out or changed, against the whole one.

    python -m benchmarks.ablation --data data/flickr8k --out runs/ablation --seeds 0 1 2

Trains every variant below with every seed by `configs/f8k.py`, unless told otherwise, and ends in the table of
`mhcvse_jax.compare`: mean and standard deviation over seeds, and the difference to the whole model with its paired
bootstrap interval. A run that is finished is not done again, one that was stopped goes on; so the command may be
stopped and started at will, and the table holds what there is.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax import sweep
from mhcvse_jax.run import command_line

VARIANTS = {
    "whole": {},
    "no_attention": {"model.num_heads": 0},
    "mean_pooling": {"model.pooling": "mean"},
    "no_attention_mean_pooling": {"model.num_heads": 0, "model.pooling": "mean"},
    "no_consensus": {
        "loss.consensus_weight": 0.0,
        "loss.kl_weight": 0.0,
        "model.fusion": "fixed_sum",
        "model.fixed_instance_weight": 1.0,
    },
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
    path = pathlib.Path
    parser.add_argument("--data", required=True, type=path, metavar="DIR", help="a directory in SCAN's layout")
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="a workdir a run is made in it")
    parser.add_argument("--config", default="configs/f8k.py", metavar="FILE", help="(default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="(default all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--jobs", type=command_line.positive, default=1, metavar="N", help="runs at a time (default 1)")
    parser.add_argument("--table_only", action="store_true", help="train nothing, tabulate what is finished")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Trains what is not finished, a seed of every variant before the next seed, and prints the table."""
    runs = [
        sweep.Run(
            name,
            seed,
            arguments.out,
            arguments.config,
            [
                f"data.dir={arguments.data}",
                *(f"{key}={value}" for key, value in VARIANTS[name].items()),
                *arguments.set,
            ],
        )
        for seed in arguments.seeds
        for name in arguments.variants
    ]
    if not arguments.table_only:
        sweep.train(runs, jobs=arguments.jobs)
    sweep.tabulate(runs, baseline="whole", output=arguments.out / "ablation.md")


if __name__ == "__main__":
    sys.exit(main())
