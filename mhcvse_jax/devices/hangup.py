"""A terminal that closes while a command runs: what is printed from then on vanishes, and nothing fails by it."""

import errno
import io
import os
import stat
import sys


def outlive_terminal() -> None:
    """Lets what is printed vanish from when the terminal closes: a print may come before its SIGHUP, and would fail."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.flush()
            raw = _Terminal(stream.fileno(), "wb", closefd=False)
            buffer = io.BufferedWriter(raw)
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True))


class _Terminal(io.FileIO):
    """A terminal that takes what is written to it after it has closed, too."""

    def write(self, data, /):
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            leave_terminal()
            return len(data)


def leave_terminal() -> None:
    """Discards what is printed to a terminal that has closed, where writing would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode):
            os.dup2(nowhere, output)
    os.close(nowhere)
