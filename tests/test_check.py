"""The command that checks a data directory, on real files."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from test_scan_layout_damage import SOUND, damages, use, write

from mhcvse_jax import check_data
from mhcvse_jax.data.scan_layout import read_split
from mhcvse_jax.errors import InputError

REGIONS, FEATURES, PER_IMAGE = 3, 7, 5
SIZES = {"train": (13, 1), "dev": (5, 5), "test": (4, 1)}  # pictures, rows of each


def write_split(directory, name, num_images, rows_a_picture, first_id, seed):
    features = np.random.default_rng(seed).standard_normal((num_images, REGIONS, FEATURES)).astype(np.float32)
    np.save(directory / f"{name}_ims.npy", np.repeat(features, rows_a_picture, axis=0))
    captions = [f"a dog no. {i} of {name}" for i in range(num_images * PER_IMAGE)]
    (directory / f"{name}_caps.txt").write_text("\n".join(captions) + "\n")
    ids = [f"{first_id + i}\n" * rows_a_picture for i in range(num_images)]
    (directory / f"{name}_ids.txt").write_text("".join(ids))


@pytest.fixture
def directory(tmp_path):
    for i, (name, (num_images, rows)) in enumerate(SIZES.items()):
        write_split(tmp_path, name, num_images, rows, first_id=100 * i, seed=i)
    return tmp_path


def run(capsys, directory, *arguments):
    code = check_data.main([str(directory), *arguments])
    printed = capsys.readouterr()
    assert printed.err.count("\n") == (1 if code else 0)
    return code, printed.out


def replace(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


def change(path, **values):
    """Sets features of a file, {row: value}."""
    features = np.load(path)
    for row, value in values.items():
        features[int(row.removeprefix("row"))] = value
    np.save(path, features)


def test_a_sound_directory_is_described(capsys, directory):
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    code, printed = run(capsys, directory)
    assert code == 0
    for line in (
        "train     13 pictures, 65 captions",
        "train_ims.npy float32 (13, 3, 7), 0.00 GB, rows per picture: 1",
        "train_ids.txt one per picture, 0 to 12",
        "dev_ims.npy float32 (25, 3, 7), 0.00 GB, rows per picture: 5",
        "dev_ids.txt one per caption, 100 to 104",
        "tokens per caption: 6.0, median 6, longest 6",
        "picture 102: a dog no. 10 of dev",
        "testall   absent, and not needed",
        "sound; warnings: none",
    ):
        assert line in printed
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_mean_and_range_are_those_of_the_features(capsys, directory):
    _, printed = run(capsys, directory)
    for name in SIZES:
        features = np.load(directory / f"{name}_ims.npy")
        expected = f"mean {features.mean():.4g}, from {features.min():.4g} to {features.max():.4g}"
        assert f"{name}_ims.npy: {expected}; regions that are all zero: 0" in printed


def test_all_that_is_wrong_is_listed_at_once(capsys, directory):
    (directory / "train_ids.txt").unlink()
    change(directory / "train_ims.npy", row3=np.nan, row4=np.inf)
    replace(directory / "dev_caps.txt", b"a dog no. 3 of dev", b"caf\xe9")
    replace(directory / "dev_caps.txt", b"a dog no. 8 of dev", b" ")
    np.save(directory / "test_ims.npy", np.zeros((3, REGIONS, FEATURES + 1)))
    code, printed = run(capsys, directory)
    assert code == 2
    problems = [line for line in printed.splitlines() if line.startswith("problem")]
    for part in (
        "train_ids.txt: no such file",
        "train_ims.npy: NaN or infinity in 6 regions, in the pictures row 3 (row 3, region 0), row 3 (row 3, region 1)",
        "dev_caps.txt line 4: not UTF-8",
        "dev_caps.txt line 9: an empty caption",
        "test_ims.npy has 3 rows and test_caps.txt 20 captions",
        "test_ims.npy: regions and features are (3, 8); expected those of train_ims.npy, (3, 7)",
    ):
        assert sum(part in problem for problem in problems) == 1
    assert len(problems) == 6
    assert "test_ims.npy holds float64; it is converted to float32" in printed
    assert "--help" in printed


@pytest.mark.parametrize(("name", "shape"), [("boxes", (13, 3, 5)), ("boxes", ()), ("image_sizes", (12, 2))])
def test_boxes_that_later_commands_would_refuse_are_a_problem(capsys, directory, name, shape):
    np.save(directory / f"train_{name}.npy", np.ones(shape, np.float32))
    code, printed = run(capsys, directory)
    assert code == 2
    assert f"train_{name}.npy is {shape}; expected (13, " in printed


def test_quick_reads_no_features(capsys, directory):
    change(directory / "train_ims.npy", row3=np.nan)
    assert run(capsys, directory)[0] == 2
    assert run(capsys, directory, "--quick")[0] == 0


def test_missing_splits_are_named(capsys, directory):
    for path in directory.glob("dev_*"):
        path.rename(path.with_name(path.name.replace("dev", "val")))
    code, printed = run(capsys, directory)
    assert code == 2
    assert "dev is missing; expected dev_ims.npy, dev_caps.txt, dev_ids.txt" in printed
    assert "val_ims.npy: a split of another name than train, dev, test, testall" in printed


def test_cocos_testall_is_known_and_may_hold_test(capsys, directory):
    for path in directory.glob("test_*"):
        (directory / path.name.replace("test", "testall")).write_bytes(path.read_bytes())
    code, printed = run(capsys, directory)
    assert code == 0
    assert "4 pictures of test are also in testall" in printed
    assert "leak" not in printed
    assert "testall_caps.txt: 4 pictures, not the five equal folds" in printed
    for path in directory.glob("test_*"):
        path.unlink()
    assert run(capsys, directory)[0] == 0


def test_a_picture_in_two_splits_is_a_leak(capsys, directory):
    change(directory / "train_ims.npy", row2=np.load(directory / "test_ims.npy")[1])
    (directory / "train_ids.txt").write_text("".join(f"{i if i != 2 else 201}\n" for i in range(13)))
    code, printed = run(capsys, directory)
    assert code == 0
    assert "1 pictures of test are also in train, by their ids (201): a leak: 1 of the first 1 have the same" in printed
    assert printed.count("a leak") == 1
    (directory / "train_ids.txt").write_text("".join(f"{i}\n" for i in range(13)))
    _, printed = run(capsys, directory)
    assert "1 pictures have exactly the features of another of train: a leak (201 as 2)" in printed
    assert "exactly the features" not in run(capsys, directory, "--quick")[1]
    (directory / "train_ids.txt").write_text("".join(f"{200 + i}\n" for i in range(13)))
    _, printed = run(capsys, directory)
    assert "4 pictures of test are also in train, by their ids (201, 200, 202, 203)" not in printed
    assert "their features differ, so each split may number its pictures from 0" in printed


def test_what_is_there_twice_or_empty_is_a_warning(capsys, directory):
    features = np.load(directory / "train_ims.npy")
    change(directory / "train_ims.npy", row5=features[9], row6=0, row7=0)
    change(directory / "test_ims.npy", row2=[0, 1, 1, 1, 1, 1, 1])  # the first feature alone is 0
    (directory / "test_ids.txt").write_text("200\n200\n202\n203\n")
    code, printed = run(capsys, directory)
    assert code == 0
    assert printed.count("all zero: 0") == 2  # in dev and test
    for line in (
        "1 pictures have exactly the features of another (9 as 5)",
        "train_ims.npy: 2 pictures are all zero: 6, 7",
        "regions that are all zero: 6",
        "test_ids.txt: 1 ids belong to more than one picture: 200",
        "warnings: 3",
    ):
        assert line in printed


@pytest.mark.parametrize("value", [3.5, np.nan])
def test_rows_of_a_picture_that_differ_are_a_problem_as_a_run_refuses_them(capsys, directory, value):
    change(directory / "dev_ims.npy", row7=value)  # the third of five rows of picture 1
    code, printed = run(capsys, directory)
    assert code == 2
    assert "problem   " in printed
    assert "dev_ims.npy: the rows of 1 pictures differ: 101; expected one picture, repeated for each of" in printed
    split = read_split(directory, "dev", PER_IMAGE)
    split.regions.read(np.array([0, 2]))
    with pytest.raises(InputError, match=r"rows 5 to 9 differ"):
        split.regions.read(np.array([1]))


def test_pictures_whose_rows_are_not_known_are_called_by_their_row(capsys, directory):
    np.save(directory / "test_ims.npy", np.ones((9, REGIONS, FEATURES), np.float32))
    code, printed = run(capsys, directory)
    assert code == 2
    assert "test_ims.npy has 9 rows and test_caps.txt 20 captions" in printed
    assert "8 pictures have exactly the features of another (row 1 as row 0, row 2 as row 0" in printed


def test_blocks_change_nothing(capsys, directory, monkeypatch):
    change(directory / "train_ims.npy", row5=0, row7=np.nan)
    change(directory / "dev_ims.npy", row7=3.5)
    whole = run(capsys, directory)
    monkeypatch.setattr("mhcvse_jax.data.check_features.BLOCK_BYTES", 200)  # two pictures of one row
    assert run(capsys, directory) == whole


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(damages())
def test_the_check_finds_a_problem_just_where_a_run_refuses(damage):
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        for split in ("train", "test"):
            sound = {file.replace("dev", split): content for file, content in SOUND.items() if file.startswith("dev")}
            write(directory, sound, {})
        write(directory, *damage)
        try:
            shape = use(directory).regions.shape
            refused = shape[1:] != (2, 5)  # those of train
        except InputError:
            refused = True
        assert check_data.main([name]) == (2 if refused else 0)


def test_a_missing_directory_and_a_bad_number_are_named(capsys, tmp_path):
    assert check_data.main([str(tmp_path / "absent")]) == 2
    assert "absent: no such directory" in capsys.readouterr().err
    assert check_data.main([str(tmp_path), "--captions_per_image=0"]) == 2
    assert "--captions_per_image is 0; expected 1 or more" in capsys.readouterr().err


def test_ctrl_c_is_one_line(directory):
    """The features are a file of holes: long to read, and short on disk."""
    np.lib.format.open_memmap(directory / "train_ims.npy", "w+", np.float32, (13, 36, 1 << 21)).flush()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "mhcvse_jax.check_data", str(directory)],
        cwd=pathlib.Path(__file__).parent.parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if line.startswith("test "):  # the last split is opened: next the features are read
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75
    assert errors == "stopped; start the same command again\n"


def test_help_names_the_files_and_where_they_come_from(capsys):
    with pytest.raises(SystemExit, match="0"):
        check_data.main(["--help"])
    printed = capsys.readouterr().out
    for part in ("{split}_ims.npy", "{split}_caps.txt", "{split}_ids.txt", "kuanghuei/SCAN", "--quick"):
        assert part in printed
