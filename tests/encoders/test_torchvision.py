"""Torchvision's networks as an encoder; the network itself is theirs, so what is tested is what we take of it."""

import sys

import numpy as np
import pytest

from mhcvse_jax.encoders import torchvision as encoder_lib
from mhcvse_jax.encoders.torchvision import Torchvision, grid
from mhcvse_jax.errors import InputError


def test_regions_are_the_cells_that_pytorch_pools():
    torch = pytest.importorskip("torch")
    for num_cells in (6, 7, 13, 14):
        cells = torch.from_numpy(np.random.default_rng(num_cells).random((1, 2, num_cells, num_cells)))
        pooled = torch.nn.functional.adaptive_avg_pool2d(cells, encoder_lib.GRID)[0].flatten(1).numpy()
        expected = [cells[0, :, y1:y2, x1:x2].mean((1, 2)).numpy() for x1, y1, x2, y2 in grid(num_cells)]
        np.testing.assert_allclose(pooled.T, expected, rtol=1e-12)


def test_a_whole_network(tmp_path):
    torch = pytest.importorskip("torch")
    try:
        from torchvision import models
    except (ImportError, RuntimeError):
        pytest.skip("torchvision is not here, or not for this PyTorch")
    torch.manual_seed(0)
    network = models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    encoder = Torchvision(tmp_path / "resnet18.pth", model="resnet18")
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    (found,) = encoder.encode([picture])
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor(encoder_lib.MEANS)[:, None, None]) / torch.tensor(encoder_lib.DEVIATIONS)[
        :, None, None
    ]
    layers = torch.nn.Sequential(*list(network.children())[:-2])
    with torch.inference_mode():
        cells = layers(pixels)[0]
    np.testing.assert_allclose(found.features[7], cells[:, 1:3, 1:3].mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.boxes[7], [32, 32, 96, 96])
    for model, message in {
        "resnet50": "as resnet50 has it",
        "vit_b_16": "no mean",
        "resnet9": "no such",
    }.items():
        with pytest.raises(InputError, match=message):
            Torchvision(tmp_path / "resnet18.pth", model=model)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="expected --weights FILE"):
        Torchvision(None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match="cannot be imported"):
        Torchvision(tmp_path / "resnet152.pth")
