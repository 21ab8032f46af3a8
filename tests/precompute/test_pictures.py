"""Pictures of every kind that people have become upright RGB, or are refused in one line."""

import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute import pictures
from mhcvse_jax.precompute.pictures import find_pictures, read_picture

RED, GREEN = (254, 0, 0), (0, 255, 1)


def two_colours(width=23, height=7):
    """Red on the left, green on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize(
    ("orientation", "left_is_red", "upright"), [(1, True, True), (2, False, True), (3, False, True), (6, None, False)]
)
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, orientation, left_is_red, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    two_colours().save(tmp_path / "a.png", exif=exif)
    read = read_picture(tmp_path / "a.png")
    assert read.shape == ((7, 23, 3) if upright else (23, 7, 3))
    corner = read[0, 0]
    if orientation == 6:  # to be turned by 90 degrees clockwise: the left comes to the top
        left_is_red = True
    np.testing.assert_array_equal(corner, RED if left_is_red else GREEN)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    suffix = ".tif" if mode in ("CMYK", "YCbCr", "LAB") else ".png"
    image = two_colours().convert(mode) if mode != "LAB" else Image.new("LAB", (23, 7), (136, 0, 0))
    image.save(tmp_path / f"a{suffix}")
    read = read_picture(tmp_path / f"a{suffix}")
    assert read.shape == (7, 23, 3)
    assert read.dtype == np.uint8
    if mode in ("P", "RGB", "RGBA", "CMYK"):
        np.testing.assert_allclose(read[:, 0], [RED] * 7, atol=3)
        np.testing.assert_allclose(read[:, -1], [GREEN] * 7, atol=3)


def test_what_is_clear_is_white(tmp_path):
    clear = np.zeros((5, 3, 4), np.uint8)  # black, of no weight
    clear[:, 2] = (*RED, 255)
    Image.fromarray(clear).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read[:, 0], 255)
    np.testing.assert_array_equal(read[:, 2], [RED] * 5)
    palette = Image.new("P", (3, 5), 1)
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "b.gif", transparency=0)
    read = read_picture(tmp_path / "b.gif")
    np.testing.assert_array_equal(read[0, 0], 255)
    np.testing.assert_array_equal(read[1, 1], RED)


def test_sixteen_bits_become_eight(tmp_path):
    grey = np.arange(0, 2**16, 13, dtype=np.uint16)[:5000].reshape(50, 100)
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png")[..., 1], grey >> 8)
    Image.fromarray(np.full((3, 5), 0.5, np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"pixels float32, from 0\.5 to 0\.5; expected 8"):
        read_picture(tmp_path / "b.tif")


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (11, 13), colour) for colour in (RED, GREEN, (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.gif")[6, 5], RED)


def test_extreme_shapes(tmp_path):
    for width, height in ((1, 1), (20_000, 50)):
        Image.new("RGB", (width, height), RED).save(tmp_path / "a.png")
        assert read_picture(tmp_path / "a.png").shape == (height, width, 3)


def _bomb(path, side):
    """Writes a PNG that says it has `side` x `side` pixels, in a hundred bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [13_000, 200_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    _bomb(tmp_path / "a.png", side)
    with pytest.raises(InputError, match="pixels; expected") as refused:
        read_picture(tmp_path / "a.png")
    assert "a.png" in str(refused.value)


def test_what_is_damaged_is_refused_with_its_name(tmp_path):
    two_colours(230, 70).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("short", "empty", "text", "missing"):
        message = "cannot be read" if name == "missing" else "not a whole picture"
        with pytest.raises(InputError, match=f"{name}.jpg: {message}") as refused:
            read_picture(tmp_path / f"{name}.jpg")
        assert "\n" not in str(refused.value)


def test_pictures_are_found_in_subfolders_and_nothing_else(tmp_path):
    for name in ("b.JPG", "sub/a.png", "sub/deeper/c.webp", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "sub" / "deeper")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    for name in (" c.jpg", "d\n.jpg", "e.heic", "f.heic"):
        (tmp_path / name).touch()
    (pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.jpg"))).touch()
    names, odd = find_pictures(tmp_path)
    assert names == ["b.JPG", "sub/a.png", "sub/deeper/c.webp"]
    assert odd[0] == "2 of kind .heic, which is not read; expected JPEG or PNG"
    assert [line.split(": ")[0] for line in odd[1:]] == ["' c.jpg'", r"'d\n.jpg'", r"'\udce9.jpg'"]
    with pytest.raises(InputError, match="no such directory"):
        find_pictures(tmp_path / "none")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no picture in it"):
        find_pictures(tmp_path / "none")


def test_the_limit_is_what_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 160)
    two_colours().save(tmp_path / "a.png")  # 161 pixels
    with pytest.raises(InputError, match="23 x 7 pixels; expected 160 at most"):
        read_picture(tmp_path / "a.png")
