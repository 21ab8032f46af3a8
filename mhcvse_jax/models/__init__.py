"""The systems, one file each, and their names in a configuration.

A model is a Flax module whose attributes are the keys of `config.model` that it uses. Its base class says what it is:
an `EmbeddingModel` makes a vector of each side, a `PairModel` a score of both together; their files say which methods
that takes. Training, losses and retrieval follow from it. To add a system, add a file here and a line in `MODELS`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from mhcvse_jax.models.cross_attention import CrossAttention
from mhcvse_jax.models.cvse import CVSE
from mhcvse_jax.models.embeddings import EmbeddingModel
from mhcvse_jax.models.mhcvse import MHCVSE
from mhcvse_jax.models.pair_scores import PairModel
from mhcvse_jax.models.scan import SCAN
from mhcvse_jax.models.vsepp import VSEPP

Model = EmbeddingModel | PairModel

MODELS = {"mhcvse": MHCVSE, "cvse": CVSE, "vsepp": VSEPP, "scan": SCAN, "cross_attention": CrossAttention}
"""By `config.model.name`."""


def build(model_config: Any, *, vocabulary_size: int, dtype: str, similarity_scale: float = 0.0) -> Model:
    """Returns the model that `config.model` describes; its parameters come from `training.step.initialize`.

    Args:
      model_config: `config.model`.
      vocabulary_size: tokens, the padding included.
      dtype: the type of the layers' arithmetic.
      similarity_scale: InfoNCE's scale at the start; 0 for another loss.
    """
    values = {key: value for key, value in model_config.items() if key in keys(model_config.name)}
    return MODELS[model_config.name](
        vocabulary_size=vocabulary_size, dtype=jnp.dtype(dtype), similarity_scale=similarity_scale, **values
    )


def has_concepts(name: str) -> bool:
    """Returns whether the model of this name uses concepts."""
    return "consensus_temperature" in keys(name)


def keys(name: str) -> frozenset[str]:
    """Returns the keys of `config.model` that the model of this name uses."""
    return frozenset(field.name for field in dataclasses.fields(MODELS[name])) - {"name", "parent"}
