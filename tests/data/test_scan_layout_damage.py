"""A sound directory in SCAN's layout, damaged somehow: it reads with consistent counts, or one line says why not."""

import io
import json
import pathlib
import shutil
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mhcvse_jax.data import batches, text
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.scan_layout import read_split
from mhcvse_jax.errors import InputError

IMAGES, REGIONS, FEATURES, PER_IMAGE = 3, 2, 5, 5
FEATURES_ONCE = np.random.default_rng(0).standard_normal((IMAGES, REGIONS, FEATURES)).astype(np.float32)
NAMES = ("dev_ims.npy", "dev_caps.txt", "dev_ids.txt", "dev_image_names.txt", "dataset_x.json")


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def sound_files():
    captions = [f"A dog, no. {i}, isn't here." for i in range(IMAGES * PER_IMAGE)]
    images = [{"imgid": 7 + i, "filename": f"{i}.jpg", "sentences": [{"imgid": 7 + i}]} for i in range(IMAGES)]
    return {
        "dev_ims.npy": npy(np.repeat(FEATURES_ONCE, PER_IMAGE, axis=0)),
        "dev_caps.txt": "".join(f"{caption}\n" for caption in captions).encode(),
        "dev_ids.txt": "".join(f"{7 + i}\n" * PER_IMAGE for i in range(IMAGES)).encode(),
        "dev_image_names.txt": "".join(f"{i}.jpg\n" for i in range(IMAGES)).encode(),
        "dataset_x.json": json.dumps({"images": images}).encode(),
    }


SOUND = sound_files()
BYTES = st.one_of(
    st.sampled_from(
        [b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\r", b"\n", b"\n\n", b"\xe9", b"\x1a", b"  \n", b"{", b"7\n"]
    ),
    st.binary(max_size=9),
    st.integers(1, 1 << 20).map(lambda length: b"x" * length),
)
DTYPES = ("<f2", ">f4", "<f8", "<i4", "?", "<c8", "U3", "S3", "O", "M8[s]", "V4")
SHAPES = ((), (0,), (15,), (15, 2), (3, 2, 5), (15, 2, 5), (15, 0, 5), (0, 2, 5), (14, 2, 5), (15, 2, 5, 1))
KINDS = (
    *("truncate", "flip", "insert", "delete", "line", "twice", "array", "value", "crlf", "gone", "directory"),
    *("loop", "random"),
)
VALUES = (np.nan, np.inf, -np.inf, 3e38, 0.0)


def at(content, share):
    return int(share * len(content))


@st.composite
def damages(draw):
    """What the files hold after the damage, and what stands in the place of a file: a directory or a link."""
    files, links = dict(SOUND), {}
    if draw(st.booleans()):
        files["dev_ims.npy"] = npy(FEATURES_ONCE)
    if draw(st.booleans()):
        del files["dev_image_names.txt"]  # then the names come from the JSON
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        name = draw(st.sampled_from(NAMES))
        content, share = files.get(name, b""), draw(st.integers(0, 97)) / 97
        place = at(content, share)
        match draw(st.sampled_from(KINDS)):
            case "truncate":
                files[name] = content[:place]
            case "flip":
                flipped = bytes([b ^ draw(st.integers(1, 255)) for b in content[place : place + 1]])
                files[name] = content[:place] + flipped + content[place + 1 :]
            case "insert":
                files[name] = content[:place] + draw(BYTES) + content[place:]
            case "delete":
                files[name] = content[:place] + content[place + draw(st.integers(1, 40)) :]
            case "line" | "twice" as kind:
                lines = content.split(b"\n")
                i = min(at(lines, share), len(lines) - 1)
                lines[i : i + 1] = [] if kind == "line" else [lines[i]] * 2
                files[name] = b"\n".join(lines)
            case "array":
                shape, dtype = draw(st.sampled_from(SHAPES)), np.dtype(draw(st.sampled_from(DTYPES)))
                files["dev_ims.npy"] = npy(np.zeros(shape, dtype, order=draw(st.sampled_from("CF"))))
            case "value":
                features = FEATURES_ONCE.copy()
                features.reshape(-1)[int(share * (features.size - 1))] = draw(st.sampled_from(VALUES))
                files["dev_ims.npy"] = npy(features)
            case "crlf":
                files[name] = content.replace(b"\n", b"\r\n")
            case "gone":
                files.pop(name, None)
            case "directory" | "loop" as kind:
                files.pop(name, None)
                links[name] = kind
            case "random":
                files[name] = draw(st.binary(max_size=300))
    return files, {name: kind for name, kind in links.items() if name not in files}


def write(directory, files, links):
    for name, content in files.items():
        (directory / name).write_bytes(content)
    for name, kind in links.items():
        path = directory / name
        if kind == "directory":
            path.mkdir()
        else:
            path.symlink_to(path)


def contents(directory):
    return {path.name: path.read_bytes() if path.is_file() else path.lstat().st_mode for path in directory.iterdir()}


def use(directory):
    """What a run does with a split: reads it, encodes its captions, reads its features."""
    scan = read_split(directory, "dev", PER_IMAGE)
    assert len(scan.captions) == scan.num_images * PER_IMAGE > 0
    assert len(scan.image_ids) == scan.num_images
    assert scan.image_names is None or len(scan.image_names) == scan.num_images
    assert all(scan.captions)
    assert all(scan.image_ids)
    encoded = text.encode_captions([text.tokenize(c) for c in scan.captions], text.Vocabulary(text.SPECIAL_TOKENS))
    labels = np.zeros((len(scan.captions), 1), bool)
    split = Split(
        name="dev",
        regions=scan.regions,
        captions=scan.captions,
        tokens=encoded,
        image_of_caption=scan.image_of_caption,
        image_labels=labels[::PER_IMAGE],
        caption_labels=labels,
        image_ids=scan.image_ids,
        image_names=scan.image_names,
    )
    batch = batches.read_batch(split, np.arange(len(scan.captions)), (16, 24), training_label="image")
    assert batch.regions.dtype == np.float32
    assert np.isfinite(batch.regions).all()
    return scan


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(damages())
@example((SOUND, {}))
def test_a_damaged_directory_is_read_consistently_or_refused_in_one_line(damage):
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        write(directory, *damage)
        before = contents(directory)
        try:
            use(directory)
        except InputError as error:
            message = str(error)
            assert "\n" not in message
            assert len(message) < 500
            assert any(f"{directory / file}" in message for file in NAMES)
        assert contents(directory) == before


def test_the_directory_that_is_damaged_is_sound(tmp_path):
    write(tmp_path, SOUND, {})
    scan = use(tmp_path)
    assert (scan.num_images, scan.image_ids, scan.image_names) == (3, ["7", "8", "9"], ["0.jpg", "1.jpg", "2.jpg"])


@pytest.mark.parametrize("name", ["dev_caps.txt", "dev_ids.txt"])
def test_lines_ended_as_windows_does_read_the_same(tmp_path, name):
    write(tmp_path, SOUND, {})
    expected = use(tmp_path)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + SOUND[name].replace(b"\n", b"\r\n"))
    found = use(tmp_path)
    assert (found.captions, found.image_ids) == (expected.captions, expected.image_ids)
    shutil.rmtree(tmp_path)
