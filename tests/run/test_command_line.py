"""What the commands share."""

import importlib
import re
import signal
import subprocess
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


def test_a_signal_while_a_module_is_imported_waits_for_it(tmp_path, monkeypatch, capsys):
    """Half a module, or a C library that was interrupted, would end the process with a traceback or an abort."""
    lines = ("import signal, time", "signal.raise_signal(signal.SIGINT)", "time.sleep(0.2)", "whole = True")
    (tmp_path / "slowly_imported.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)

    def command():
        importlib.import_module("slowly_imported")
        time.sleep(20)

    assert command_line.run(command) == command_line.EXIT_STOPPED
    assert sys.modules.pop("slowly_imported").whole
    assert capsys.readouterr().err == "stopped; start the same command again\n"


COMPILES = """
import os, signal, sys, threading
import jax
import jax.numpy as jnp
from mhcvse_jax.run import command_line

def many_loops(x):
    for shift in range(300):
        x = jnp.sort(jnp.sin(x + shift))
    return x

def command():
    lowered = jax.jit(many_loops).lower(jnp.zeros(97))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    lowered.compile()

sys.exit(command_line.run(command))
"""


def test_a_signal_while_a_program_is_compiled_stops_the_command(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    done = subprocess.run([sys.executable, "-c", COMPILES], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (command_line.EXIT_STOPPED, "stopped; start the same command again\n")


@pytest.mark.parametrize(("kind", "text", "expected"), [("positive", "x", "a whole number"), ("positive", "0", "1 or")])
def test_a_number_that_cannot_be_used_is_said_with_what_was_expected(kind, text, expected, capsys):
    parser = command_line.parser("mhcvse search", "")
    parser.add_argument("-k", type=getattr(command_line, kind))
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["-k", text])
    assert stopped.value.code == 2
    assert re.search(rf"argument -k: '?{text}'?; expected {expected}", capsys.readouterr().err)
