"""What is printed to a terminal that has closed."""

import io
import os
import sys

import pytest

from mhcvse_jax.devices import hangup


def exit_code_of(function):
    """The exit code of a process that calls a function: 1 if it raises."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_output_to_a_terminal_that_was_left_vanishes():
    def leave():
        terminal, end = os.openpty()
        os.dup2(end, 1)
        os.close(terminal)
        hangup.leave_terminal()
        os.write(1, b"nobody reads this")

    assert exit_code_of(leave) == 0


@pytest.mark.parametrize("outlives", [True, False])
def test_a_print_that_comes_before_the_signal_does_not_fail(outlives):
    def prints():
        terminal, end = os.openpty()
        for output in (1, 2):
            os.dup2(end, output)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(output, "w", closefd=False)) for output in (1, 2))
        if outlives:
            hangup.outlive_terminal()
        print("while it is open", flush=True)
        assert os.read(terminal, 100).strip() == b"while it is open"
        os.close(terminal)
        for stream in (sys.stdout, sys.stderr):
            print("nobody reads this", file=stream, flush=True)

    assert exit_code_of(prints) == (0 if outlives else 1)
