"""The `mhcvse` command: what it lists, and that each name starts what it says."""

import importlib
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest
from front_door import ROOT
from test_check import SIZES, write_split

from mhcvse_jax import config as config_lib
from mhcvse_jax import main as train
from mhcvse_jax.__main__ import COMMANDS, main


def test_help_lists_every_command_on_one_screen(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 23  # of a terminal's 24, the last shows the prompt
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS] == [*COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_helps_by_its_own_name(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert f"usage: mhcvse {name} [-h]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["frobnicate"]])
def test_without_a_known_command_it_leaves_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.fixture
def directory(tmp_path):
    for seed, (name, (num_images, rows)) in enumerate(SIZES.items()):
        write_split(tmp_path, name, num_images, rows, first_id=100 * seed, seed=seed)
    return tmp_path


def test_help_and_compare_import_nothing_heavy_and_check_no_jax(tmp_path, directory):
    recalls = tmp_path / "other.csv"
    recalls.write_text("name,i2t_r1,i2t_r5,i2t_r10,t2i_r1,t2i_r5,t2i_r10\nother,50,60,70,40,50,60\n")
    done = subprocess.run(
        [sys.executable, "-c", QUICK, recalls, directory], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "other" in done.stdout
    assert "SCAN's layout" in done.stdout
    assert done.stderr.splitlines() == ["by help and compare: []", "by check: ['nltk', 'scipy']"]


QUICK = f"""
import contextlib, sys
from mhcvse_jax.__main__ import main
for name in {[name for name in COMMANDS if name != "build-tfds"]}:
    with contextlib.suppress(SystemExit):
        main([name, "--help"])
main(["compare", sys.argv[1]])
heavy = ("jax", "flax", "nltk", "scipy", "torch", "tensorboardX", "tensorflow_datasets", "grain", "orbax")
print("by help and compare:", [name for name in heavy if name in sys.modules], file=sys.stderr)
main(["check", sys.argv[2]])
print("by check:", [name for name in heavy if name in sys.modules], file=sys.stderr)
"""


def test_arguments_and_exit_codes_are_the_commands_own(capsys):
    assert main(["train", "--config", "f30k", "--config.batch_sise=3"]) == 2
    assert "config.batch_sise does not exist; the nearest key is config.batch_size" in capsys.readouterr().err
    assert main(["demo", "--config.model.num_heads=3", "--dry_run"]) == 2
    assert "model.num_heads is 3, which does not divide model.embedding_dim 128" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mhcvse imp", ["import-features", "import-pytorch"]),
        ("mhcvse evaluate --sp", ["--split"]),
        ("mhcvse evaluate --protocol ", ["csls", "inverted_softmax", "label_completion", "qb_norm", "standard"]),
        ("mhcvse train --config f30k_s", ["f30k_small"]),
        ("mhcvse train --config f30k --config.model.fus", ["--config.model.fusion", "--config.model.fusion_start"]),
        ("mhcvse demo --config.model.fusion adap", ["adap_sum"]),
    ],
)
def test_a_shell_is_told_what_may_come_next(line, expected, tmp_path):
    assert told(line, tmp_path) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_tells_the_shell(name, tmp_path):
    assert "--help" in told(f"mhcvse {name} --hel", tmp_path)


def told(line, directory):
    """Returns what a shell is told may stand at the end of a line."""
    answer = directory / "answer"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    subprocess.run([sys.executable, "-m", "mhcvse_jax"], cwd=ROOT, env=os.environ | asked, check=False)
    return sorted(answer.read_text().split())


def test_an_interrupt_before_the_command_begins_is_a_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "train", COMMANDS["train"]._replace(module="interrupted"))
    assert main(["train"]) == 75
    assert capsys.readouterr().err == "stopped; start the same command again\n"


def test_a_configuration_is_a_name_or_a_file():
    assert set(config_lib.named()) == {path.stem for path in (ROOT / "configs").glob("*.py")}
    by_name, by_file = config_lib.read("cvse_coco"), config_lib.read(str(ROOT / "configs" / "cvse_coco.py"))
    assert by_name.to_json() == by_file.to_json()
    assert by_name.model.fixed_instance_weight == 0.9


def test_an_unknown_name_is_refused_with_those_there_are(capsys):
    assert train.main(["--config", "f30q"]) == 2
    error = capsys.readouterr().err
    assert "f30q: no such file" in error
    assert "f30k_small" in error


def test_the_command_is_installed():
    scripts = tomllib.loads((pathlib.Path(ROOT) / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, function = scripts["mhcvse"].split(":")
    assert getattr(importlib.import_module(module), function) is main
