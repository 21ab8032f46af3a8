"""Any convolutional classifier of torchvision, such as the ResNet-152 of VSE++: 36 regions of its last feature map."""

import importlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mhcvse_jax.encoders.encoder import Encoder, file_sha256
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.torch_file import read_torch_file
from mhcvse_jax.precompute.regions import Regions

SIZE = 224  # pixels per side, to which a picture is squashed
GRID = 6  # regions per side
MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, from 0 to 1


class Torchvision(Encoder):
    """Regions are means over a 6 x 6 grid; of a map of 7 x 7 cells, as at 224 pixels, over 2 x 2 that overlap."""

    name = "torchvision"
    max_regions = GRID**2

    @classmethod
    def add_options(cls, options: Any) -> None:
        """Adds which network it is."""
        options.add_argument(
            "--model",
            metavar="NAME",
            default="resnet152",
            help="the model, as torchvision names it; --weights is its state dict (default %(default)s)",
        )

    def __init__(self, weights: pathlib.Path | None, *, model: str = "resnet152"):
        if weights is None:
            raise InputError(f"torchvision's {model} comes without weights; expected --weights FILE, its state dict")
        torch, models = _import()
        if model not in models.list_models(models):
            raise InputError(f"--model {model}: torchvision has no such classifier; expected such as resnet152")
        network = models.get_model(model, weights=None).eval()
        if not isinstance(getattr(network, "avgpool", None), torch.nn.AdaptiveAvgPool2d):
            raise InputError(f"--model {model} has no mean over its feature map; expected such as resnet152")
        _load(network, model, weights, torch)
        network.avgpool.register_forward_pre_hook(self._keep)
        self.weights_sha256 = file_sha256(weights)
        self._settings = {"model": model, "size": SIZE, "grid": GRID}
        self._torch, self._network = torch, network
        blank = self._features(np.zeros((1, SIZE, SIZE, 3), np.uint8))
        self.regions_width = blank.shape[2]
        num_cells = self._map.shape[2]
        self._boxes = grid(num_cells) / np.float32(num_cells)

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def encode(self, pictures: Sequence[np.ndarray]) -> list[Regions]:
        if not pictures:
            return []
        squashed = [Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for picture in pictures]
        sides = [np.array([picture.shape[1], picture.shape[0]] * 2, np.float32) for picture in pictures]
        features = self._features(np.stack([np.asarray(picture) for picture in squashed]))
        return [Regions(rows, self._boxes * side) for rows, side in zip(features, sides, strict=True)]

    def _features(self, pictures: np.ndarray) -> np.ndarray:
        """Returns <float32>[batch, 36, F] of <uint8>[batch, 224, 224, 3]."""
        pixels = ((pictures / 255 - MEANS) / DEVIATIONS).transpose(0, 3, 1, 2).astype(np.float32)
        with self._torch.inference_mode():
            self._network(self._torch.from_numpy(pixels))
            pooled = self._torch.nn.functional.adaptive_avg_pool2d(self._map, GRID)
        return pooled.flatten(2).transpose(1, 2).contiguous().numpy()

    def _keep(self, module: Any, inputs: tuple[Any]) -> None:
        """Keeps the feature map [batch, F, cells, cells], of which the network itself takes the mean."""
        (self._map,) = inputs


def _import() -> tuple[Any, Any]:
    """Returns torch and torchvision.models."""
    try:
        return importlib.import_module("torch"), importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:  # the latter where it was built for another PyTorch
        reason = str(error).splitlines()[0]
        raise InputError(
            f"torchvision cannot be imported ({reason}); expected pip install 'mhcvse_jax[torch]', which brings it and "
            "the PyTorch that it was built for"
        ) from error


def _load(network: Any, model: str, weights: pathlib.Path, torch: Any) -> None:
    """Gives a network the weights of a file.

    Raises:
      InputError: the file is damaged or of another network.
    """
    found, expected = read_torch_file(weights), network.state_dict()
    if not isinstance(found, Mapping):
        raise InputError(f"{weights} holds a {type(found).__name__}; expected a state dict")
    for name in [*expected, *found]:
        shapes = [tuple(np.shape(held[name])) if name in held else "no such tensor" for held in (found, expected)]
        if shapes[0] != shapes[1]:
            raise InputError(f"{weights}: {name}: {shapes[0]}; expected {shapes[1]}, as {model} has it")
    network.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in found.items()})


def grid(num_cells: int) -> np.ndarray:
    """Returns <int64>[36, 4], x1 y1 x2 y2 in cells of a map of `num_cells` a side, row by row, as PyTorch pools it."""
    ranges = [(i * num_cells // GRID, -(-(i + 1) * num_cells // GRID)) for i in range(GRID)]
    return np.array([(x1, y1, x2, y2) for y1, y2 in ranges for x1, x2 in ranges])
