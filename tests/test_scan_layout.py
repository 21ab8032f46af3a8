import json

import numpy as np
import pytest

from mhcvse_jax.data.scan_layout import read_split
from mhcvse_jax.errors import InputError

IMAGES, REGIONS, FEATURES, PER_IMAGE = 7, 3, 11, 5


@pytest.fixture
def directory(tmp_path):
    """A copy with one row and one id a picture."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "dev_ims.npy", rng.standard_normal((IMAGES, REGIONS, FEATURES)).astype(np.float32))
    captions = [f"caption {i} of picture {i // PER_IMAGE}" for i in range(IMAGES * PER_IMAGE)]
    (tmp_path / "dev_caps.txt").write_text("\n".join(captions) + "\n")
    (tmp_path / "dev_ids.txt").write_text("".join(f"{100 + i}\n" for i in range(IMAGES)))
    return tmp_path


def repeat_lines(path):
    path.write_text("".join(line * PER_IMAGE for line in path.read_text().splitlines(keepends=True)))


def read(directory):
    return read_split(directory, "dev", PER_IMAGE)


@pytest.mark.parametrize("rows_a_caption", [False, True])
@pytest.mark.parametrize("ids_a_caption", [False, True])
def test_every_shape_of_copy_reads_the_same(directory, rows_a_caption, ids_a_caption):
    features = np.load(directory / "dev_ims.npy")
    if rows_a_caption:
        np.save(directory / "dev_ims.npy", np.repeat(features, PER_IMAGE, axis=0))
    if ids_a_caption:
        repeat_lines(directory / "dev_ids.txt")
    split = read(directory)
    assert split.num_images == IMAGES
    np.testing.assert_array_equal(split.regions[split.rows], features)
    assert split.captions[6] == "caption 6 of picture 1"
    assert split.image_ids == [str(100 + i) for i in range(IMAGES)]
    assert split.image_names is None


def test_features_are_mapped_not_read(directory):
    assert isinstance(read(directory).regions, np.memmap)


def test_captions_are_utf8_and_may_hold_other_line_separators(directory):
    lines = [f"Ein Café\u2028\x85 Nº {i}" for i in range(IMAGES * PER_IMAGE)]
    (directory / "dev_caps.txt").write_bytes("\r\n".join(lines).encode())
    assert read(directory).captions == lines


@pytest.mark.parametrize("repeated", [False, True])
def test_file_names_come_from_a_list(directory, repeated):
    names = directory / "dev_image_names.txt"
    names.write_text("".join(f"{i}.jpg\n" for i in range(IMAGES)))
    if repeated:
        repeat_lines(names)
    assert read(directory).image_names == [f"{i}.jpg" for i in range(IMAGES)]


def test_file_names_come_from_karpathys_json_by_id(directory):
    images = [{"imgid": 100 + i, "filename": f"name{i}.jpg"} for i in reversed(range(IMAGES))]
    (directory / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    assert read(directory).image_names == [f"name{i}.jpg" for i in range(IMAGES)]
    (directory / "dataset_flickr30k.json").write_text(json.dumps({"images": images[1:]}))
    assert read(directory).image_names is None


def write_rows(directory, rows, dtype=np.float32):
    np.save(directory / "dev_ims.npy", np.zeros((rows, REGIONS, FEATURES), dtype))


def differing_repeats(directory):
    rows = IMAGES * PER_IMAGE
    features = np.arange(rows * REGIONS * FEATURES, dtype=np.float32)
    np.save(directory / "dev_ims.npy", features.reshape(rows, REGIONS, FEATURES))


def append(name, content):
    def change(directory):
        with (directory / name).open("ab") as file:
            file.write(content)

    return change


DAMAGE = {
    "no features": (lambda d: (d / "dev_ims.npy").unlink(), "dev_ims.npy: no such file"),
    "no captions": (lambda d: (d / "dev_caps.txt").unlink(), "dev_caps.txt: no such file"),
    "no ids": (lambda d: (d / "dev_ids.txt").unlink(), "dev_ids.txt: no such file"),
    "another count": (
        lambda d: write_rows(d, 9),
        r"dev_ims.npy has 9 rows and dev_caps.txt 35 captions.*\(7\).*\(35\)",
    ),
    "rows that are no repeats": (differing_repeats, "rows 0 to 4 differ"),
    "integers": (lambda d: write_rows(d, IMAGES, np.int64), "holds int64"),
    "a matrix": (lambda d: np.save(d / "dev_ims.npy", np.zeros((IMAGES, FEATURES))), r"holds float64 \(7, 11\)"),
    "cut short": (lambda d: (d / "dev_ims.npy").write_bytes((d / "dev_ims.npy").read_bytes()[:300]), "not a whole"),
    "pickled": (lambda d: np.save(d / "dev_ims.npy", np.array([{}], object)), "not a whole"),
    "an empty caption": (append("dev_caps.txt", b"  \n"), "line 36: an empty caption"),
    "one caption more": (append("dev_caps.txt", b"one more\n"), "36 captions; expected a multiple of 5"),
    "not UTF-8": (append("dev_caps.txt", b"caf\xe9\n"), "line 36: not UTF-8"),
    "ids that do not fit": (append("dev_ids.txt", b"1\n2\n"), "9 lines; expected one a picture"),
    "ids that differ in a picture": (
        lambda d: (d / "dev_ids.txt").write_text("".join(f"{i // 4}\n" for i in range(IMAGES * PER_IMAGE))),
        "line 5: '1'; expected '0'",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(directory, name):
    damage, message = DAMAGE[name]
    damage(directory)
    with pytest.raises(InputError, match=message) as error:
        read(directory)
    assert str(directory) in str(error.value)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such directory"):
        read(tmp_path / "absent")
