"""Captions in the form that every model takes."""

from typing import Any, NamedTuple

import numpy as np


class Captions(NamedTuple):
    """A batch of captions: NumPy arrays on the host, JAX arrays on the devices."""

    tokens: Any  # <int32>[batch, words]; what stands at padding does not matter
    lengths: Any  # <int32>[batch] tokens of each caption, 1 or more
    labels: Any  # <bool>[batch, concepts], those of each caption (in training: of its picture)

    @property
    def mask(self) -> Any:
        """<bool>[batch, words], true at a caption's own tokens, false at padding."""
        return np.arange(self.tokens.shape[1]) < self.lengths[:, None]
