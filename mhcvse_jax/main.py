"""Trains and tests a model.

    mhcvse train --config f30k --config.data.dir=data/f30k_precomp

Any key of the configuration can be overridden: --config.batch_size=64 --config.model.fusion=concat. --help_config
lists all keys. Start the command again with the same workdir, and it resumes; if the run has finished, it prints the
results. A run can span several processes: see launch/ and mhcvse_jax/devices/distributed.py.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from mhcvse_jax import config as config_lib
from mhcvse_jax.config import listing
from mhcvse_jax.run import command_line
from mhcvse_jax.terminal import completion


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.main") -> int:
    """Returns the exit code: 0 finished, 2 bad input, 3 the run failed, 75 stopped (start it again)."""
    parser = command_line.parser(prog, __doc__)
    config: Any = parser.add_argument(
        "--config", required=True, metavar="NAME", help="a configuration in configs/, such as f30k, or a file"
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        type=pathlib.Path,
        help="where the run writes (default: runs/NAME of the configuration)",
    )
    parser.add_argument("--config.KEY", metavar="VALUE", help="overrides a key of the configuration")
    parser.add_argument(
        "--help_config", action="version", version=listing.for_terminal(), help="list all keys of the configuration"
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print the command, the processes, and the devices and the batch of each; then exit",
    )
    if completion.is_asked():
        config.completer = lambda **_: config_lib.named()
        for key, one in config_lib.KEYS.items():
            parser.add_argument(f"--config.{key}", choices=one.allowed.choices or None, help=one.meaning)
    completion.answer(parser)
    arguments, overrides = parser.parse_known_args(argv)
    workdir = arguments.workdir or pathlib.Path("runs") / config_lib.name_of(arguments.config)

    def command() -> None:
        from mhcvse_jax.run.describe import describe_run  # here, so that --help need not wait for JAX
        from mhcvse_jax.run.train_and_test import run

        config = config_lib.read(arguments.config, overrides)
        if arguments.dry_run:
            describe_run(config, workdir, sys.argv[1:] if argv is None else argv)
        else:
            run(config, workdir)

    return command_line.run_together(command)


if __name__ == "__main__":
    sys.exit(main())
