"""What the commands share: how errors and interrupts become one line and an exit code."""

import argparse
import atexit
import contextlib
import errno
import io
import logging
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from absl import logging as absl_logging

from mhcvse_jax.devices import hangup
from mhcvse_jax.errors import InputError, Interrupted, PeerLostError, RunFailedError
from mhcvse_jax.terminal import completion

EXIT_INPUT, EXIT_FAILED, EXIT_STOPPED = 2, 3, 75
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""errno values of a disk that filled up or failed during the run."""


def parser(
    prog: str, description: str | None, *, parents: Sequence[argparse.ArgumentParser] = ()
) -> argparse.ArgumentParser:
    """Returns the parser of a command, which shows its description as it stands and takes no shortened options."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=parents,
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the arguments of a command; if a shell asks for completions, answers it and ends the process."""
    completion.answer(parser)
    return parser.parse_args(argv)


def run(command: Callable[[], None]) -> int:
    """Runs a command; returns its exit code: 0 done, 2 bad input, 3 the run failed, 75 stopped (start it again)."""
    sys.unraisablehook = _report_unraisable
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a character shows another, and no traceback
    hangup.outlive_terminal()
    _quiet_failed_writes()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):  # the training loop has its own
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it, and a shell for a job in the background
            signal.signal(number, _interrupt)
    _prepare_jax()
    try:
        try:
            command()
        except RuntimeError as error:
            _raise_peer_lost(error)
            raise
    except InputError as error:
        _say(f"error: {error}")
        return EXIT_INPUT
    except PeerLostError as error:
        _say(f"stopped: {error}; the same command resumes from the last checkpoint")
        return EXIT_STOPPED
    except RunFailedError as error:
        _say(f"failed: {error}")
        return EXIT_FAILED
    except Interrupted:
        _say("stopped and saved; the same command resumes from here")
        return EXIT_STOPPED
    except KeyboardInterrupt:
        _say("stopped; start the same command again")
        if "jax" in sys.modules:
            atexit.register(_leave_at_once, EXIT_STOPPED)
        return EXIT_STOPPED
    except BrokenPipeError:  # the reader of our output has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_STOPPED
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        where = error.filename or "writing"
        _say(f"failed: {where}: {error.strerror}; once that is fixed, start the same command again")
        return EXIT_FAILED
    return 0


def run_together(command: Callable[[], None]) -> int:
    """Runs a command that several processes may carry out as one; returns its exit code, as `run` does."""
    together = False  # true if all processes exit for the same reason

    def joined() -> None:
        nonlocal together
        from mhcvse_jax.devices import distributed

        distributed.initialize()
        try:
            command()
        except Interrupted:
            together = True
            raise
        together = True

    code = run(joined)
    distributed = sys.modules.get("mhcvse_jax.devices.distributed")
    return code if distributed is None else distributed.leave(code, together=together)


def _raise_peer_lost(error: RuntimeError) -> None:
    """Raises PeerLostError where JAX tells that another process is gone; a command without JAX has no other."""
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(error, jax.errors.JaxRuntimeError):
        from mhcvse_jax.devices import distributed

        distributed.raise_peer_lost(error)


def _prepare_jax() -> None:
    """Sets, before JAX is imported, what all commands need: float32, and no alarms from its compiler."""
    os.environ["JAX_ENABLE_X64"] = "0"  # with 1 layers would be float64, which nothing here is made for
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # "Very slow compile? If you want to file a bug"
    jax = sys.modules.get("jax")
    if jax is not None:
        jax.config.update("jax_enable_x64", False)


def _say(last_words: str) -> None:
    """Prints a line on stderr; of several processes, which mostly say the same, only the first does."""
    distributed = sys.modules.get("mhcvse_jax.devices.distributed")
    if distributed is None or distributed.claim("last words"):
        print(last_words, file=sys.stderr, flush=True)


def _quiet_failed_writes() -> None:
    """Leaves it to the error that orbax raises to say that a checkpoint could not be written.

    orbax logs it as well, and the writes that it gives up after the first that failed report, each with a
    traceback, to an event loop that has been closed.
    """
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)


def _report_unraisable(unraisable: Any) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):  # came within a finaliser, which Python drops: once more
        threading.Thread(target=_interrupt_once_more, daemon=True).start()
    elif str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt; while a module is imported, only after that: JAX's and others' abort the process."""
    if any(one.f_code.co_filename == "<frozen importlib._bootstrap>" for one, _ in traceback.walk_stack(frame)):
        again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident or 0, number))
        again.daemon = True
        again.start()
    else:
        raise KeyboardInterrupt


def _interrupt_once_more() -> None:
    """Sends the signal to the main thread when its hook has ended: within it Python would drop the signal again."""
    main = threading.main_thread().ident or 0
    while any(
        frame.f_code is _report_unraisable.__code__ for frame, _ in traceback.walk_stack(sys._current_frames()[main])
    ):
        time.sleep(0.01)
    signal.pthread_kill(main, signal.SIGTERM)  # SIGINT may be ignored: a job in the background is started so


def _leave_at_once(code: int) -> None:
    """Ends the process before Python takes JAX apart: that would wait for a program being compiled, and then crash."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def check_output(option: str, path: pathlib.Path) -> None:
    """Raises InputError if a file cannot be written, so that this is known before the work, not after."""
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: no such directory; expected one that exists")
    if path.is_dir():
        raise InputError(f"{option} {path} is a directory; expected a file name")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{option} {path}: no permission to write in this directory")


def whole_number(text: str) -> int:
    """Returns the whole number in a text."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number") from error


def positive(text: str) -> int:
    """Returns the whole number of 1 or more in a text."""
    number = whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}; expected 1 or more")
    return number


def not_negative(text: str) -> int:
    """Returns the whole number of 0 or more in a text."""
    number = whole_number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number}; expected 0 or more")
    return number
