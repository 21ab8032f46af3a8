import gzip
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
    assert split.regions.shape == features.shape
    backwards = np.arange(IMAGES)[::-1]
    np.testing.assert_array_equal(split.regions.read(backwards), features[::-1])
    assert split.captions[6] == "caption 6 of picture 1"
    assert split.image_ids == [str(100 + i) for i in range(IMAGES)]
    assert split.image_names is None


def test_features_are_mapped_not_read(directory):
    assert isinstance(read(directory).regions.array, np.memmap)


def test_captions_are_utf8_and_may_hold_other_line_separators(directory):
    lines = [f"Ein Café\u2028\x85 Nº {i}" for i in range(IMAGES * PER_IMAGE)]
    (directory / "dev_caps.txt").write_bytes("\r\n".join(lines).encode())
    assert read(directory).captions == lines


def test_a_byte_order_mark_is_no_part_of_a_line(directory):
    for name in ("dev_caps.txt", "dev_ids.txt"):
        (directory / name).write_bytes(b"\xef\xbb\xbf" + (directory / name).read_bytes().replace(b"\n", b"\r\n"))
    split = read(directory)
    assert split.captions[0] == "caption 0 of picture 0"
    assert split.image_ids[0] == "100"


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_other_floating_point_numbers_are_read(directory, dtype):
    features = np.load(directory / "dev_ims.npy").astype(dtype)
    np.save(directory / "dev_ims.npy", features)
    np.testing.assert_array_equal(read(directory).regions.array, features)


def test_a_header_of_python_2_is_read_without_a_warning(directory):
    content = (directory / "dev_ims.npy").read_bytes()
    (directory / "dev_ims.npy").write_bytes(content.replace(b"(7, 3, 11), } ", b"(7L, 3, 11), }"))
    assert read(directory).regions.shape == (IMAGES, REGIONS, FEATURES)


def test_repeated_features_that_are_not_numbers_are_still_repeats(directory):
    features = np.load(directory / "dev_ims.npy")
    features[0, 1, 2] = np.nan
    np.save(directory / "dev_ims.npy", np.repeat(features, PER_IMAGE, axis=0))
    assert read(directory).num_images == IMAGES


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
    sentences = [{"raw": "A dog.", "imgid": 100, "tokens": ["a", "dog"]}]
    coco = [i | {"filepath": "val2014", "sentences": sentences, "split": "val"} for i in images]
    (directory / "dataset_flickr30k.json").write_text(json.dumps({"images": coco, "dataset": "coco"}))
    assert read(directory).image_names == [f"val2014/name{i}.jpg" for i in range(IMAGES)]


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [{"filename": "a.jpg"}]}', '{"sentences": []}', '"images"'])
def test_a_json_that_is_not_karpathys_is_named(directory, content):
    (directory / "dataset_x.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset_x\.json: not Karpathy's JSON"):
        read(directory)


def write_rows(directory, rows, dtype=np.float32):
    np.save(directory / "dev_ims.npy", np.zeros((rows, REGIONS, FEATURES), dtype))


def differing_repeats(directory):
    rows = IMAGES * PER_IMAGE
    features = np.arange(rows * REGIONS * FEATURES, dtype=np.float32)
    np.save(directory / "dev_ims.npy", features.reshape(rows, REGIONS, FEATURES))


def an_archive(directory):
    np.savez(directory / "other.npz", np.zeros(3))
    (directory / "other.npz").rename(directory / "dev_ims.npy")


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
    "a vector": (lambda d: np.save(d / "dev_ims.npy", np.zeros(IMAGES)), r"holds float64 \(7,\)"),
    "cut short": (lambda d: (d / "dev_ims.npy").write_bytes((d / "dev_ims.npy").read_bytes()[:300]), "not a whole"),
    "pickled": (lambda d: np.save(d / "dev_ims.npy", np.array([{}], object)), "not a whole"),
    "nothing in it": (lambda d: (d / "dev_ims.npy").write_bytes(b""), "not a whole"),
    "no regions": (
        lambda d: np.save(d / "dev_ims.npy", np.zeros((IMAGES, 0, FEATURES))),
        r"holds float64 \(7, 0, 11\)",
    ),
    "complex": (lambda d: write_rows(d, IMAGES, np.complex64), "holds complex64"),
    "more than double": (lambda d: write_rows(d, IMAGES, np.longdouble), "expected float32"),
    "Fortran order": (
        lambda d: np.save(d / "dev_ims.npy", np.asfortranarray(np.load(d / "dev_ims.npy"))),
        r"holds float32 \(7, 3, 11\) in Fortran order.*expected C order",
    ),
    "an endless header": (
        lambda d: (d / "dev_ims.npy").write_bytes(
            b"\x93NUMPY\x02\x00" + (20_000).to_bytes(4, "little") + b" " * 20_000
        ),
        "not a whole .npy array of numbers",
    ),
    "an archive": (an_archive, "holds an archive"),
    "a directory": (lambda d: ((d / "dev_ims.npy").unlink(), (d / "dev_ims.npy").mkdir()), "dev_ims.npy: no such file"),
    "an empty caption": (append("dev_caps.txt", b"  \nmore\n"), "line 36: an empty caption"),
    "one caption more": (append("dev_caps.txt", b"one more\n"), "36 captions; expected a multiple of 5"),
    "not UTF-8": (append("dev_caps.txt", b"caf\xe9\n"), "line 36: not UTF-8"),
    "ids that do not fit": (append("dev_ids.txt", b"1\n2\n"), "9 lines; expected one per picture"),
    "an endless caption": (
        append("dev_caps.txt", b"word " * 1000 + b"\n"),
        "line 36: 4,999 characters; expected 4,096",
    ),
    "UTF-16": (lambda d: (d / "dev_caps.txt").write_text("a dog\n", encoding="utf-16"), "line 1: not UTF-8"),
    "an empty id": (lambda d: (d / "dev_ids.txt").write_text("1\n2\n\n4\n5\n6\n7\n"), "dev_ids.txt line 3 is empty"),
    "an endless id": (
        lambda d: (d / "dev_ids.txt").write_text("".join(f"{'1' * (9999 + i)}\n" for i in range(IMAGES * PER_IMAGE))),
        "dev_ids.txt line 2: '11",
    ),
    "ids that are not UTF-8": (lambda d: (d / "dev_ids.txt").write_bytes(b"\xe9\n" * 7), "dev_ids.txt: not UTF-8"),
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
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(directory))


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such directory"):
        read(tmp_path / "absent")


@pytest.fixture
def uneven(directory):
    """The directory with captions of pictures in any order, none of two pictures."""
    owner = np.random.default_rng(1).permutation([0, 0, 0, 0, 2, 4, 4, 5, 5, 5, 5, 5, 5])
    (directory / "dev_caps.txt").write_text("".join(f"caption {i}\n" for i in range(len(owner))))
    (directory / "dev_caption_images.txt").write_text("".join(f"{100 + image}\n" for image in owner))
    return directory, owner


@pytest.mark.parametrize("has_ids", [True, False])
def test_pictures_with_any_number_of_captions(uneven, has_ids):
    directory, owner = uneven
    if not has_ids:
        (directory / "dev_ids.txt").unlink()
        (directory / "dev_caption_images.txt").write_bytes(b"\xef\xbb\xbf" + b"".join(b"%d\r\n" % i for i in owner))
    split = read(directory)
    assert split.image_ids == [str(i + 100 * has_ids) for i in range(IMAGES)]
    np.testing.assert_array_equal(split.image_of_caption, owner)
    assert split.image_of_caption.dtype == np.int32
    assert len(split.captions) == 13
    np.testing.assert_array_equal(split.regions.read(np.arange(IMAGES)), np.load(directory / "dev_ims.npy"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dev_caption_images.txt", "100\n" * 12, "caption_images.txt has 12 lines; expected one per caption .13."),
        (
            "dev_caption_images.txt",
            "100\n" * 12 + "7\n",
            "line 13: no picture has the id '7'; expected one of 100, 101",
        ),
        ("dev_ids.txt", "100\n" * 7, "'100' in line 1 is also the id of another picture; expected unique ids"),
        ("dev_ids.txt", "100\n101\n", r"dev_ids.txt has 2 lines; expected one per picture \(7\)$"),
        ("dev_caps.txt", "", r"dev_caption_images.txt has 13 lines; expected one per caption \(0\)"),
    ],
)
def test_captions_of_no_picture_are_refused(uneven, name, content, message):
    directory, _ = uneven
    (directory / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read(directory)


def test_a_row_a_caption_is_refused_where_their_number_varies(uneven):
    directory, owner = uneven
    np.save(directory / "dev_ims.npy", np.load(directory / "dev_ims.npy")[owner])
    (directory / "dev_ids.txt").write_text("".join(f"{100 + i}\n" for i in range(13)))
    split = read(directory)  # 13 pictures of other ids, as far as anybody can see
    assert split.num_images == 13
    (directory / "dev_ids.txt").write_text("".join(f"{100 + i}\n" for i in range(IMAGES)))
    with pytest.raises(InputError, match=r"dev_ids.txt has 7 lines; expected one per picture \(13\)"):
        read(directory)


def archive(directory, name, split, captions, imgids):
    """Writes a file as Karpathy's, whose pictures have these ids, split and captions."""
    images = [
        {
            "imgid": number,
            "filename": f"{name}{number}.jpg",
            "split": split,
            "sentences": [{"raw": f"{caption[0].upper()}{caption[1:]}."} for caption in captions[place::IMAGES]],
        }
        for place, number in enumerate(imgids)
    ]
    (directory / f"dataset_{name}.json").write_text(json.dumps({"images": images}))


def test_of_karpathys_three_files_the_one_of_these_pictures_is_taken(directory):
    captions, ids = read(directory).captions, range(100, 100 + IMAGES)
    own = [captions[image * PER_IMAGE] for image in range(IMAGES)]
    archive(directory, "coco", "train", own, ids)
    assert read(directory).image_names is None  # it has all ids, of another split
    archive(directory, "flickr30k", "val", own, ids)
    assert read(directory).image_names == [f"flickr30k{i}.jpg" for i in ids]
    archive(directory, "flickr8k", "val", ["Something else"] * IMAGES, ids)
    with pytest.raises(
        InputError, match=r"dataset_flickr30k.json and .*dataset_flickr8k.json both have the ids of dev"
    ):
        read(directory)  # a fifth of the captions are in the one: not enough
    archive(
        directory,
        "flickr30k",
        "val",
        [captions[PER_IMAGE * i + k] for k in range(PER_IMAGE) for i in range(IMAGES)],
        ids,
    )
    assert read(directory).image_names == [f"flickr30k{i}.jpg" for i in ids]


def test_features_of_whole_pictures_are_one_region_each(directory):
    features = np.load(directory / "dev_ims.npy")[:, 0]
    np.save(directory / "dev_ims.npy", features)
    regions = read(directory).regions
    assert regions.shape == (IMAGES, 1, FEATURES)
    np.testing.assert_array_equal(regions.read(np.array([5, 2])), features[[5, 2], None])
    assert regions.place(3) == (str(directory / "dev_ims.npy"), 3)


@pytest.mark.parametrize("name", ["dev_ims.npy", "dev_caps.txt", "dev_ids.txt"])
def test_a_web_page_is_called_one(directory, name):
    (directory / name).write_bytes(b"\xef\xbb\xbf\n  <!DOCTYPE html><html><title>Quota exceeded</title></html>")
    with pytest.raises(InputError, match=rf"{name} is a web page: the download failed, .*; download it again"):
        read(directory)


def test_a_packed_archive_is_to_be_unpacked(directory):
    with gzip.open(directory / "dev_ims.npy", "wb") as file:
        file.write(b"features")
    with pytest.raises(InputError, match=r"dev_ims.npy is a gzip archive; unpack it"):
        read(directory)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n\n", "\r\n \t\r\n"])
def test_blank_lines_may_end_a_file(directory, end):
    for name in ("dev_caps.txt", "dev_ids.txt"):
        path = directory / name
        path.write_bytes(path.read_bytes().rstrip(b"\n") + end.encode())
    assert len(read(directory).captions) == IMAGES * PER_IMAGE
    lines = (directory / "dev_caps.txt").read_bytes().splitlines(keepends=True)
    (directory / "dev_caps.txt").write_bytes(b"".join([*lines[:3], b"\n", *lines[3:]]))
    with pytest.raises(InputError, match=r"dev_caps.txt line 4: an empty caption"):
        read(directory)


def test_a_blank_line_among_ids_is_named_and_not_taken_for_a_wrong_count(directory):
    lines = (directory / "dev_ids.txt").read_text().splitlines(keepends=True)
    (directory / "dev_ids.txt").write_text("".join([*lines[:3], "\n", *lines[3:]]))
    with pytest.raises(InputError, match=r"dev_ids.txt line 4 is empty; expected one per picture or one per caption$"):
        read(directory)


def test_counts_that_do_not_fit_say_which_key_to_set(directory):
    key = r"config\.data\.num_captions_per_image \(check and build-tfds: --captions_per_image\)"
    for wrong in (2, 4, 7):  # 35 captions are a multiple of 7
        with pytest.raises(InputError, match=rf"; 7 (rows of features|ids) suggest 5: set {key}"):
            read_split(directory, "dev", wrong)
    with (directory / "dev_caps.txt").open("a") as file:
        file.write("one more\n")
    with pytest.raises(
        InputError, match=rf"; set {key} to the right number; if it varies, add dev_caption_images.txt, with"
    ):
        read(directory)


def test_a_picture_whose_rows_differ_is_found_where_it_is_read(directory):
    features = np.repeat(np.load(directory / "dev_ims.npy"), PER_IMAGE, axis=0)
    features[17, 0, 0] += 1  # of picture 3; the first and the last picture tell nothing of it
    np.save(directory / "dev_ims.npy", features)
    regions = read(directory).regions
    np.testing.assert_array_equal(regions.read(np.array([2, 4, 2])), features[[10, 20, 10]])
    for _ in range(2):
        with pytest.raises(InputError, match=r"dev_ims.npy has one row per caption, but rows 15 to 19 differ"):
            regions.read(np.array([4, 3]))


def test_text_files_of_other_systems_are_read(directory):
    """With Windows' line ends, a byte order mark, ids and names of any form, and separators inside a line."""
    ids = [f"{i},part 1.csv" for i in range(IMAGES)]
    captions = [f"one\u2028two\x0b\x1c {i}" for i in range(IMAGES * PER_IMAGE)]
    texts = {"ids": ids, "image_names": ids, "caps": captions, "caption_images": [ids[i // 5] for i in range(35)]}
    for kind, lines in texts.items():
        (directory / f"dev_{kind}.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    split = read(directory)
    assert (split.image_ids, split.image_names, split.captions) == (ids, ids, captions)
    np.testing.assert_array_equal(split.image_of_caption, np.arange(35) // 5)
