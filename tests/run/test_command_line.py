"""What the commands share."""

import signal
import sys
import time

import pytest

from mhcvse_jax.run import command_line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_within_a_finaliser_stops_the_command(number, capsys, monkeypatch):
    class Collected:
        def __del__(self):
            signal.raise_signal(number)

    def command():
        finalised = [Collected()]
        finalised.clear()  # here Python drops the interrupt
        time.sleep(20)

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    assert command_line.run(command) == command_line.EXIT_STOPPED
    assert capsys.readouterr().err == "stopped; start the same command again\n"
