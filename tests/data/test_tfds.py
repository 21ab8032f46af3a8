"""A tensorflow-datasets data set of a directory: what is read from it, and that damage is named."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from tfds_data import PER_IMAGE, REGIONS, ROOT, SIZES, TRAIN, WIDTH, build, write_source

from mhcvse_jax import build_tfds
from mhcvse_jax import config as config_lib
from mhcvse_jax.data import batches, scan_layout, tfds
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "scan")


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
            assert a.num_regions is b.num_regions is None  # no picture has fewer regions than the others
            leaves = (jax.tree_util.tree_leaves_with_path(batch) for batch in (rounded(a, dtype), b))
            for (name, one), (_, other) in zip(*leaves, strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other, err_msg=str(name))
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
