"""From a folder of pictures to a trained model, by the commands that a user gives."""

import json
import shutil

import front_door
import numpy as np
import pytest
from PIL import Image

from mhcvse_jax import check_data, config, evaluate, extract, main
from mhcvse_jax.data import feature_source, scan_layout
from mhcvse_jax.data.fingerprint import DataFacts
from mhcvse_jax.experiment import reading
from mhcvse_jax.run.train_and_test import prepare_workdir
from mhcvse_jax.run.workdir import WorkdirLock

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}
NUMBER = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of one colour, a damaged one, and five captions of each."""
    folder = tmp_path_factory.mktemp("pictures")
    things = ("dog", "cat", "house", "car", "tree", "boat", "horse", "child")
    rows = ["file_name,caption,split"]
    for number in range(NUMBER):
        colour = list(COLOURS)[number % 4]
        Image.new("RGB", (31 + number, 17), COLOURS[colour]).save(folder / f"{number}.png")
        split = "train" if number < 8 else "val" if number < 11 else "test"
        rows += [f"{number}.png,a {colour} {thing} is running,{split}" for thing in things[number % 4 :][:5]]
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:60])
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def data(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "mine"
    assert extract_to(out, folder) == 0
    return out


def extract_to(out, folder, *more):
    captions = folder / "captions.csv"
    return extract.main([*("--images", str(folder), "--captions", str(captions), "--out", str(out)), *map(str, more)])


def test_a_folder_becomes_data_that_a_training_takes(data, capsys):
    assert np.load(data / "train_ims.npy").shape == (7, 36, 1280)
    sizes = np.load(data / "train_image_sizes.npy").tolist()
    names = (data / "train_image_names.txt").read_text().split()
    assert sizes == [[31 + int(name.removesuffix(".png")), 17] for name in names]
    assert "5.png: not a whole picture" in json.loads((data / "features.json").read_text())["left_out"]["5.png"]
    assert check_data.main([str(data)]) == 0
    assert "features of efficientnet_lite2 (weights 9656183eaeaf, regions grid" in capsys.readouterr().out
    split = scan_layout.read_split(data, "train", 5)
    assert len(split.captions) == 5 * split.num_images == 35


def test_a_model_is_held_to_the_encoder_that_it_was_trained_with(data, finished, tmp_path, capsys):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    feature_source.keep(data, workdir)
    (workdir / "results.json").unlink()
    scenes = workdir / "scenes"
    made_by = json.loads((data / "features.json").read_text())
    (scenes / "features.json").write_text(json.dumps(made_by | {"encoder": "faster_rcnn"}))
    resumed = main.main([str(word) for word in front_door.tiny(workdir)])
    errors = [capsys.readouterr().err]
    evaluated = evaluate.main(["--workdir", str(workdir), "--data_dir", str(scenes)])
    errors.append(capsys.readouterr().err)
    assert (resumed, evaluated) == (2, 2)
    for error in errors:
        assert f"{scenes} has features of faster_rcnn" in error
        assert "expected efficientnet_lite2" in error


def test_a_training_records_what_made_its_features(data, finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    settings = config.load(workdir / "config.json")
    training = reading.load_training(settings, workdir / "scenes", reading.load_language(workdir, settings))
    lock = WorkdirLock(workdir)
    for directory in (data, finished[0]):
        prepare_workdir(settings, training, DataFacts(directory.name, {}), directory, workdir, lock)
        assert feature_source.read(workdir) == feature_source.read(directory)
    lock.release()
    assert feature_source.read(workdir) is None


def test_a_folder_without_captions_is_there_to_be_searched(tmp_path, capsys):
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png")
    assert extract.main(["--images", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out" / "search_ims.npy").shape == (1, 36, 1280)
    assert (tmp_path / "out" / "search_caps.txt").read_text() == ""
    assert check_data.main([str(tmp_path / "out")]) == 0
    assert "pictures to search in, not to train on" in capsys.readouterr().out


def test_what_cannot_be_used_is_said_in_one_line(folder, data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 cut short")
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    for message, arguments in {
        "no such directory; expected a folder of pictures": ("--images", tmp_path / "none"),
        "no picture in it": ("--images", tmp_path / "empty"),
        "not a whole file of torch.save": ("--weights", tmp_path / "weights.pth"),
        "which is not read": ("--weights", tmp_path / "code.pth"),
        "weights.none: cannot be read": ("--weights", "weights.none"),
        "holds features of efficientnet_lite2": ("--out", data, "--regions", "pyramid"),
        "not empty": ("--out", tmp_path),
        "weights.pth/out: cannot be written": ("--out", tmp_path / "weights.pth" / "out"),
        "/proc/none/out: cannot be written": ("--out", "/proc/none/out"),  # where no folder can be made
        "5.png: not a whole picture": ("--strict",),
        "expected SPLIT=FILE": ("--split_list", "train.txt"),
        "--uncaptioned: split '../x'": ("--uncaptioned", "../x"),
        "captions.none: cannot be read": ("--captions", "captions.none"),
    }.items():
        assert extract_to(tmp_path / "out", folder, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
