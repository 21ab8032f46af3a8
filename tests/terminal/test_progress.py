"""What long work says of its pace."""

import io
import re
import sys

import pytest

from mhcvse_jax.terminal import progress
from mhcvse_jax.terminal.progress import ProgressBar

LOSSES = "fusion 51.2 x3"


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def set_to(seconds):
        clock[0] = seconds

    return set_to


def test_the_first_line_says_compiling_and_the_rate_is_that_of_the_steps_after_it(at, capsys):
    bar = ProgressBar(1000, "step", done=100, compiles=True)
    at(40.0)
    bar.update(101, "epoch 1/2", LOSSES)
    at(45.0)
    bar.update(111, "epoch 1/2", LOSSES)  # less than ten seconds after the line before: not shown
    at(60.0)
    bar.update(141, "epoch 1/2", LOSSES)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/2  101/1,000 steps  compiling  fusion 51.2 x3",
        "epoch 1/2  141/1,000 steps  2.0 steps/s  07:09 left  fusion 51.2 x3",
    ]


def test_a_compilation_of_less_than_a_line_is_not_in_the_rate_either(at, capsys):
    bar = ProgressBar(100, "step", compiles=True)
    at(9.0)
    bar.update(1, "epoch 1/1", LOSSES)
    at(12.0)
    bar.update(31, "epoch 1/1", LOSSES)
    assert "10 steps/s  00:06 left" in capsys.readouterr().out


def test_a_slow_count_is_told_by_the_minute_and_bytes_as_megabytes(at, capsys):
    for total, unit, steps in ((40, "picture", (2, 38)), (34_000_000_000, "byte", (1_700_000_000,))):
        at(0.0)
        with progress.counted(total, unit) as done:
            for number, seconds in zip(steps, (40.0, 52.0), strict=False):
                at(seconds)
                done(number)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "2/40 pictures  3.0 pictures/min  12:40 left",
        "40/40 pictures  46.2 pictures/min  00:00 left",
        "1,700/34,000 MB  42.5 MB/s  12:40 left",
    ]


def test_a_process_that_may_not_print_does_not(at, capsys):
    bar = ProgressBar(100, "step", is_shown=False)
    at(20.0)
    bar.update(31)
    assert not capsys.readouterr().out


def test_a_bar_says_compiling_and_then_goes_on_from_the_step_that_was_resumed(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = ProgressBar(1000, "step", done=100, compiles=True)
    bar.update(101, "epoch 1/2", LOSSES)
    bar.update(700, "epoch 2/2", LOSSES)
    bar.close()
    shown = [line for line in re.split(r"[\r\n]+", terminal.getvalue()) if line.strip()]
    assert any("compiling" in line for line in shown)
    assert "epoch 2/2" in shown[-1]
    assert "700/1000" in shown[-1]
    assert "compiling" not in shown[-1]
