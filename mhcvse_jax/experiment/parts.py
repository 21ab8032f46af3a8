"""Turns a configuration into the values that the parts of a run need."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import Config
from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.models import Model
from mhcvse_jax.models.pair_scores import PairModel


def check_devices(config: Config, devices: Sequence[Any] | None = None, *, keys: Sequence[str] | None = None) -> Mesh:
    """Returns the mesh of the given devices, or all.

    Args:
      config: the configuration.
      devices: the devices; None: all.
      keys: the keys of the sizes that are split over them; None: all of a training and its tests.

    Raises:
      InputError: the devices do not divide one of the sizes.
    """
    mesh = make_mesh(devices)
    for key in keys or ("batch_size", "loss.similarity_block", *encoded_at_once(config)):
        size = config_lib.lookup(config, key)
        if size % mesh.size:
            raise InputError(f"config.{key} is {size}, which the {mesh.size} devices do not divide")
    return mesh


def encoded_at_once(config: Config) -> tuple[str, ...]:
    """Returns the keys that size what a test holds on the devices at once."""
    scores_pairs = issubclass(models.MODELS[config.model.name], PairModel)
    return ("eval.pair_images", "eval.pair_captions") if scores_pairs else ("eval.batch_size",)


def precision(config: Config) -> str | None:
    """Returns `config.matmul_precision` as JAX names it."""
    return None if config.matmul_precision == "default" else config.matmul_precision


def model_shapes(model: Model, graph: ConceptGraph, regions_shape: tuple[int, ...]) -> Any:
    """Returns {params, batch_stats} as shapes alone, for pictures of `regions_shape`, (regions, features)."""
    from mhcvse_jax.training.step import init_variables  # here, as it brings in optax, which a search does without

    # The key is made within: outside, JAX would compile the making of it.
    return jax.eval_shape(lambda: init_variables(model, graph, regions_shape, jax.random.key(0)))


def trained_regions(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Returns (regions, features) of a run that does not state them, by its parameters.

    1 region where no parameter depends on their number.
    """
    num_regions = shapes.get("params/image_pooling/element_norm/scale", (1,))[0]
    return num_regions, shapes["params/region_projection/kernel"][0]


def choices(config: Config) -> str:
    """Returns the choices that the model has, in words."""
    has = models.keys(config.model.name)
    chosen = [f"{config.model[key]} {key}" for key in ("fusion", "pooling") if key in has]
    chosen += [config.model[key] for key in ("scan_direction", "scan_pooling") if key in has]
    heads = [f"{config.model.num_heads} heads"] if config.model.num_heads else []
    return ", ".join([*heads, *chosen])


def similarity_scale(config: Config) -> float:
    """Returns what InfoNCE's learned scales begin with; 0 where the loss is the hinge."""
    return 1 / config.loss.infonce_temperature if config.loss.contrastive == "infonce" else 0.0
