"""The systems, one file each, and how a configuration names them.

A model is a Flax module whose attributes are those keys of `config.model` that it has a use for, with `encode_images`
and `encode_texts`, which retrieval uses, and a `__call__` that does both, which training uses; all return `Embeddings`.
Another system is a file here and a line in `MODELS`.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from mhcvse_jax.config import Config
from mhcvse_jax.models.cvse import CVSE
from mhcvse_jax.models.mhcvse import MHCVSE

MODELS = {"cvse": CVSE, "mhcvse": MHCVSE}


def build(model_config: Config, *, vocabulary_size: int, dtype: str) -> nn.Module:
    """Returns the model that `config.model` describes; its parameters come from `training.step.initialize`."""
    model = MODELS[model_config.name]
    attributes = {field.name for field in dataclasses.fields(model)}
    values = {key: value for key, value in model_config.items() if key in attributes and key != "name"}
    return model(vocabulary_size=vocabulary_size, dtype=jnp.dtype(dtype), **values)
