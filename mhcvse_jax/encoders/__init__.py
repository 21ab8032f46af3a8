"""The encoders, one file each: they make regions of pictures for `mhcvse extract`.

An encoder is a class as `encoder.Encoder` describes it. Another one is a file here and a line in `ENCODERS`.
"""

from mhcvse_jax.encoders.encoder import Encoder

ENCODERS: dict[str, type[Encoder]] = {}
"""By the name that `--encoder` takes."""
