"""Starts commands out of a process that has imported what they need: a start costs a fork, not seconds of imports.

Each command is a process of its own all the same, with its arguments, environment, files and exit code. A line of
standard input is a request in JSON, and has a line of standard output as its answer. {"module", "arguments",
"environment", "stdout", "stderr"} starts a command, and is answered by its process id; {"ended": id} asks for the exit
code of one that has ended. JAX has no backend before a command asks for one, so this process has no threads of JAX's
that a fork would lose.
"""

import importlib
import json
import os
import runpy
import sys

import lemminflect

from tests.front_door import collect_rarely

IMPORTED = (
    *("mhcvse_jax.run.train_and_test", "mhcvse_jax.run.evaluate", "mhcvse_jax.run.describe"),
    *("mhcvse_jax.run.import_pytorch", "mhcvse_jax.run.export_pytorch", "mhcvse_jax.comparison.ensemble"),
    *("mhcvse_jax.training.event_log", "mhcvse_jax.data.tfds", "nltk.tokenize", "grain"),
)


def serve():
    for name in IMPORTED:
        importlib.import_module(name)
    lemminflect.getAllLemmas("word")  # reads its lexicon
    collect_rarely()
    for line in sys.stdin:
        request = json.loads(line)
        if "ended" in request:
            _, status = os.waitpid(request["ended"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            become(request)


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
