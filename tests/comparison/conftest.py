"""The command, called in this process."""

import signal

import pytest

from mhcvse_jax import compare


@pytest.fixture(autouse=True)
def handlers():
    """A command sets its own handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def run(capsys):
    """Runs the command; returns exit code, what it printed, and its errors."""

    def call(*arguments):
        code = compare.main([*map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call
