"""The resolved configuration as JSON, kept beside the results."""

import json
import pathlib

from ml_collections import ConfigDict

from mhcvse_jax.config.access import keys, lookup
from mhcvse_jax.config.defaults import Config, base
from mhcvse_jax.config.rules import check
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file

EARLIER = {"loss.negatives": "hardest"}
"""What was done before there was a key, where its default is something else."""


def save(config: Config, path: pathlib.Path) -> None:
    """Writes the resolved configuration as JSON, keys sorted."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(path: pathlib.Path) -> Config:
    """Returns the configuration that `save` wrote, checked.

    Raises:
      InputError: as `load_unchecked`; or no run could use one of its values.
    """
    config = load_unchecked(path)
    check(config)
    return config


def load_unchecked(path: pathlib.Path) -> Config:
    """Returns the configuration that `save` wrote, without JAX, which its check brings in.

    A key of a later version gets what the earlier one did: its default, or what `EARLIER` has.

    Raises:
      InputError: the file is missing or not JSON, lacks a whole section, or has a key that `base()` has not.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a workdir that a run has written")
    try:
        saved = ConfigDict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a configuration in JSON: {error}") from error
    config = base()
    unknown = sorted(set(keys(saved)) - set(keys(config)))
    if unknown:
        raise InputError(f"{path}: config.{unknown[0]} does not exist in this version of the program")
    for name, value in config.items():
        if isinstance(value, ConfigDict) and name not in saved:
            raise InputError(f"{path}: config.{name} is missing; expected what a run has written")
    for key, value in (EARLIER | {key: lookup(saved, key) for key in keys(saved)}).items():
        parent, _, name = key.rpartition(".")
        target = lookup(config, parent) if parent else config
        target[name] = tuple(value) if isinstance(target[name], tuple) else value
    return config.lock()
