"""The systems, one file each, and how a configuration names them.

A model is a Flax module with `encode_images` and `encode_texts`; each returns the embeddings that retrieval
compares. Another system is a file here and a line in `MODELS`.
"""

import flax.linen as nn
import jax.numpy as jnp

from mhcvse_jax.config import Config
from mhcvse_jax.errors import InputError
from mhcvse_jax.models.mhcvse import MHCVSE

MODELS = {"mhcvse": MHCVSE}


def build(model_config: Config, *, vocabulary_size: int, dtype: str) -> nn.Module:
    """Returns the model that `config.model` describes; its parameters come from `training.step.initialize`.

    Raises:
      InputError: no model has that name.
    """
    values = model_config.to_dict()
    name = values.pop("name")
    if name not in MODELS:
        raise InputError(f"config.model.name is {name!r}; expected one of {', '.join(map(repr, MODELS))}")
    return MODELS[name](vocabulary_size=vocabulary_size, dtype=jnp.dtype(dtype), **values)
