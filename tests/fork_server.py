"""Starts commands out of a process that has imported what they need: a start costs a fork, not seconds of imports.

Each command is a process of its own all the same, with its arguments, environment, files and exit code. A line of
standard input is one start, {"module", "arguments", "environment", "stdout", "stderr"} in JSON; its answer, a line of
standard output, is the exit code. JAX has no backend before a command asks for one, so this process has no threads of
JAX's that a fork would lose.
"""

import importlib
import json
import os
import runpy
import sys

IMPORTED = (
    *("mhcvse_jax.run.train_and_test", "mhcvse_jax.run.evaluate", "mhcvse_jax.run.describe"),
    *("mhcvse_jax.run.import_pytorch", "mhcvse_jax.run.export_pytorch", "mhcvse_jax.comparison.ensemble"),
    *("mhcvse_jax.training.event_log", "mhcvse_jax.data.tfds", "nltk.tokenize", "grain"),
)


def serve():
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        start = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(start)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(start):
    """Never returns: the command leaves by SystemExit."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(start[name], os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(start["environment"])
    sys.argv = [start["module"], *start["arguments"]]
    runpy.run_module(start["module"], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    serve()
