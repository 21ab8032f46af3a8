"""The residual network, first to fourth part of a ResNet-101, on a picture that fills a part of its canvas.

The rest of the canvas must have no effect, so that a picture's features are the same as without it: before each
operation that looks at neighbours, cells outside the picture are set to 0, like a convolution's padding.

A frozen batch norm is an affine map. It is part of the kernel and bias of the convolution before it (see `weights`).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def stem_size(size: Any) -> Any:
    """Returns the rows or columns after the stem's convolution, of 3 x 2 pixels and a stride of 2."""
    return (size - 1) // 2 + 1


def map_size(size: jax.Array) -> jax.Array:
    """Returns <int32>[2], the rows and columns of the feature map that belong to a picture of `size` pixels.

    Deviation: at least one, where a picture two pixels high would leave none.
    """
    pooled = jnp.maximum(stem_size(size) // 2, 1)
    return stem_size(stem_size(pooled))


def within(x: jax.Array, size: jax.Array) -> jax.Array:
    """Returns x [..., height, width, channels] with 0 outside of the first `size` rows and columns."""
    height, width = x.shape[-3:-1]
    mask = (jnp.arange(height)[:, None] < size[0]) & (jnp.arange(width) < size[1])
    return jnp.where(mask[..., None], x, 0)


class Bottleneck(nn.Module):
    """A residual block: 1 x 1, 3 x 3, 1 x 1, with the stride in the first (MSRA's ResNet, He et al. 2016).

    Attributes:
      width: channels of the first two convolutions; the third has four times as many.
      stride: the stride of the first, and of the projection.
      dilation: the dilation of the second: how many cells away its neighbours are.
      has_projection: whether a 1 x 1 convolution stands beside the three.
    """

    width: int
    stride: int
    dilation: int
    has_projection: bool
    dtype: Any
    precision: Any

    @nn.compact
    def __call__(self, x: jax.Array, size: jax.Array | None = None) -> jax.Array:
        """Returns [batch, height / stride, width / stride, 4 * width]; `size` as `within` takes it, of the result."""

        def convolution(features: int, kernel: int, name: str, *, stride: int = 1, dilation: int = 1) -> nn.Conv:
            return nn.Conv(
                features,
                (kernel, kernel),
                stride,
                padding=dilation * (kernel // 2),
                kernel_dilation=dilation,
                dtype=self.dtype,
                precision=self.precision,
                name=name,
            )

        y = nn.relu(convolution(self.width, 1, "conv1", stride=self.stride)(x))
        if size is not None:
            y = within(y, size)
        y = nn.relu(convolution(self.width, 3, "conv2", dilation=self.dilation)(y))
        y = convolution(4 * self.width, 1, "conv3")(y)
        if self.has_projection:
            x = convolution(4 * self.width, 1, "shortcut", stride=self.stride)(x)
        return nn.relu(x + y)


class Trunk(nn.Module):
    """The network that makes the feature map: stem, max-pool, and the stages res2 to res4; 16 pixels per cell.

    Attributes:
      blocks: residual blocks of the three stages.
      width: channels of the stem and of the first stage's bottlenecks.
    """

    blocks: Sequence[int]
    width: int
    dtype: Any
    precision: Any

    @nn.compact
    def __call__(self, canvas: jax.Array, size: jax.Array) -> jax.Array:
        """Returns <dtype>[rows, columns, 16 * width], with 0 outside the picture.

        Args:
          canvas: <float32>[height, width, 3], 0 outside the picture.
          size: <int32>[2], height and width of the picture, in the canvas's upper left corner.
        """
        stem = nn.Conv(self.width, (7, 7), 2, padding=3, dtype=self.dtype, precision=self.precision, name="stem")
        x = nn.relu(stem(canvas[None]))
        size = stem_size(size)
        # A last window that is not full counts, too (Caffe); what fills it up is never larger than what is in it.
        x = jnp.pad(within(x, size), [(0, 0), *((0, 1 - n % 2) for n in x.shape[1:3]), (0, 0)])
        x = nn.max_pool(x, (3, 3), (2, 2))
        size = jnp.maximum(size // 2, 1)
        for stage, num_blocks in enumerate(self.blocks):
            stride = 1 if stage == 0 else 2
            size = size if stage == 0 else stem_size(size)
            for block in range(num_blocks):
                x = Bottleneck(
                    self.width << stage,
                    stride if block == 0 else 1,
                    dilation=1,
                    has_projection=block == 0,
                    dtype=self.dtype,
                    precision=self.precision,
                    name=f"res{stage + 2}_{block}",
                )(x, size)
        return within(x[0], size)
