"""What the commands share."""

import re
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


@pytest.mark.parametrize(("kind", "text", "expected"), [("positive", "x", "a whole number"), ("positive", "0", "1 or")])
def test_a_number_that_cannot_be_used_is_said_with_what_was_expected(kind, text, expected, capsys):
    parser = command_line.parser("mhcvse search", "")
    parser.add_argument("-k", type=getattr(command_line, kind))
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["-k", text])
    assert stopped.value.code == 2
    assert re.search(rf"argument -k: '?{text}'?; expected {expected}", capsys.readouterr().err)
