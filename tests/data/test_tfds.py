"""The built data set against the directory it was built from; what a user may do to either; real interrupted builds."""

import json
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

from mhcvse_jax import build_tfds
from mhcvse_jax import config as config_lib
from mhcvse_jax.data import batches, scan_layout, tfds
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading
from mhcvse_jax.scenes.build import write_scenes
from mhcvse_jax.terminal import progress

ROOT = pathlib.Path(__file__).parents[2]
TRAIN, DEV, TEST, REGIONS, WIDTH, PER_IMAGE = 37, 11, 7, 5, 13, 5
SIZES = {"train": TRAIN, "dev": DEV, "testall": TEST}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Scenes as SCAN's copies are: dev five times over, ids a caption each there, COCO's name for the test split."""
    directory = tmp_path_factory.mktemp("source") / "scan"
    sizes = {"num_train": TRAIN, "num_dev": DEV, "num_test": TEST}
    write_scenes(directory, **sizes, num_regions=REGIONS, feature_dim=WIDTH, image_size=32, twin_share=0.5, seed=0)
    shutil.rmtree(directory / "images")
    for path in directory.glob("test_*"):
        path.rename(path.with_name(path.name.replace("test_", "testall_")))
    np.save(directory / "dev_ims.npy", np.repeat(np.load(directory / "dev_ims.npy"), PER_IMAGE, axis=0))
    ids = (directory / "dev_ids.txt").read_text().splitlines()
    (directory / "dev_ids.txt").write_text("".join(f"{name}\n" * PER_IMAGE for name in ids))
    (directory / "dev_image_names.txt").unlink()
    return directory


def build(source, output, dtype="float32"):
    """A data set of several shards a split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds, "SHARD_BYTES", 11 * REGIONS * WIDTH * np.dtype(dtype).itemsize)
        build_tfds.build(source, output, dtype, PER_IMAGE)
    return output


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    directory = tmp_path_factory.mktemp("built")
    return {dtype: build(source, directory / dtype, dtype) for dtype in tfds.DTYPES}


@pytest.fixture
def copy(built, tmp_path):
    """A data set that may be damaged."""
    return pathlib.Path(shutil.copytree(built["float32"], tmp_path / "copy"))


def load(data_format, directory):
    config = config_lib.base()
    config.data.format = data_format
    config.concepts.update({"num": 10, "vector_dim": 7})
    config.text.min_count = 2
    return reading.load_training(config, directory)


def epoch(split, *, first_step=0):
    return list(
        batches.training_batches(
            split,
            batch_size=16,
            caption_lengths=(16, 24, 40),
            training_label="caption",
            seed=3,
            epoch=1,
            first_step=first_step,
            threads=3,
            prefetch=4,
        )
    )


def rounded(batch, dtype):
    return batch._replace(regions=batch.regions.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("dtype", tfds.DTYPES)
def test_batches_are_those_of_the_directory_also_from_the_middle_of_an_epoch(source, built, dtype):
    expected, found = load("scan", source), load("tfds", built[dtype])
    assert found.language.vocabulary.words == expected.language.vocabulary.words
    assert found.language.concepts.words == expected.language.concepts.words
    np.testing.assert_array_equal(found.language.concepts.cooccurrences, expected.language.concepts.cooccurrences)
    assert found.train.regions.dtype == dtype
    assert found.train.regions.shape == expected.train.regions.shape == (TRAIN, REGIONS, WIDTH)
    whole = epoch(expected.train)
    assert len(whole) == TRAIN * PER_IMAGE // 16
    for first_step in (0, 4):
        for a, b in zip(whole[first_step:], epoch(found.train, first_step=first_step), strict=True):
            for name, one, other in zip(a._fields, rounded(a, dtype), b, strict=True):
                if one is None:  # no picture has fewer regions than the others
                    assert other is None, name
                    continue
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other, err_msg=name)
    assert any((rounded(a, "float16").regions != a.regions).any() for a in whole)


@pytest.mark.parametrize("split", SIZES)
def test_a_split_has_each_picture_once_in_its_order(source, built, split):
    language = load("scan", source).language
    values = config_lib.base().data
    expected = reading.load_split(source, split, language, values)
    values.format = "tfds"
    found = reading.load_split(built["float32"], split, language, values)
    assert found.num_images == SIZES[split]
    assert found.captions == expected.captions
    assert found.image_ids == expected.image_ids
    assert found.image_names == expected.image_names
    assert (found.image_names is None) == (split == "dev")
    backwards = np.arange(SIZES[split])[::-1]
    np.testing.assert_array_equal(found.regions.read(backwards), expected.regions.read(backwards))


def test_several_shards_hold_a_split_and_one_is_read_where_only_it_is_needed(copy):
    shards = sorted(copy.glob("scan_regions-train.array_record-*"))
    assert [path.name[-14:] for path in shards] == [f"{i:05d}-of-00004" for i in range(4)]
    regions = tfds.read_split(copy, "train", PER_IMAGE).regions
    whole = regions.read(np.arange(TRAIN))
    regions = tfds.read_split(copy, "train", PER_IMAGE).regions
    for path in shards[1:]:
        path.unlink()
    first = np.array([9, 0, 9])
    np.testing.assert_array_equal(regions.read(first), whole[first])
    with pytest.raises(InputError, match=r"train.array_record-00002-of-00004: the record of picture 20 "):
        regions.read(np.array([20]))


def write_zeros(directory, pictures):
    """A directory of the size that Flickr30k's has a picture; its sparse file takes no disk."""
    directory.mkdir()
    open_memmap(directory / "train_ims.npy", "w+", np.float32, (pictures, 36, 512))
    (directory / "train_caps.txt").write_text("a dog runs\n" * pictures * PER_IMAGE)
    (directory / "train_ids.txt").write_text("".join(f"{i}\n" for i in range(pictures)))
    return directory


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


def test_tensorflow_datasets_itself_reads_it_and_nothing_imports_tensorflow(source, tmp_path):
    """In a process in which TensorFlow, an empty one, could be imported."""
    (tmp_path / "tensorflow.py").write_text("")
    program = """
        import pathlib, sys
        import numpy as np
        from mhcvse_jax import build_tfds
        from mhcvse_jax.data import tfds
        source, output = map(pathlib.Path, sys.argv[1:])
        assert build_tfds.main([str(source), str(output)]) == 0
        tfds.read_split(output, "train", 5).regions.read(np.array([3]))
        assert "tensorflow" not in sys.modules
        import tensorflow_datasets
        records = tensorflow_datasets.builder_from_directory(output).as_data_source("train")
        assert len(records) == len(np.load(source / "train_ims.npy"))
        record = records[3]
        assert "tensorflow" not in sys.modules
        np.testing.assert_array_equal(record["regions"], np.load(source / "train_ims.npy")[3])
        captions = (source / "train_caps.txt").read_text().splitlines()[15:20]
        assert [caption.decode() for caption in record["captions"]] == captions
        assert record["image_id"].decode() == (source / "train_ids.txt").read_text().splitlines()[3]
        assert record["image_name"] == b"train_00003.png"
        """
    program = "\n".join(line.strip() for line in program.splitlines())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    arguments = [sys.executable, "-c", program, source, tmp_path / "output"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "building  " in done.stdout
    assert "download" not in done.stdout
    assert not done.stderr


def edit(name, old, new):
    def change(directory):
        path = directory / name
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    return change


def shard(directory, number):
    return directory / f"scan_regions-train.array_record-{number:05d}-of-00004"


def cut(directory):
    os.truncate(shard(directory, 2), shard(directory, 2).stat().st_size - 1)


def extra_feature(directory):
    path = directory / "features.json"
    spec = json.loads(path.read_text())
    features = spec["featuresDict"]["features"]
    features["boxes"] = features["image_id"]
    path.write_text(json.dumps(spec))


def flip(directory, place):
    with shard(directory, 0).open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


DAMAGE = {
    "no directory": (shutil.rmtree, "copy: no such directory"),
    "half-built": (lambda d: (d / "dataset_info.json").unlink(), "copy: no dataset_info.json in it"),
    "no JSON": (edit("dataset_info.json", "{", "["), "copy: its dataset_info.json or .* is damaged"),
    "no features": (lambda d: (d / "features.json").unlink(), "features.json: no such file"),
    "another data set": (edit("dataset_info.json", '"scan_regions"', '"mnist"'), "'mnist'; expected 'scan_regions'"),
    "another version": (edit("dataset_info.json", "1.0.0", "0.9.0"), "is of version 0.9.0; expected 1.0.0"),
    "another type": (edit("features.json", '"float32"', '"float64"'), r"features.json: a record has .*float64"),
    "another rank": (edit("features.json", f'"{WIDTH}"', '"13", "1"'), r"features.json: a record has .*\(5, 13, 1\)"),
    "another encoding": (edit("features.json", '"bytes"', '"zlib"'), "features.json: a record has"),
    "another feature": (extra_feature, "features.json: a record has .*boxes"),
    "another width": (edit("features.json", f'"{WIDTH}"', '"17"'), "00000-of-00004: the record of picture 0 is dam"),
    "no shard": (lambda d: shard(d, 3).unlink(), r"00003-of-00004: no such file; expected \d+ records"),
    "a shard cut short": (cut, "00002-of-00004: not a whole ArrayRecord file"),
    "an empty shard": (lambda d: os.truncate(shard(d, 1), 0), "00001-of-00004: not a whole ArrayRecord file"),
    "another count": (lambda d: shutil.copy(shard(d, 3), shard(d, 0)), "00000-of-00004 has 9 records; expected 10"),
    "a damaged record": (lambda d: flip(d, 200), "00000-of-00004: the record of picture 0 is damaged"),
    "no captions": (lambda d: (d / "train_caps.txt").unlink(), "train_caps.txt: no such file"),
    "captions of fewer": (
        lambda d: (
            [(d / f"train_{kind}.txt").write_text("x\n" * number) for kind, number in (("caps", 180), ("ids", 36))]
            and (d / "train_image_names.txt").unlink()
        ),
        "train_caps.txt has the captions of 36 pictures, 5 each; expected those of the 37 records",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_when_the_split_is_opened(copy, name):
    damage, message = DAMAGE[name]
    damage(copy)
    with pytest.raises(InputError, match=message) as error:
        tfds.read_split(copy, "train", PER_IMAGE)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_record_damaged_later_in_a_file_is_never_read_wrong(copy):
    """Each byte of the records counts, so whichever is flipped, its picture is refused or unharmed."""
    regions = tfds.read_split(copy, "train", PER_IMAGE).regions
    expected = regions.read(np.arange(TRAIN))
    sound = shard(copy, 0).read_bytes()
    refused = 0
    for place in range(900, 4000, 331):
        shard(copy, 0).write_bytes(sound)
        flip(copy, place)
        regions = tfds.read_split(copy, "train", PER_IMAGE).regions
        for image in range(10):
            try:
                np.testing.assert_array_equal(regions.read(np.array([image]))[0], expected[image])
            except InputError:
                refused += 1
    assert refused >= 10


def test_a_split_that_is_not_there_and_the_other_format_are_named(source, built):
    with pytest.raises(InputError, match="no split 'test'; expected one of dev, testall, train"):
        tfds.read_split(built["float32"], "test", PER_IMAGE)
    with pytest.raises(InputError, match=r"it is in SCAN's layout: data.format is scan"):
        load("tfds", source)
    with pytest.raises(InputError, match=r"is a tfds data set; expected data.format tfds, found scan"):
        load("scan", built["float32"])


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


def test_nothing_is_overwritten(source, built, tmp_path, capsys):
    sound = {path.name: path.read_bytes() for path in built["float16"].iterdir()}
    assert build_tfds.main([str(source), str(built["float16"])]) == 2
    assert "float16 is a finished data set; delete it" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in built["float16"].iterdir()} == sound
    (tmp_path / "mine.txt").write_text("mine")
    assert build_tfds.main([str(source), str(tmp_path)]) == 2
    assert "is there and not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
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


def test_captions_of_any_number_a_picture_are_built_and_read(tmp_path):
    source, rng = tmp_path / "source", np.random.default_rng(0)
    source.mkdir()
    for name, owner in (("train", [3, 0, 0, 4, 0]), ("dev", [0, 0, 1, 1])):  # train's pictures 1 and 2 have none
        np.save(source / f"{name}_ims.npy", rng.random((max(owner) + 1, 2, 3), np.float32))
        (source / f"{name}_caps.txt").write_text("".join(f"caption {i}\n" for i in range(len(owner))))
        (source / f"{name}_caption_images.txt").write_text("".join(f"{i}\n" for i in owner))
    build_tfds.build(source, tmp_path / "built", "float32", 2)
    assert not (tmp_path / "built" / "dev_caption_images.txt").exists()  # two each, as config.data says
    for name in ("train", "dev"):
        expected, found = scan_layout.read_split(source, name, 2), tfds.read_split(tmp_path / "built", name, 2)
        assert (found.captions, found.image_ids) == (expected.captions, expected.image_ids)
        np.testing.assert_array_equal(found.image_of_caption, expected.image_of_caption)
        images = np.arange(found.num_images)
        np.testing.assert_array_equal(found.regions.read(images), expected.regions.read(images))
    records = tfds._open(tmp_path / "built").as_data_source("train")
    assert [[caption.decode() for caption in record["captions"]] for record in records] == [
        ["caption 1", "caption 2", "caption 4"],
        [],
        [],
        ["caption 0"],
        ["caption 3"],
    ]
