"""Every model on one directory: recalls, differences to MH-CVSE, seconds of training and of the test.

    python -m benchmarks.models --data data/flickr8k --out runs/models --seeds 0 1 2

Trains and tests each model below with each seed by one configuration, `configs/f8k.py` unless told otherwise, one after
another; re-ranks MH-CVSE's test by the cross attention; and ends in the table of `mhcvse_jax.compare` and in one of
seconds. What is finished is not done again, so the command may be stopped and started at will; the tables hold what
there is. `--set` changes a key of every run: `--set model.embedding_dim=128 num_epochs=2`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from mhcvse_jax import sweep
from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.run import command_line

SINGLE_TERM = {"loss.weighting": "fixed", "loss.fusion_weight": 1.0}
PAIRS = {**SINGLE_TERM, "eval.validation_captions": 1000}  # a score for each pair: dev takes its time
VSEPP = {**SINGLE_TERM, "model.name": "vsepp", "model.num_heads": 0, "model.pooling": "mean"}
SCAN = {**PAIRS, "model.name": "scan", "model.num_heads": 0}
MODELS = {
    "vsepp": VSEPP,
    "vsepp_gpo": {**VSEPP, "model.pooling": "gpo"},
    "scan_t2i": {**SCAN, "model.scan_direction": "t2i", "model.scan_attention_temperature": 9.0},
    "scan_i2t": {**SCAN, "model.scan_direction": "i2t", "model.scan_attention_temperature": 4.0},
    "cvse": {
        "model.name": "cvse",
        "model.num_heads": 0,
        "model.pooling": "attention",
        "model.fusion": "fixed_sum",
        "loss.weighting": "fixed",
        "eval.consensus_weight": 0.05,
    },
    "mhcvse": {},
    "cross_attention": {**PAIRS, "loss.instance_weight": 1.0, "model.name": "cross_attention", "model.num_heads": 2},
}
"""By name, what makes MH-CVSE's configuration that of the model; the schedule and the rest stay.

The heads of the cross attention are 128 wide at D 256: likeness in a narrow head is mostly chance.
"""

FIRST, SECOND = "mhcvse", "cross_attention"  # of the re-ranking


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 a run failed, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    path = pathlib.Path
    parser.add_argument("--data", required=True, type=path, metavar="DIR", help="a directory in SCAN's layout")
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="a workdir a run is made in it")
    parser.add_argument("--config", default="configs/f8k.py", metavar="FILE", help="MH-CVSE's (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--table_only", action="store_true", help="train nothing, tabulate what is finished")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="(default all)")
    parser.add_argument("--top_k", type=command_line.positive, default=20, help="candidates re-ranked (default 20)")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Trains what is not finished, a seed of every model before the next seed; re-ranks; prints the tables.

    Raises:
      InputError: there is nothing to tabulate.
    """
    out = arguments.out
    every = [
        sweep.Run(
            name,
            seed,
            out,
            arguments.config,
            [
                f"data.dir={arguments.data}",
                *(f"{key}={value}" for key, value in MODELS[name].items()),
                *arguments.set,
            ],
        )
        for seed in arguments.seeds
        for name in arguments.models
    ]
    if not arguments.table_only:
        for seed in arguments.seeds:
            sweep.train([run for run in every if run.seed == seed], jobs=1)
            if {FIRST, SECOND} <= set(arguments.models):
                rerank(arguments, seed)
    files = [reranked(out, seed) for seed in arguments.seeds]
    more = [f"{file.stem}={file}" for file in files if file.exists()]
    sweep.tabulate(every, baseline=FIRST, output=out / "models.md", more_sources=more)
    print(seconds(every, arguments))


def reranked(out: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns the file of the re-ranked test."""
    return out / f"{FIRST}_reranked_seed{seed}.json"


def rerank(arguments: argparse.Namespace, seed: int) -> None:
    """Evaluates the re-ranked test of a seed, if that is not done."""
    output = reranked(arguments.out, seed)
    if output.exists():
        return
    first, second = (arguments.out / f"{name}_seed{seed}" for name in (FIRST, SECOND))
    command = ["--workdir", first, "--data_dir", arguments.data, "--output", output]
    command += ["--rerank", second, "--rerank_top_k", arguments.top_k, "--rerank_only"]
    code = subprocess.run([sys.executable, "-m", "mhcvse_jax.evaluate", *map(str, command)], check=False).returncode
    if code == command_line.EXIT_STOPPED:
        raise KeyboardInterrupt
    if code:
        raise RunFailedError(f"mhcvse_jax.evaluate of {first} left with exit code {code}")


def seconds(every: Sequence[sweep.Run], arguments: argparse.Namespace) -> str:
    """Returns a table in Markdown: the mean over seeds of the seconds of a training and of a test."""
    lines = ["| model | seconds of training | seconds of the test |", "|---|---|---|"]
    for name in dict.fromkeys(run.name for run in every):
        done = [_read(run.workdir / "results.json") for run in every if run.name == name and run.is_finished]
        if done:
            trained, tested = (statistics.mean(one[key] for one in done) for key in ("seconds", "test_seconds"))
            lines.append(f"| {name} | {trained:.0f} | {tested:.1f} |")
    files = [reranked(arguments.out, seed) for seed in arguments.seeds]
    again = [_read(file)["rerank"]["reranked"]["seconds"] for file in files if file.exists()]
    if again:
        lines.append(f"| {FIRST}, top {arguments.top_k} by {SECOND} | - | {statistics.mean(again):.1f} |")
    return "\n".join(lines)


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
