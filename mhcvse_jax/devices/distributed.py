"""Several processes as one run: how they find each other, what they agree on, which of them prints.

The files in `launch/` start one process per GPU or per node. JAX detects SLURM and Open MPI. Anywhere else, set these
variables; without any of them there is one process:

  MHCVSE_COORDINATOR        HOST:PORT of process 0, as the others reach it
  MHCVSE_NUM_PROCESSES      number of processes of the run
  MHCVSE_PROCESS_ID         number of this process, from 0
  JAX_LOCAL_DEVICE_IDS      devices of this process, 0,1 for example (default: all of its machine)

and in any case:

  MHCVSE_START_SECONDS      how long to wait for the other processes at the start (default 300)
  MHCVSE_HEARTBEAT_SECONDS  how long a process may be silent before the others end (default 100)

The engine is JAX's distributed runtime, with NCCL between GPUs and gloo between CPUs.
"""

import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed as runtime  # its key-value store has no public name
from jax.sharding import Mesh

from mhcvse_jax.devices.mesh import by_batch, replicated
from mhcvse_jax.errors import InputError, PeerLostError, RunFailedError

VARIABLES = ("MHCVSE_COORDINATOR", "MHCVSE_NUM_PROCESSES", "MHCVSE_PROCESS_ID")
SCHEDULERS = (("SLURM_NTASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))
"""By what a process knows that it is one of several: their number, and its own."""

NOTICE_SECONDS = 10  # of waiting for the other processes after which it is said
SHUTDOWN_SECONDS = 30  # that processes which have finished wait for each other
LEAVE_SECONDS = 3  # that a process which has failed waits for the others
WAIT_MILLISECONDS = 24 * 60 * 60 * 1000  # upper limit of a wait for process 0; its death is noticed at once
PEER_LOST = re.compile(
    r"gloo.*(closed by peer|reset by peer|timed out|refused)|coordination service|heartbeat|"
    r"(task|peer|process).*(died|disconnected|unavailable|unhealthy)|socket closed|async_(write|commit)_complete",
    re.IGNORECASE | re.DOTALL,
)
"""What a runtime says whose other processes are gone."""

AGREE_EVERY = 4  # poll on every 4th call whether to stop or save; the answer is read at the next poll

T = TypeVar("T")
_numbers = itertools.count()


def initialize() -> None:
    """Joins the processes of the run; does nothing if there is only one. Call it before JAX is used.

    From then on only the first process prints.

    Raises:
      InputError: the environment variables cannot be used.
      PeerLostError: the other processes did not join.
    """
    cluster = _cluster()
    if cluster is None:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # signals are answered by the training loop
    seconds: dict[str, Any] = {
        "initialization_timeout": _seconds("MHCVSE_START_SECONDS", 300),
        "heartbeat_timeout_seconds": _seconds("MHCVSE_HEARTBEAT_SECONDS", 100),
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
    }
    where = cluster.get("coordinator_address", "process 0")
    # The runtime ends a process whose others do not come with a trace of its own, not with an error: it is said here.
    notice = threading.Timer(NOTICE_SECONDS, _say_waiting, (where, seconds["initialization_timeout"]))
    notice.daemon = True
    notice.start()
    try:
        jax.distributed.initialize(**cluster, **seconds)
    except (RuntimeError, ValueError) as error:  # of many kinds, each with a trace of C++
        raise PeerLostError(f"the processes of the run did not meet at {where}: {_first_line(error)}") from error
    finally:
        notice.cancel()
    if not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the descriptor: libraries print, too


def _say_waiting(where: str, seconds: int) -> None:
    text = f"waiting for the other processes of the run at {where}, {seconds} s at most (MHCVSE_START_SECONDS)"
    print(text, file=sys.stderr, flush=True)


def _cluster() -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`; None for a single process."""
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if given:
        missing = [name for name in VARIABLES if name not in given]
        if missing:
            raise InputError(f"{', '.join(given)} set without {', '.join(missing)}; expected all of them, or none")
        coordinator = given[VARIABLES[0]]
        number, process = (_whole(name, given[name]) for name in VARIABLES[1:])
        if not re.fullmatch(r".+:\d+", coordinator):
            raise InputError(f"{VARIABLES[0]} is {coordinator!r}; expected HOST:PORT")
        if not 0 <= process < number:
            raise InputError(f"{VARIABLES[2]} is {process}; expected 0 to {number - 1}, as {VARIABLES[1]} is {number}")
        return {
            "coordinator_address": coordinator,
            "num_processes": number,
            "process_id": process,
            "cluster_detection_method": "deactivate",
        }
    for number, process in SCHEDULERS:
        if process in os.environ and os.environ.get(number, "1") != "1":
            return {}  # which JAX finds out by itself
    return None


def _seconds(name: str, default: int) -> int:
    return _whole(name, os.environ.get(name) or str(default))


def _whole(name: str, text: str) -> int:
    if not text.isdigit():
        raise InputError(f"{name} is {text!r}; expected a whole number")
    return int(text)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_several() -> bool:
    """Returns whether this process has joined others."""
    return runtime.global_state.client is not None


def is_first() -> bool:
    """Returns whether this process prints and writes for all: it is process 0, or the only one."""
    return runtime.global_state.process_id == 0


def from_first(function: Callable[[], T]) -> T:
    """Returns on all processes what a function returns on process 0, which alone calls it. All must call this.

    Args:
      function: what it returns must survive JSON, in which several processes pass it on.

    Raises:
      InputError, RunFailedError: as the function did, on all processes.
    """
    client = runtime.global_state.client
    if client is None:
        return function()
    key = f"mhcvse/{next(_numbers)}"
    if is_first():
        outcome: dict[str, Any]
        try:
            value = function()
            outcome = {"value": value}
        except (InputError, RunFailedError) as error:
            outcome = {"error": str(error), "is_input": isinstance(error, InputError)}
        client.key_value_set(key, json.dumps(outcome))
    else:
        outcome = json.loads(client.blocking_key_value_get(key, WAIT_MILLISECONDS))
    if "error" in outcome:
        raise (InputError if outcome["is_input"] else RunFailedError)(outcome["error"])
    return outcome["value"]


def from_all(value: T) -> list[T]:
    """Returns the values of all processes, in order, exchanged as JSON. All processes must call this."""
    client = runtime.global_state.client
    if client is None:
        return [value]
    key = f"mhcvse/{next(_numbers)}"
    client.key_value_set(f"{key}/{runtime.global_state.process_id}", json.dumps(value))
    return [
        json.loads(client.blocking_key_value_get(f"{key}/{process}", WAIT_MILLISECONDS))
        for process in range(jax.process_count())
    ]


def check_same(what: str, value: str) -> None:
    """Raises InputError if a process has another value than process 0. All processes must call this."""
    if from_first(lambda: value) != value:
        raise InputError(f"process {runtime.global_state.process_id} has another {what} than process 0")


def claim(name: str) -> bool:
    """Returns true for the first process that claims a name, false for those that come after."""
    client = runtime.global_state.client
    if client is None:
        return True
    try:
        client.key_value_set(f"mhcvse/claim/{name}", "")
    except jax.errors.JaxRuntimeError as error:  # it is claimed, or nobody is left to ask
        return "ALREADY_EXISTS" not in str(error)
    return True


def local(tree: Any) -> Any:
    """Returns replicated arrays as arrays of this process alone, for what only one process computes."""
    if not is_several():
        return tree
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def raise_peer_lost(error: Exception) -> None:
    """Raises PeerLostError if an error means that another process is gone; else does nothing."""
    if is_several() and PEER_LOST.search(str(error)):
        raise PeerLostError("another process of the run has ended") from error


def leave(code: int, *, together: bool) -> int:
    """Returns the exit code; with several processes, exits this one with it.

    Args:
      code: the exit code of this process.
      together: whether all processes leave with it. If so, they wait for each other; if not, only for a moment, in
        which the others may meet the same error.
    """
    if not is_several():
        return code
    farewell = threading.Thread(target=_shutdown, args=(together,), daemon=True)
    farewell.start()
    farewell.join(None if together else LEAVE_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # past the runtime's own farewell, which would wait once more


def _shutdown(together: bool) -> None:
    try:
        jax.distributed.shutdown()
    except Exception as error:  # whatever it is, there is nothing left but to go
        if together:
            print(f"warning: leaving without the other processes: {_first_line(error)}", file=sys.stderr)


class Agreement:
    """Lets any process request a stop or a save, which all perform at the same step.

    Each process states its requests, as flags, as often as all others. A single process is granted them at once.
    Several processes exchange them every few calls on the devices, beside the training. Nobody waits, as the answer is
    read at the next exchange.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._any = jax.jit(lambda wishes: wishes.max(axis=0), out_shardings=replicated(mesh))
        self._asked: jax.Array | None = None
        self._times = itertools.count()

    def at(self, *wishes: bool) -> tuple[bool, ...]:
        """Returns which requests are granted; repeat a request until it is."""
        if not is_several():
            return wishes
        if next(self._times) % AGREE_EVERY:
            return (False,) * len(wishes)
        before, self._asked = self._asked, self._ask(wishes)
        granted = (False,) * len(wishes) if before is None else _flags(before)
        if any(granted):
            self._asked = None
        return granted

    def now(self, *wishes: bool) -> tuple[bool, ...]:
        """Returns which requests any process has; waits for all processes."""
        self._asked = None
        return _flags(self._ask(wishes)) if is_several() else wishes

    def _ask(self, wishes: tuple[bool, ...]) -> jax.Array:
        mine = np.tile(np.array(wishes, np.int32), (jax.local_device_count(), 1))
        shape = (self._mesh.size, len(wishes))
        return self._any(jax.make_array_from_process_local_data(by_batch(self._mesh), mine, shape))


def _flags(array: jax.Array) -> tuple[bool, ...]:
    return tuple(bool(flag) for flag in np.asarray(array))
