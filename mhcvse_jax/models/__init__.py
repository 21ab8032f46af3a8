"""The systems, one file each, and how a configuration names them.

A model is a Flax module whose attributes are the keys of `config.model`, with `encode_images` and `encode_texts`,
which retrieval uses, and a `__call__` that does both, which training uses; all return `Embeddings`. Another system
is a file here and a line in `MODELS`.
"""

import flax.linen as nn
import jax.numpy as jnp

from mhcvse_jax.config import Config
from mhcvse_jax.models.mhcvse import MHCVSE

MODELS = {"mhcvse": MHCVSE}


def build(model_config: Config, *, vocabulary_size: int, dtype: str) -> nn.Module:
    """Returns the model that `config.model` describes; its parameters come from `training.step.initialize`."""
    values = model_config.to_dict()
    name = values.pop("name")
    return MODELS[name](vocabulary_size=vocabulary_size, dtype=jnp.dtype(dtype), **values)
