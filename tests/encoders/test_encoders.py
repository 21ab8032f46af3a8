"""Encoders against what their PyTorch originals compute, and what they refuse."""

import pathlib

import numpy as np
import pytest

from mhcvse_jax.backbones import efficientnet_lite2
from mhcvse_jax.encoders.efficientnet_lite2 import CELLS, EfficientNetLite2
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.torch_file import read_torch_file, write_torch_file

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "efficientnet_lite2.npy"


@pytest.fixture(scope="module")
def state():
    return read_torch_file(efficientnet_lite2.packaged_weights())


@pytest.fixture(scope="module")
def encoders():
    return {regions: EfficientNetLite2(None, regions=regions) for regions in ("grid", "pyramid")}


@pytest.fixture(scope="module")
def of_drawn(encoders):
    """The regions of three drawn pictures, by encoder."""
    tiles = np.random.default_rng(0).integers(0, 256, (3, 7, 7, 3), dtype=np.uint8)
    drawn = tiles.repeat(32, axis=1).repeat(32, axis=2)
    return {name: encoder.encode(drawn) for name, encoder in encoders.items()}


def test_the_grid_is_that_of_the_pytorch_package(of_drawn):
    cells = np.load(GOLDEN)
    expected = (cells[:, :-1, :-1] + cells[:, 1:, :-1] + cells[:, :-1, 1:] + cells[:, 1:, 1:]) / 4
    found = np.stack([regions.features[:, ::97] for regions in of_drawn["grid"]])
    assert np.linalg.norm(expected.reshape(found.shape) - found) < 1e-4 * np.linalg.norm(expected)


def test_a_region_is_the_mean_of_the_cells_in_its_box(encoders, of_drawn):
    cells = np.load(GOLDEN)
    for name, encoder in encoders.items():
        for picture, regions in enumerate(of_drawn[name]):
            assert regions.features.shape == (encoder.max_regions, encoder.regions_width)
            for features, box in zip(regions.features, regions.boxes, strict=True):
                x1, y1, x2, y2 = np.rint(box / 224 * CELLS).astype(int)
                expected = cells[picture, y1:y2, x1:x2].mean((0, 1))
                np.testing.assert_allclose(features[::97], expected, atol=1e-3)
    boxes = {tuple(box) for box in of_drawn["pyramid"][0].boxes}
    assert len(boxes) == 36


def test_boxes_are_in_pixels_of_a_picture_of_any_size(encoders):
    pictures = [np.full(shape, 7, np.uint8) for shape in ((1, 1, 3), (50, 2000, 3), (301, 149, 3))]
    for picture, regions in zip(pictures, encoders["grid"].encode(pictures), strict=True):
        height, width, _ = picture.shape
        np.testing.assert_allclose(regions.boxes[0], np.array([0, 0, width, height]) * [1, 1, 2 / 7, 2 / 7], rtol=1e-6)
        np.testing.assert_allclose(regions.boxes[-1, 2:], [width, height], rtol=1e-6)


def test_pictures_do_not_depend_on_those_beside_them(encoders):
    pictures = np.random.default_rng(1).integers(0, 256, (11, 23, 29, 3), dtype=np.uint8)  # more than one batch
    together = encoders["grid"].encode(pictures)
    for index in (0, 8):
        (alone,) = encoders["grid"].encode(pictures[index : index + 1])
        np.testing.assert_allclose(alone.features, together[index].features, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_blocks.3._expand_conv.weight": np.zeros((144, 24, 3, 3), np.float32)}, "(144, 24, 3, 3); expected (144"),
        ({"_blocks.20._bn2.running_var": None}, "_blocks.20._bn2.running_var: no such tensor"),
        ({"_blocks.21._bn2.weight": np.zeros(2, np.float32)}, "has no such tensor; expected its weights"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, state, change, message):
    path = tmp_path / "weights.pth"
    write_torch_file(path, {key: value for key, value in (dict(state) | change).items() if value is not None})
    with pytest.raises(InputError) as refused:
        EfficientNetLite2(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


def test_weights_that_are_cut_short_or_no_state_dict_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(efficientnet_lite2.packaged_weights().read_bytes()[:100_000])
    with pytest.raises(InputError, match="not a whole file"):
        EfficientNetLite2(path)
    write_torch_file(path, [1, 2])
    with pytest.raises(InputError, match="expected a state dict"):
        EfficientNetLite2(path)
    with pytest.raises(InputError, match="cannot be read"):
        EfficientNetLite2(tmp_path / "none.pth")
