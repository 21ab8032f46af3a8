"""What a command finds on the machine: devices, precision, signals."""

import os
import signal
import subprocess
import sys

import jax
import pytest
from front_door import ROOT

from mhcvse_jax.devices import interrupt, mesh
from mhcvse_jax.devices.interrupt import InterruptRequest
from mhcvse_jax.errors import InputError
from mhcvse_jax.run import command_line

UNABLE = RuntimeError("Unable to initialize backend 'cuda': ...\nmore")


@pytest.mark.parametrize(("asked", "error"), [("cuda", AssertionError()), ("gpu", UNABLE), ("nonsense", UNABLE)])
def test_devices_that_are_not_there_are_one_line(monkeypatch, asked, error):
    found, calls = jax.devices(), []

    def devices():
        calls.append(None)
        if len(calls) == 1:
            raise error
        return found

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    install = "" if asked == "nonsense" else f"install the driver and JAX's wheel for {asked}, or "
    with pytest.raises(
        InputError, match=rf"JAX_PLATFORMS is {asked}, but JAX finds no .*, only cpu: {install}set JAX_PLATFORMS=cpu$"
    ) as raised:
        mesh.find_devices()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("asked", "has_driver", "is_warned"), [("", True, True), ("cpu", True, False), ("", False, False)]
)
def test_a_cpu_beside_an_idle_gpu_is_said(monkeypatch, tmp_path, capsys, asked, has_driver, is_warned):
    if has_driver:
        (tmp_path / "version").touch()
    monkeypatch.setattr(mesh, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    mesh._warn_of_idle_gpus.cache_clear()
    assert mesh.find_devices() == mesh.find_devices() == jax.devices()
    assert capsys.readouterr().err.count("JAX runs on the CPU") == is_warned


def test_commands_compute_in_float32_whatever_the_environment(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    jax.config.update("jax_enable_x64", True)
    try:
        assert command_line.run(lambda: None) == 0
        assert not jax.config.jax_enable_x64
        assert os.environ["JAX_ENABLE_X64"] == "0"
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"  # what was asked for stays
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
        assert command_line.run(lambda: None) == 0
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"  # else XLA says that compiling is slow
    finally:
        jax.config.update("jax_enable_x64", False)


SAY_LEVEL = """
import os
from mhcvse_jax.run import command_line
command_line.run_together(lambda: print(os.environ["TF_CPP_MIN_LOG_LEVEL"]))
"""


def test_the_compilers_alarms_are_hidden_before_jax_decides_how_much_it_says():
    """JAX does when it is imported, where nothing else has."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    run = [sys.executable, "-c", SAY_LEVEL]
    done = subprocess.run(run, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_a_terminal_that_closes_asks_to_save_and_leave(monkeypatch):
    left = []
    monkeypatch.setattr(interrupt, "leave_terminal", lambda: left.append(True))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with InterruptRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.requested
            assert left == [True]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with InterruptRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.requested

        def closed():
            os.kill(os.getpid(), signal.SIGHUP)

        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert command_line.run(closed) == command_line.EXIT_STOPPED
    finally:
        signal.signal(signal.SIGHUP, before)
