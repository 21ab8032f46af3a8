"""Pictures in a page: once each, within its size; lit where a weight is high."""

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from mhcvse_jax.reporting import pictures
from mhcvse_jax.reporting.pictures import Album, Overlays, Picture


def noise(path, width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def decoded(symbol):
    return Image.open(io.BytesIO(base64.b64decode(symbol.data.partition(",")[2])))


def test_a_picture_is_embedded_once_and_keeps_the_size_that_boxes_are_of(tmp_path):
    album, path = Album(), noise(tmp_path / "wide.png", 448, 100)
    first = album.add(path, "wide", None)
    assert album.add(path, "wide", None) is first
    assert (first.width, first.height, first.is_known) == (448, 100, True)
    assert album.add(path, "of other pixels", (1000, 300))[2:] == (1000, 300, True)
    symbols = album.symbols()
    assert [decoded(symbol).size for symbol in symbols] == [(224, 50)] * 2
    assert album.num_missing == 0


def test_many_pictures_become_smaller(tmp_path, monkeypatch):
    album = Album()
    album.add(noise(tmp_path / "one.png", 224, 224), "one", None)
    whole = len(album.symbols()[0].data)
    monkeypatch.setattr(pictures, "BYTES", whole - 1)
    assert decoded(album.symbols()[0]).size == (176, 176)
    monkeypatch.setattr(pictures, "BYTES", 1)
    assert decoded(album.symbols()[0]).size == (64, 64)


def test_missing_and_damaged_pictures_are_counted(tmp_path):
    album = Album()
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    for path in (None, tmp_path / "missing.jpg", tmp_path / "damaged.jpg"):
        assert not album.add(path, str(path), None).is_known
    assert album.add(None, "boxes alone say how large", None, (30, 20))[2:4] == (30, 20)
    assert [symbol.data for symbol in album.symbols()] == [None] * 4
    assert album.num_missing == 4


def test_a_veil_is_open_where_a_weight_is_high():
    boxes = np.array([[0, 0, 10, 20], [10, 5, 40, 25.25], [7, 7, 9, 9]], np.float32)
    svg = ET.fromstring(Overlays().lit(Picture("p", "", 40, 30, True), np.array([0.5, 1.0, 0.0]), boxes))
    assert svg.get("viewBox") == "0 0 40 30"
    holes = [hole.attrib for hole in svg.find("mask")][1:]
    assert holes == [
        {"x": "0", "y": "0", "width": "10", "height": "20", "opacity": "0.50"},
        {"x": "10", "y": "5", "width": "30", "height": "20.2", "opacity": "1.00"},
    ]
    most = next(rect for rect in svg.findall("rect") if rect.get("class") == "most")
    assert most.get("x") == "10"


def test_without_boxes_there_are_bars():
    svg = ET.fromstring(Overlays().lit(Picture("p", "", 40, 30, True), np.array([0.5, 1.0]), None))
    assert [float(bar.get("height")) for bar in svg.find("g")] == pytest.approx([3.75, 7.5])


def test_every_overlay_has_a_mask_of_its_own():
    overlays, boxes = Overlays(), np.ones((1, 4), np.float32)
    masks = [
        ET.fromstring(overlays.lit(Picture("p", "", 4, 3, True), np.ones(1), boxes)).find("mask") for _ in range(2)
    ]
    assert masks[0].get("id") != masks[1].get("id")
