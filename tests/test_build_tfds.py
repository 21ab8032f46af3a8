"""The building of a tensorflow-datasets data set: whole or not at all."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.lib.format import open_memmap
from tfds_data import DEV, PER_IMAGE, REGIONS, ROOT, TEST, TRAIN, WIDTH, build, write_source, write_zeros

from mhcvse_jax import build_tfds
from mhcvse_jax.data import scan_layout, tfds
from mhcvse_jax.errors import InputError
from mhcvse_jax.terminal import progress


@pytest.mark.parametrize("shard_bytes", [tfds.SHARD_BYTES, 1 << 20])
def test_the_size_announced_is_enough_and_not_much_more(tmp_path, monkeypatch, shard_bytes):
    monkeypatch.setattr(tfds, "SHARD_BYTES", shard_bytes)
    source = write_zeros(tmp_path / "zeros", 150)
    needed = build_tfds.bytes_needed(build_tfds.read_splits(source, PER_IMAGE), np.dtype("float32"))
    build_tfds.build(source, tmp_path / "output", "float32", PER_IMAGE)
    shards = list(tmp_path.glob("output/*.array_record-*"))
    assert len(shards) == (1 if shard_bytes == 128 << 20 else 11)
    taken = sum(path.stat().st_size for path in (tmp_path / "output").iterdir())
    assert taken <= needed < 1.01 * taken + (1 << 20) + len(shards) * (1 << 18)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "scan")


@pytest.fixture
def scan_copy(source, tmp_path):
    return pathlib.Path(shutil.copytree(source, tmp_path / "scan"))


def change_features(value, width=WIDTH):
    def change(directory):
        features = np.load(directory / "testall_ims.npy")[:, :, :width]
        features[3, 1, 2] = value
        np.save(directory / "testall_ims.npy", features)

    return change


def rename_split(directory):
    for path in directory.glob("testall_*"):
        path.rename(path.with_name(path.name.replace("testall", "all")))


def larger_than_the_disk(directory):
    """Sparse files of zeros."""
    rows = shutil.disk_usage(directory).free // (REGIONS * (WIDTH << 20)) + 1
    (directory / "testall_caps.txt").write_text("a dog\n" * rows * PER_IMAGE)
    for kind in ("ids", "image_names"):
        (directory / f"testall_{kind}.txt").write_text("1\n" * rows)
    for split, size in (("train", TRAIN), ("dev", DEV), ("testall", rows)):
        features = open_memmap(directory / f"{split}_ims.npy", "w+", np.float32, (size, REGIONS, WIDTH << 20))
        features[0, 0, 0] = np.nan  # if it were built after all, it would end here


BAD_SOURCES = {
    "no directory": (shutil.rmtree, "scan: no such directory"),
    "nothing in it": (lambda d: [path.unlink() for path in d.iterdir()], "scan: no train_ims.npy in it"),
    "no features": (lambda d: (d / "dev_ims.npy").unlink(), "dev_ims.npy: no such file"),
    "not finite": (change_features(np.nan), r"testall_ims.npy: the features of picture 3 .* are not finite"),
    "too large": (change_features(1e5), r"testall_ims.npy: picture 3 .* has a feature of size 1e\+05, which float16"),
    "another width": (change_features(0, 11), r"testall_ims.npy: .* \(5, 11\); expected those of train.*\(5, 13\)"),
    "a reserved name": (rename_split, "all_ims.npy: 'all' cannot name a split"),
    "a small disk": (larger_than_the_disk, r"output: the disk has [\d.,]+ GB free; expected [\d.,]+ GB or more"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_source_that_cannot_be_built_is_named_and_leaves_nothing(scan_copy, tmp_path, capsys, name):
    damage, message = BAD_SOURCES[name]
    damage(scan_copy)
    before = set(tmp_path.iterdir())
    assert build_tfds.main([str(scan_copy), str(tmp_path / "output"), "--dtype", "float16"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("number", "message"), [(0, "is 0; expected 1 or more"), (4, "expected a multiple of 4")])
def test_another_number_of_captions_is_named(source, tmp_path, capsys, number, message):
    arguments = [str(source), str(tmp_path / "output"), "--captions_per_image", str(number)]
    assert build_tfds.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_overwritten(source, tmp_path, capsys):
    built, mine = build(source, tmp_path / "built"), tmp_path / "mine"
    sound = {path.name: path.read_bytes() for path in built.iterdir()}
    assert build_tfds.main([str(source), str(built)]) == 2
    assert "built is a finished data set; delete it" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in built.iterdir()} == sound
    mine.mkdir()
    (mine / "mine.txt").write_text("mine")
    assert build_tfds.main([str(source), str(mine)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in mine.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert build_tfds.main([str(source), str(tmp_path / "empty")]) == 0
    assert scan_layout.is_tfds(tmp_path / "empty")


def test_progress_has_rate_and_time_left(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    build(source, tmp_path / "output")
    printed = capsys.readouterr().out
    assert f"pictures  train {TRAIN}, dev {DEV}, testall {TEST}; {REGIONS} regions of {WIDTH}" in printed
    assert "GB are free" in printed
    lines = [line.split() for line in printed.splitlines() if "pictures/s" in line]
    total = TRAIN + DEV + TEST
    assert [line[0] for line in lines] == [f"{done}/{total}" for done in range(1, total + 1)]
    assert all(re.fullmatch(r"\d\d:\d\d left", " ".join(line[-2:])) for line in lines)


def start_build(source, output, prelude=""):
    program = f"{prelude}\nimport sys\nfrom mhcvse_jax import build_tfds\nsys.exit(build_tfds.main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", program, source, output],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def long_source(tmp_path_factory):
    """A directory that takes some seconds to build."""
    return write_zeros(tmp_path_factory.mktemp("long") / "zeros", 6000)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing_that_looks_finished(source, long_source, tmp_path, number, capsys):
    output, partial = tmp_path / "output", tmp_path / ".output.partial"
    process = start_build(long_source, output)
    try:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in partial.rglob("*.array_record-*")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert not output.exists()
    if number != signal.SIGKILL:
        assert process.returncode == 75
        assert errors == "stopped; start the same command again\n"
        assert not list(tmp_path.iterdir())
    else:
        (half_built,) = {path.parent for path in partial.rglob("*.array_record-*")}
        with pytest.raises(InputError, match=r"no dataset_info.json in it"):
            tfds.read_split(half_built, "train", PER_IMAGE)
        assert build_tfds.main([str(source), str(output)]) == 2
        assert f"{partial} is there: a build of {output} is running, or was killed" in capsys.readouterr().err
        shutil.rmtree(partial)
    build(source, output)
    assert tfds.read_split(output, "dev", PER_IMAGE).regions.shape == (DEV, REGIONS, WIDTH)


def test_a_file_that_cannot_be_written_ends_the_build(long_source, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    process = start_build(long_source, tmp_path / "output", prelude=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "cannot be written" in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_helps(capsys):
    with pytest.raises(SystemExit, match="0"):
        build_tfds.main(["--help"])
    printed = capsys.readouterr().out
    assert "--dtype" in printed
    assert "--config.data.format=tfds" in printed
