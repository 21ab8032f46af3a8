"""The list of measurements on a GPU: that every command in it takes its arguments, and how calls share it out."""

import argparse
import importlib
import json
import shlex
import sys
import zipfile

import pytest

from benchmarks.gpu import collect, run, unpack
from benchmarks.gpu.plan import STEPS, Step
from mhcvse_jax import config as config_lib

COMMANDS = sorted({command for step in STEPS for command in (*step.commands, *step.toy)})
CALL_SECONDS = 60 * 8.5
START_SECONDS = 20


class Parsed(Exception):  # noqa: N818 - no error
    pass


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_its_arguments(command, tmp_path, monkeypatch):
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_leave(parser, arguments):
        raise Parsed(parse_args(parser, arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_leave)
    module, *arguments = [part.format(rows=tmp_path / "rows.json", work=tmp_path) for part in shlex.split(command)]
    with pytest.raises(Parsed) as found:
        importlib.import_module(module).main(arguments)
    (options,) = found.value.args
    if overrides := getattr(options, "set", None):
        config = config_lib.read(options.config, [f"--config.{override}" for override in overrides])
        assert config.model.name


class Guessed(run.Call):
    """A call in which every step takes what the list says."""

    def __init__(self, *arguments):
        super().__init__(*arguments, toy=False)
        self.time_left = CALL_SECONDS - START_SECONDS

    @property
    def left(self):
        return self.time_left

    def take(self, step):
        self.time_left -= step.seconds
        self.results["steps"][step.name] = {"state": run.DONE, "seconds": step.seconds, "rows": []}


def test_five_calls_take_the_whole_list(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: name)  # PyTorch is there
    results = run.read_results(None)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        run.take_all(Guessed(tmp_path, tmp_path / str(number), CALL_SECONDS, results), STEPS)
    assert set(results["steps"]) == {step.name for step in STEPS}
    assert "gru_tf32" in capsys.readouterr().out.split("not begun")[0]  # the most telling in the first


def call_of(tmp_path, name, seconds, results):
    (tmp_path / name).mkdir()
    return run.Call(tmp_path / "out", tmp_path / name, seconds, results, toy=False)


def test_a_call_keeps_what_is_done_and_goes_on_after_what_fails(tmp_path, capsys):
    source = tmp_path / "source.json"
    source.write_text('[{"measure": "one"}]')
    steps = [
        Step("fails", 1, (f"json.tool {tmp_path}/missing.json", f"json.tool {source} {{rows}}")),
        Step("writes", 1, (f"json.tool {source} {{work}}/copy.json", "json.tool {work}/copy.json {rows}")),
        Step("long", 500, (f"json.tool {source} {{rows}}",)),
        Step("no package", 1, (f"json.tool {source} {{rows}}",), needs="no_such_package"),
        Step("hangs", 1, ("http.server 0",)),
    ]
    failed = run.take_all(call_of(tmp_path, "first", 4, run.read_results(None)), steps)
    assert failed == ["fails"]
    printed = capsys.readouterr().out
    assert "missing.json" in printed
    assert "no_such_package is not installed" in printed
    results = run.read_results(tmp_path / "out" / "results.json")
    found = results["steps"]
    assert {name: step["state"] for name, step in found.items()} == {
        "fails": run.FAILED,
        "writes": run.DONE,
        "hangs": run.STOPPED,
    }
    assert found["writes"]["rows"] == [{"measure": "one"}]
    assert "missing.json" in found["fails"]["tail"]

    # The next call begins with what was not begun; what was stopped is thought to take longer than it had.
    assert [step.name for step in run.in_order(steps, results)] == ["long", "no package", "hangs", "fails"]
    assert run.wanted_seconds(steps[-1], results) > found["hangs"]["seconds"] > 1
    source.unlink()  # what is done is not done again
    run.take_all(call_of(tmp_path, "second", 1, results), steps[1:2])
    assert results["steps"]["writes"]["state"] == run.DONE


def test_wheels_of_what_is_missing_are_on_the_steps_path(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("Not_There", "numpy"):
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "print('of the wheel')")
    call = call_of(tmp_path, "work", 60, run.read_results(None))
    assert call.unpack(wheels) == ["not-there"]
    call.take(Step("imports", 1, ("Not_There",)))
    assert "of the wheel" in call.results["steps"]["imports"]["tail"]


def test_names_of_packages():
    assert collect.names("# comment\njax==0.11.2\nml_dtypes  # of jax\n\nzope.interface[test]>=1\n") == {
        "jax",
        "ml-dtypes",
        "zope-interface",
    }


def refusal(command, arguments, capsys):
    with pytest.raises(SystemExit) as left:
        command([str(argument) for argument in arguments])
    assert left.value.code == 2
    return capsys.readouterr().err


def test_what_cannot_be_used_is_said(tmp_path, capsys):
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "notes.txt").write_text("mine")
    assert "expected 3.9, the machine's" in refusal(collect.main, [tmp_path / "new", "--python", "3.9"], capsys)
    assert "holds more than wheels" in refusal(collect.main, [tmp_path, "--python", here], capsys)
    assert (tmp_path / "notes.txt").exists()
    out = ["--out", tmp_path / "out"]
    assert "holds no wheels" in refusal(run.main, [*out, "--wheels", tmp_path], capsys)
    assert "notes.txt cannot be read" in refusal(run.main, [*out, "--done", tmp_path / "notes.txt"], capsys)
    assert not (tmp_path / "out").exists()


def test_rows_become_files_of_the_table(tmp_path, capsys):
    row = {"measure": "one", "commit": "unknown"}
    steps = {
        "gru": {"state": run.DONE, "rows": [row], "exit_code": 0},
        "floor": {"state": run.FAILED, "rows": [], "exit_code": 1},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"calls": [{"commit": "abc"}], "steps": steps, "toy": False}))
    assert unpack.main([str(path), "--into", str(tmp_path / "into"), "--prefix", "h100"]) == 0
    assert [file.name for file in (tmp_path / "into").iterdir()] == ["h100_gru.json"]
    assert json.loads((tmp_path / "into" / "h100_gru.json").read_text()) == [row | {"commit": "abc"}]
    assert "floor: failed, exit code 1" in capsys.readouterr().out
    path.write_text(json.dumps({"calls": [], "steps": {}, "toy": True}))
    assert "dry run" in refusal(unpack.main, [path], capsys)
