"""Bad input through the front door: exit code 2, one line on stderr that says what was found, and nothing written.

Real processes and real files. A process costs seconds, so each runs the commands of many cases in turn.
"""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import front_door
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
IMAGES = {"train": 8, "dev": 4, "test": 4}
REGIONS, FEATURES, PER_IMAGE = 3, 7, 5

# Runs each [module, arguments] in turn; the answers are [exit code, stderr], whatever wrote there.
RUN_CASES = """
import importlib, json, os, sys, tempfile
answers = []
for module, arguments in json.load(open(sys.argv[1])):
    with tempfile.TemporaryFile("w+") as errors:
        kept = os.dup(2)
        os.dup2(errors.fileno(), 2)
        try:
            code = importlib.import_module(module).main(arguments)
        except SystemExit as error:
            code = error.code
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
        errors.seek(0)
        answers.append([code, errors.read()])
json.dump(answers, open(sys.argv[2], "w"))
"""
TINY = {
    "data.format": "scan",
    "batch_size": 8,
    "eval.batch_size": 8,
    "num_epochs": 1,
    "optimizer.warmup_epochs": 0.0,
    "data.caption_lengths": "(16,)",
    "text.min_count": 1,
    "concepts.num": 5,
    "concepts.shares": "(2,2,1)",
    "concepts.vector_dim": 5,
    "model.embedding_dim": 8,
    "model.num_heads": 2,
    "model.word_dim": 6,
    "log.matches": 0,
}


def write_data(directory):
    rng = np.random.default_rng(0)
    for split, num_images in IMAGES.items():
        features = rng.standard_normal((num_images, REGIONS, FEATURES)).astype(np.float32)
        np.save(directory / f"{split}_ims.npy", features)
        captions = [
            f"A {('red', 'blue', 'old')[i % 3]} {('dog', 'cat')[i % 2]} is running near the small house, no. {i}."
            for i in range(num_images * PER_IMAGE)
        ]
        (directory / f"{split}_caps.txt").write_text("\n".join(captions) + "\n")
        (directory / f"{split}_ids.txt").write_text("".join(f"{i}\n" for i in range(num_images)))


def overwrite(name, content):
    return lambda directory: (directory / name).write_bytes(content)


def remove(name):
    return lambda directory: (directory / name).unlink()


def features(name, *shape, dtype=np.float32):
    return lambda directory: np.save(directory / name, np.zeros(shape, dtype))


def cut(name, size):
    return lambda directory: os.truncate(directory / name, size)


def edit(name, line, content):
    def change(directory):
        lines = (directory / name).read_bytes().splitlines()
        lines[line - 1] = content
        (directory / name).write_bytes(b"\n".join(lines) + b"\n")

    return change


def leave(directory):
    """Changes nothing."""


def not_finite(directory):
    content = np.load(directory / "train_ims.npy")
    content[5, 2, 3] = np.inf
    np.save(directory / "train_ims.npy", content)


# What is done to the data, what the line has to say, and the overrides: DIR stands for the directory.
MAIN = {
    **{f"no {name}": (remove(name), [f"DIR/{name}: no such file"], {}) for name in ("train_ims.npy", "dev_caps.txt")},
    **{f"no {name}": (remove(name), [f"DIR/{name}: no such file"], {}) for name in ("train_ids.txt", "test_ids.txt")},
    **{f"no {name}": (remove(name), [f"DIR/{name}: no such file"], {}) for name in ("test_ims.npy", "train_caps.txt")},
    "no directory": (leave, ["absent: no such directory", "expected SCAN's layout"], {"data.dir": "absent"}),
    "no data named": (leave, ["config.data.dir is empty; expected"], {"data.dir": ""}),
    "another count": (
        features("dev_ims.npy", 5, REGIONS, FEATURES),
        ["dev_ims.npy has 5 rows and dev_caps.txt 20 captions; expected one row per picture (4) or one per caption"],
        {},
    ),
    "a caption too many": (
        edit("test_caps.txt", 20, b"a dog.\na cat."),
        ["DIR/test_caps.txt has 21 captions; expected a multiple of 5"],
        {},
    ),
    "captions that do not come out even": (
        leave,
        ["DIR/train_caps.txt has 40 captions; expected a multiple of 3"],
        {"data.num_captions_per_image": 3},
    ),
    "a matrix": (  # one region a picture, where the others have three
        features("train_ims.npy", 8, 7),
        ["DIR/dev_ims.npy: regions and features are (3, 7); expected those of train_ims.npy, (1, 7)"],
        {},
    ),
    "integers": (features("test_ims.npy", 4, 3, 7, dtype=int), ["test_ims.npy holds int64 (4, 3, 7); expected"], {}),
    "another width in dev": (
        features("dev_ims.npy", 4, 3, 11),
        ["DIR/dev_ims.npy: regions and features are (3, 11); expected those of train_ims.npy, (3, 7)"],
        {},
    ),
    "another width in test": (
        features("test_ims.npy", 4, 3, 11),
        ["regions and features", "test", "(3, 11); expected those of train", "(3, 7)"],
        {},
    ),
    "features cut short": (cut("train_ims.npy", 300), ["DIR/train_ims.npy: not a whole .npy array"], {}),
    "features of no bytes": (overwrite("dev_ims.npy", b""), ["DIR/dev_ims.npy: not a whole .npy array"], {}),
    "features of zero bytes": (overwrite("dev_ims.npy", bytes(999)), ["DIR/dev_ims.npy: not a whole .npy array"], {}),
    "pickled features": (overwrite("dev_ims.npy", pickle.dumps([1])), ["DIR/dev_ims.npy: not a whole .npy"], {}),
    "no captions": (overwrite("dev_caps.txt", b""), ["DIR/dev_caps.txt has no captions; expected one or more"], {}),
    "an empty caption": (edit("train_caps.txt", 3, b" \t"), ["DIR/train_caps.txt line 3: an empty caption"], {}),
    "captions not UTF-8": (edit("dev_caps.txt", 2, b"caf\xe9"), ["DIR/dev_caps.txt line 2: not UTF-8"], {}),
    "ids that do not fit": (
        edit("test_ids.txt", 1, b"0\n1"),
        ["DIR/test_ids.txt has 5 lines; expected one per picture (4) or one per caption (20)"],
        {},
    ),
    "an unknown key": (
        leave,
        ["config.batchsize does not exist; the nearest key is config.batch_size"],
        {"batchsize": 8},
    ),
    "an unknown nested key": (
        leave,
        ["config.model.heads does not exist; the nearest key is config.model.num_heads"],
        {"model.heads": 2},
    ),
    "a wrong type": (leave, ["config.batch_size", "many"], {"batch_size": "many"}),
    "a wrong value": (leave, ["config.model.fusion is 'sum'; expected one of 'concat'"], {"model.fusion": "sum"}),
    "fewer captions for dev than a picture has": (
        leave,
        ["config.eval.validation_captions is 3; expected 0 or at least the 5 of a picture"],
        {"eval.validation_captions": 3},
    ),
    "heads that do not divide D": (
        leave,
        ["config.model.num_heads is 3, which does not divide model.embedding_dim 8"],
        {"model.num_heads": 3},
    ),
    "a batch larger than the data": (
        leave,
        ["config.batch_size is 80; expected at most the 40 captions"],
        {"batch_size": 80},
    ),
    "a batch that the devices do not divide": (
        leave,
        ["config.batch_size is 12, which the 8 devices do not divide"],
        {"batch_size": 12},
    ),
    "GloVe of another width": (
        overwrite("glove.txt", b"dog 1 2 3\ncat 4 5 6\n"),
        ["DIR/glove.txt, line 1: 3 values, expected 6"],
        {"text.word_vectors_path": "DIR/glove.txt"},
    ),
    "no GloVe": (leave, ["DIR/glove.txt: cannot be read"], {"text.word_vectors_path": "DIR/glove.txt"}),
    "concept vectors of another width": (
        overwrite("glove.txt", b"dog 1 2 3\n"),
        ["DIR/glove.txt, line 1: 3 values, expected 5"],
        {"concepts.vectors_path": "DIR/glove.txt"},
    ),
    "fewer concepts than asked for": (
        leave,
        ["the captions hold too few words for 300 concepts: found", " of 120 object words, "],
        {"concepts.num": 300},
    ),
    "no vocabulary": (leave, ["DIR/v.json: no such file"], {"text.vocabulary_path": "DIR/v.json"}),
    "a vocabulary that is none": (
        overwrite("v.json", json.dumps({"word2idx": {"dog": 0, "cat": 1}}).encode()),
        ["DIR/v.json: the first words are ['dog', 'cat']; expected ['<pad>', '<start>', '<end>', '<unk>']"],
        {"text.vocabulary_path": "DIR/v.json"},
    ),
    "folds that do not divide": (leave, ["3 folds do not divide the 4 pictures of test"], {"eval.folds": "(3,)"}),
    "another test split": (leave, ["DIR/testall_ims.npy: no such file"], {"eval.test_split": "testall"}),
}
LATER = {  # found in the middle of the first epoch, so all else is sound; by then there is a workdir
    "a feature that is not finite": (
        not_finite,
        ["DIR/train_ims.npy: picture 5 (row 5), region 2 holds inf at 3; expected finite features"],
        {},
    ),
}
OTHERS = {
    "evaluate no workdir": (
        ["mhcvse_jax.evaluate", "--workdir", "DIR/absent"],
        ["DIR/absent/config.json: no such file"],
    ),
    "evaluate no output directory": (
        ["mhcvse_jax.evaluate", "--workdir", "DIR", "--output", "DIR/absent/r.json"],
        ["--output DIR/absent/r.json: no such directory"],
    ),
    "evaluate a directory that is no workdir": (
        ["mhcvse_jax.evaluate", "--workdir", "DIR"],
        ["DIR/config.json: no such file; expected a workdir"],
    ),
    "check no directory": (["mhcvse_jax.check_data", "DIR/absent"], ["DIR/absent: no such directory"]),
    "check bad data": (
        ["mhcvse_jax.check_data", "DIR"],
        ["DIR: not sound; problems found: 1"],
    ),
    "main no configuration": (["mhcvse_jax.main", "--config", "DIR/absent.py"], ["DIR/absent.py: no such file"]),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What every case came to: its directory, exit code and what stood on stderr."""
    top = tmp_path_factory.mktemp("bad")
    sound = top / "sound"
    sound.mkdir()
    write_data(sound)
    directories, commands = {}, []
    for name, (damage, _, overrides) in (MAIN | LATER).items():
        directories[name] = directory = top / f"case{len(directories)}"
        shutil.copytree(sound, directory)
        damage(directory)
        values = TINY | {"data.dir": "DIR"} | overrides
        arguments = [f"--config.{key}={value}".replace("DIR", str(directory)) for key, value in values.items()]
        config = ["--config", str(ROOT / "configs" / "f30k.py"), "--workdir", str(directory / "run")]
        commands.append(["mhcvse_jax.main", [*config, *arguments]])
    for name, ((module, *arguments), _) in OTHERS.items():
        directories[name] = directory = top / f"case{len(directories)}"
        shutil.copytree(sound, directory)
        (directory / "dev_caps.txt").unlink()
        commands.append([module, [argument.replace("DIR", str(directory)) for argument in arguments]])
    (top / "cases.json").write_text(json.dumps(commands))
    done = subprocess.run(
        [sys.executable, "-c", RUN_CASES, str(top / "cases.json"), str(top / "answers.json")],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": front_door.xla_flags(8)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((top / "answers.json").read_text())
    return {name: (directories[name], *answer) for name, answer in zip(directories, found, strict=True)}


@pytest.mark.parametrize("name", [*MAIN, *LATER, *OTHERS])
def test_bad_input_is_exit_code_2_and_one_line_that_says_what_was_found(answers, name):
    directory, code, errors = answers[name]
    parts = OTHERS[name][1] if name in OTHERS else (MAIN | LATER)[name][1]
    assert code == 2, errors
    assert errors.count("\n") == 1
    assert errors.startswith("error: ")
    for part in parts:
        assert part.replace("DIR", str(directory)) in errors


@pytest.mark.parametrize("name", MAIN)
def test_bad_input_leaves_no_workdir(answers, name):
    assert not (answers[name][0] / "run").exists()
