"""The encoders, one file each: they make regions of pictures for `mhcvse extract`.

An encoder is an `encoder.Encoder`. To add one, add a file here and a line in `ENCODERS`. Whatever takes long to import,
such as JAX, is imported when the encoder is made, so that the command's --help, which lists its options, is quick.
"""

from mhcvse_jax.encoders.efficientnet_lite2 import EfficientNetLite2
from mhcvse_jax.encoders.encoder import Encoder
from mhcvse_jax.encoders.faster_rcnn import FasterRCNNRegions
from mhcvse_jax.encoders.torchvision import Torchvision

ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder for encoder in (EfficientNetLite2, FasterRCNNRegions, Torchvision)
}
"""By the name that `--encoder` takes."""
