"""The programs that a training compiles, and the CPU seconds that each takes.

    python -m benchmarks.compiling --config demo --config.num_epochs=1 --config.log.report=False

Takes what `mhcvse train` takes, trains in a directory of its own, and keeps no compiled program. Seconds are the
process's, of all its threads: on a busy machine they are longer than on an idle one, but not by what others compute.
"""

import collections
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import jax
from jax import monitoring

from mhcvse_jax import main as train

STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
Programs = dict[str, dict[str, float]]
"""Of each name: how many `programs`, and the CPU seconds of each of `STAGES`."""


@contextlib.contextmanager
def counted() -> Iterator[Programs]:
    """Yields the programs of what is done within; they are added as they are compiled."""
    found: Programs = collections.defaultdict(lambda: collections.defaultdict(float))
    running = collections.defaultdict[int, list[list[float]]](list)  # of each thread: start, and what began within it

    def start(event: str, value: float, **kwargs: str | int) -> None:
        if event in STAGES:
            running[threading.get_ident()].append([time.process_time(), 0.0])

    def stop(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event not in STAGES:
            return
        around = running[threading.get_ident()]
        began, within = around.pop()
        whole = time.process_time() - began
        if around:
            around[-1][1] += whole
        name = str(kwargs.get("fun_name")).removeprefix("jit(").removesuffix(")")
        found[name][STAGES[event]] += whole - within
        found[name]["programs"] += STAGES[event] == "compile"

    monitoring.register_scalar_listener(start)
    monitoring.register_event_duration_secs_listener(stop)
    try:
        yield found
    finally:
        monitoring.unregister_scalar_listener(start)
        monitoring.unregister_event_duration_listener(stop)


def show(programs: Programs) -> None:
    """Prints one row per name, the longest first, and their sum."""
    columns = ("programs", *STAGES.values())
    total = {column: sum(seconds[column] for seconds in programs.values()) for column in columns}
    ordered = sorted(programs.items(), key=lambda item: -sum(item[1][stage] for stage in STAGES.values()))
    print(" " * 28 + "".join(f"{column:>9}" for column in columns) + "   CPU s")
    for name, seconds in [*ordered, ("all", total)]:
        print(f"{name[:27]:28}{seconds['programs']:>9.0f}" + "".join(f"{seconds[s]:>9.2f}" for s in STAGES.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code of the training."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # for what asks later; JAX has read it
    jax.config.update("jax_compilation_cache_dir", None)
    with tempfile.TemporaryDirectory() as workdir, counted() as programs:
        arguments = [*(sys.argv[1:] if argv is None else argv), "--workdir", workdir]
        code = train.main(arguments, prog="python -m benchmarks.compiling")
    show(programs)
    return code


if __name__ == "__main__":
    sys.exit(main())
