"""Trains and tests a model.

    python -m mhcvse_jax.main --config configs/f30k.py --config.data.dir=data/f30k_precomp

Any key of the configuration can be overridden: --config.batch_size=64 --config.model.fusion=concat; --help_config
lists them all. Started again with the same workdir it resumes; a finished run prints its results. Several processes
are one run: see launch/ and mhcvse_jax/devices/distributed.py.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax import config as config_lib
from mhcvse_jax.config import Config, listing
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.evaluation import protocols, results, twins
from mhcvse_jax.run import command_line
from mhcvse_jax.run.describe import describe_run
from mhcvse_jax.run.resume import check_workdir
from mhcvse_jax.run.train_and_test import train_and_test
from mhcvse_jax.run.workdir import WorkdirLock, is_finished, results_path


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.main") -> int:
    """Returns the exit code: 0 finished, 2 bad input, 3 the run failed, 75 stopped and to be started again."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="NAME", help="one of configs/, f30k for example, or a file")
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        type=pathlib.Path,
        help="what the run writes (default: runs/NAME of the config)",
    )
    parser.add_argument("--config.KEY", metavar="VALUE", help="overrides a key of the configuration")
    parser.add_argument(
        "--help_config", action="version", version=listing.for_terminal(), help="list all keys of the configuration"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print command, processes, devices and the batch of each; do nothing"
    )
    arguments, overrides = parser.parse_known_args(argv)
    workdir = arguments.workdir or pathlib.Path("runs") / config_lib.name_of(arguments.config)

    def command() -> None:
        config = config_lib.read(arguments.config, overrides)
        if arguments.dry_run:
            describe_run(config, workdir, sys.argv[1:] if argv is None else argv)
        else:
            run(config, workdir)

    return command_line.run_together(command)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Trains where that is not finished, tests once, and prints the results."""
    keep_compiled()
    check_workdir(workdir, config)
    distributed.check_same("configuration", config.to_json())
    if distributed.from_first(lambda: is_finished(workdir)):
        print(f"{workdir} is finished; its results:")
    else:
        lock = WorkdirLock(workdir)
        if distributed.from_first(workdir.exists):
            distributed.from_first(lock.acquire)
        train_and_test(config, workdir, lock)
    finished = results.load_results(results_path(workdir))
    print(protocols.table(finished["results"]))
    if "twins" in finished:
        print(twins.describe(finished["twins"]))
    print(f"results in {results_path(workdir)}")


if __name__ == "__main__":
    sys.exit(main())
