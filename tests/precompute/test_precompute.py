"""A data directory that is written picture by picture: whole, resumed, shared by processes, with pictures left out."""

import concurrent.futures
import errno
import fcntl
import json
import pathlib
import time

import numpy as np
import pytest

from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute import directory
from mhcvse_jax.precompute.captions import read_captions
from mhcvse_jax.precompute.directory import Made, Target
from mhcvse_jax.precompute.feature_file import FeatureFile, write_array
from mhcvse_jax.precompute.plan import Picture
from mhcvse_jax.precompute.regions import Regions
from mhcvse_jax.run.command_line import CANNOT_WRITE

SOURCE = FeatureSource("tests", "ab" * 32, {"regions": 5})
REGIONS, WIDTH = 5, 3


def make_target(out, *, num_captions=5, source=SOURCE, numbers=(("train", 71), ("dev", 13))):
    plan, first = {}, 0
    for split, number in numbers:
        plan[split] = [
            Picture(f"{i}.jpg", str(i), tuple(f"caption {k} of {i}" for k in range(num_captions)), i)
            for i in range(first, first + number)
        ]
        first += number
    return Target(out, plan, source, (REGIONS, WIDTH))


def regions_of(number, num=REGIONS):
    values = np.arange(num * WIDTH, dtype=np.float32).reshape(num, WIDTH) + 100 * number
    boxes = np.arange(num * 4, dtype=np.float32).reshape(num, 4) + number
    return Made(Regions(values, boxes), (number + 1, 2 * number + 1))


def make_all(pictures):
    return (regions_of(picture.item) for picture in pictures)


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_all_is_as_it_was_made_and_nothing_is_left_over(tmp_path):
    out = tmp_path / "out"
    directory.write(make_target(out), make_all, strict=False)
    for split, start, number in (("train", 0, 71), ("dev", 71, 13)):
        features = np.load(out / f"{split}_ims.npy", mmap_mode="r")
        assert features.shape == (number, REGIONS, WIDTH)
        for row in (0, 31, 32, number - 1) if split == "train" else (0, 12):
            np.testing.assert_array_equal(features[row], regions_of(start + row).regions.features)
        np.testing.assert_array_equal(np.load(out / f"{split}_boxes.npy")[-1], regions_of(start + number - 1)[0].boxes)
        sizes = np.load(out / f"{split}_image_sizes.npy")
        np.testing.assert_array_equal(sizes[:2], [[start + 1, 2 * start + 1], [start + 2, 2 * start + 3]])
        assert (out / f"{split}_ids.txt").read_text().split() == [str(start + i) for i in range(number)]
        assert (out / f"{split}_image_names.txt").read_text().split()[-1] == f"{start + number - 1}.jpg"
        assert (out / f"{split}_caps.txt").read_text().splitlines()[7] == f"caption 2 of {start + 1}"
    assert {name.partition("_")[2] for name in files(out)} == {
        *("ims.npy", "boxes.npy", "image_sizes.npy", "ids.txt", "image_names.txt", "caps.txt", ""),
    }
    written = json.loads((out / "features.json").read_text())
    assert written["encoder"] == "tests"
    assert written["pictures"] == {"train": 71, "dev": 13}
    assert {path.name for path in out.iterdir()} == set(files(out))


def test_numbers_of_captions_are_written_and_read_again(tmp_path):
    target = make_target(tmp_path / "out", numbers=(("train", 7),))
    target.plan["train"][:] = [
        one._replace(caption_ids=tuple(f"{one.image_id}{k}" for k in range(5))) for one in target.plan["train"]
    ]
    directory.write(target, make_all, strict=False)
    lines = (tmp_path / "out" / "train_capids.txt").read_text().split()
    assert lines == [f"{i}{k}" for i in range(7) for k in range(5)]
    again = read_captions(tmp_path / "out")
    assert again[3].caption_ids == ("30", "31", "32", "33", "34")


def test_regions_and_captions_of_varying_number(tmp_path):
    target = make_target(tmp_path, num_captions=2)
    target.plan["dev"][4] = target.plan["dev"][4]._replace(captions=())

    def make(pictures):
        for picture in pictures:
            made = regions_of(picture.item, 1 + picture.item % REGIONS)
            scores = np.full(len(made.regions.boxes), 0.5)
            yield made._replace(regions=made.regions._replace(classes=np.arange(len(scores)), class_scores=scores))

    directory.write(target, make, strict=False)
    np.testing.assert_array_equal(np.load(tmp_path / "dev_num_regions.npy"), 1 + np.arange(71, 84) % REGIONS)
    features = np.load(tmp_path / "dev_ims.npy")
    np.testing.assert_array_equal(features[0, :2], regions_of(71, 2).regions.features)
    np.testing.assert_array_equal(features[0, 2:], 0)
    assert np.load(tmp_path / "train_classes.npy").dtype == np.int32
    np.testing.assert_array_equal(np.load(tmp_path / "train_class_scores.npy")[1], [0.5, 0.5, 0, 0, 0])
    images = (tmp_path / "dev_caption_images.txt").read_text().split()
    assert images == [str(i) for i in range(71, 84) if i != 75 for _ in range(2)]
    assert len((tmp_path / "dev_caps.txt").read_text().splitlines()) == len(images)


def test_pictures_that_cannot_be_used_are_named_and_left_out(tmp_path, capsys):
    broken = {0, 3, 40, 69, 70, 83}

    def make(pictures):
        for picture in pictures:
            made = regions_of(picture.item)
            yield InputError(f"{picture.name}: broken") if picture.item in broken else made

    directory.write(make_target(tmp_path), make, strict=False)
    said = capsys.readouterr().out
    assert "left out  40.jpg: broken" in said
    assert "train 66, dev 12; left out: 6" in said
    assert json.loads((tmp_path / "features.json").read_text())["left_out"]["83.jpg"] == "83.jpg: broken"
    for split, numbers in (("train", range(71)), ("dev", range(71, 84))):
        ids = [int(line) for line in (tmp_path / f"{split}_ids.txt").read_text().split()]
        assert sorted(ids) == [number for number in numbers if number not in broken]
        features, boxes = np.load(tmp_path / f"{split}_ims.npy"), np.load(tmp_path / f"{split}_boxes.npy")
        assert len(features) == len(boxes) == len(ids)
        captions = (tmp_path / f"{split}_caps.txt").read_text().splitlines()
        for row, number in enumerate(ids):
            np.testing.assert_array_equal(features[row], regions_of(number).regions.features)
            np.testing.assert_array_equal(boxes[row], regions_of(number).regions.boxes)
            assert captions[5 * row] == f"caption 0 of {number}"
    with pytest.raises(InputError, match=r"0.jpg: broken"):
        directory.write(make_target(tmp_path / "strict"), make, strict=True)
    broken.update(range(71, 84))
    with pytest.raises(InputError, match=r"none of the 13 pictures of dev can be used: 71.jpg: broken"):
        directory.write(make_target(tmp_path / "none"), make, strict=False)


def test_what_was_stopped_goes_on_with_what_is_left(tmp_path, capsys):
    asked = []

    def stop_after(number):
        def make(pictures):
            for picture in pictures:
                if len(asked) == number:
                    raise OSError(errno.ENOSPC, "No space left on device")
                asked.append(picture.item)
                yield regions_of(picture.item)

        return make

    with pytest.raises(OSError, match="No space left"):
        directory.write(make_target(tmp_path / "out"), stop_after(40), strict=False)
    assert not (tmp_path / "out" / "features.json").exists()
    asked.clear()
    directory.write(make_target(tmp_path / "out"), stop_after(-1), strict=False)
    assert asked == list(range(32, 84))
    assert "resuming  32 of 84 pictures are done" in capsys.readouterr().out
    directory.write(make_target(tmp_path / "whole"), make_all, strict=False)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    before = files(tmp_path / "out")
    directory.write(make_target(tmp_path / "out"), stop_after(0), strict=False)  # finished: asks for nothing
    assert files(tmp_path / "out") == before


def test_several_at_work_share_the_pictures(tmp_path):
    asked = []

    def make(pictures):
        for picture in pictures:
            time.sleep(0.001)
            asked.append(picture.item)
            yield regions_of(picture.item)

    with concurrent.futures.ThreadPoolExecutor(3) as threads:  # to a lock they are as processes
        target = make_target(tmp_path / "out")
        list(threads.map(lambda _: directory.write(target, make, strict=False), range(3)))
    assert sorted(asked) == list(range(84))
    directory.write(make_target(tmp_path / "whole"), make_all, strict=False)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_part_that_another_process_holds_is_left_to_it(tmp_path, monkeypatch):
    target = make_target(tmp_path)
    monkeypatch.setattr(directory, "WAIT_SECONDS", 0.0)
    directory._begin(target)
    asked = []

    def make(pictures):
        asked.extend(picture.item for picture in pictures)
        return make_all(pictures)

    holder = target.part(1).with_suffix(".lock").open("a")
    fcntl.flock(holder, fcntl.LOCK_EX)
    monkeypatch.setattr(directory.time, "sleep", lambda _: holder.close())  # its process ends
    directory.write(target, make, strict=False)
    assert asked == [*range(32), *range(64, 84), *range(32, 64)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": SOURCE._replace(encoder="other")}, "holds features of tests .*, not of other"),
        ({"source": SOURCE._replace(weights_sha256="cd" * 32)}, "weights abababababab, .*, not of tests .weights cdcd"),
        ({"num_captions": 3}, "other pictures or captions"),
        ({"numbers": (("train", 70), ("dev", 14))}, "other pictures or captions"),
    ],
)
def test_a_directory_of_something_else_is_refused(tmp_path, change, message):
    directory.write(make_target(tmp_path / "finished"), make_all, strict=False)
    directory._begin(make_target(tmp_path / "begun"))
    for name in ("finished", "begun"):
        with pytest.raises(InputError, match=message):
            directory.write(make_target(tmp_path / name, **change), make_all, strict=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(InputError, match="not empty"):
        directory.write(make_target(tmp_path / "other"), make_all, strict=False)
    with pytest.raises(InputError, match=r"not empty|cannot be written"):
        directory.write(make_target(tmp_path / "other" / "thesis.txt"), make_all, strict=False)


def test_rows_that_are_left_out_are_filled_from_the_end(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(20):
        rows = rng.normal(size=(17, 2, 3)).astype(np.float32)
        is_kept = rng.random(17) < rng.random()
        is_kept[rng.integers(17)] = True
        file = FeatureFile(tmp_path / f"{number}.npy", (2, 3))
        file.allocate(17)
        file.write(enumerate(rows))
        for _ in range(2):  # a second time, as after a kill
            kept = file.keep(is_kept)
            np.testing.assert_array_equal(np.load(file.path), rows[kept])
            assert sorted(kept) == np.flatnonzero(is_kept).tolist()


def test_a_disk_that_is_too_small_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(directory.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 7_100_000})())
    with pytest.raises(InputError, match=r"the disk has 7\.1 MB free; expected 10\.1 MB"):
        directory.write(make_target(tmp_path / "out")._replace(row_shape=(5, 6000)), make_all, strict=False)


def test_a_disk_that_fills_up_names_the_directory(tmp_path):
    def fill(pictures):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as failed:
        directory.write(make_target(tmp_path / "out"), fill, strict=False)
    assert failed.value.filename == str(tmp_path / "out")


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_record_is_told_so(tmp_path, content):
    out = tmp_path / "out"
    directory.write(make_target(out), make_all, strict=False)
    (out / "features.json").write_text(content)
    with pytest.raises(InputError, match=r"features\.json: damaged"):
        directory.write(make_target(out), make_all, strict=False)


def test_a_full_disk_says_so(tmp_path):
    with pytest.raises(OSError, match="No space left") as failed:
        write_array(pathlib.Path("/dev/full"), np.zeros(3))
    assert failed.value.errno in CANNOT_WRITE
    write_array(tmp_path / "a.npy", np.arange(6).reshape(2, 3)[:, ::2])
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 2], [3, 5]]
