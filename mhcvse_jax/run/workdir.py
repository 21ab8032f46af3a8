"""The directory that a run writes: one run at a time, and every file complete or absent."""

import errno
import fcntl
import os
import pathlib
import socket
import tempfile
from typing import IO

from mhcvse_jax.errors import InputError

REPORT = "report.html"
"""The page about a run, where it was asked for."""


class WorkdirLock:
    """The right to write a workdir; the operating system revokes it when the process ends, however it ends."""

    def __init__(self, workdir: pathlib.Path):
        self._workdir = workdir
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Makes the workdir where it is missing, and takes the lock; does nothing where it is held already.

        Raises:
          InputError: the workdir cannot be written, or another process is at work in it.
        """
        if self._file is not None:
            return
        try:
            self._workdir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._workdir):
                pass
            file = (self._workdir / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self._workdir}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise InputError(f"{self._workdir} is in use by {holder}; wait for it, or use another workdir") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
            # This file system does not support locks: continue without one.
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Releases the workdir for another run."""
        if self._file is not None:
            self._file.close()
            self._file = None


def check_can_be_made(workdir: pathlib.Path) -> None:
    """Raises InputError where a workdir is not a directory, nor can be made one; writes nothing."""
    existing = next(path for path in (workdir.absolute(), *workdir.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{workdir}: cannot be written ({existing} is not a directory)")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{workdir}: cannot be written (no permission to write in {existing})")


def results_path(workdir: pathlib.Path) -> pathlib.Path:
    """Returns where a run's results are; they are the last that it writes."""
    return workdir / "results.json"


def is_finished(workdir: pathlib.Path) -> bool:
    """Returns whether a workdir's run has been tested."""
    return results_path(workdir).exists()


def is_begun(workdir: pathlib.Path) -> bool:
    """Returns whether there is a checkpoint to resume from; an incomplete one, left by a kill, does not count."""
    return any(path.name.isdigit() and path.is_dir() for path in (workdir / "checkpoints").glob("*"))
