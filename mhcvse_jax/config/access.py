"""Dotted keys of a configuration."""

from typing import Any

from ml_collections import ConfigDict

from mhcvse_jax.config.defaults import Config


def lookup(config: Config, key: str) -> Any:
    """Returns the value of a dotted key, `model.num_heads` for example."""
    value = config
    for part in key.split("."):
        value = value[part]
    return value


def keys(config: Config, prefix: str = "") -> list[str]:
    """Returns all dotted keys of a configuration."""
    found = []
    for key, value in config.items():
        found += keys(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else [prefix + key]
    return found
