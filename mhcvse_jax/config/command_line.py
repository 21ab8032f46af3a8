"""A configuration read from a file, with what the command line overrides."""

import difflib
import pathlib
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from mhcvse_jax.config.access import keys
from mhcvse_jax.config.defaults import Config, base
from mhcvse_jax.config.rules import check
from mhcvse_jax.errors import InputError


def named() -> dict[str, pathlib.Path]:
    """Returns the configurations that come with the package, by name: `f30k` is configs/f30k.py."""
    return {path.stem: path for path in sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))}


def name_of(path: str) -> str:
    """Returns what a configuration is called: f30k for configs/f30k.py, scan_f30k_i2t_lse for scan_f30k:i2t_lse."""
    given, _, argument = path.partition(":")
    return "_".join(filter(None, (pathlib.Path(given).stem, argument)))


def read(path: str, overrides: Sequence[str] = ()) -> Config:
    """Returns a configuration with `--config.key=value` overrides applied.

    Args:
      path: a Python file with a function `get_config()`, or one of `named()`; `PATH:TEXT` calls `get_config(TEXT)`.
      overrides: each `--config.some.key=value`, or `--config.some.key` followed by the value.

    Raises:
      InputError: the file is missing or fails; a key is unknown; a value has another type or is unusable.
    """
    given, colon, argument = path.partition(":")
    file = named().get(given, pathlib.Path(given))
    if not file.is_file():
        raise InputError(f"--config {given}: no such file; expected one, or one of {', '.join(named())}")
    path = f"{file}{colon}{argument}"
    holder = flags.FlagValues()
    arguments = ["mhcvse_jax", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=holder, sys_argv=arguments)
    try:
        rest = holder(arguments)[1:]
        config = _value(holder)
    except flags.IllegalFlagValueError as error:
        raise InputError(str(error).replace("flag ", "", 1)) from error
    except Exception as error:  # the file is the user's program: anything may fail in it
        raise InputError(_explain_override(overrides) or f"--config {path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config {path}: get_config() returned {config!r}; expected a configuration")
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; expected --config.key=value")
    unknown = sorted(set(keys(config)) - set(keys(base())))
    if unknown:
        raise InputError(f"--config {path} sets config.{unknown[0]}, which does not exist{_nearest(unknown[0])}")
    check(config)
    return config.lock()


def _value(holder: flags.FlagValues) -> Config:
    return holder["config"].value


def _explain_override(overrides: Sequence[str]) -> str | None:
    """Returns what is wrong with the first override that names no key; None if all do."""
    known = set(keys(base()))
    for override in overrides:
        name = override.split("=", 1)[0].lstrip("-")
        key = name.removeprefix("config.")
        if name.startswith("config.") and key not in known:
            return f"config.{key} does not exist{_nearest(key)}"
        if override.startswith("-") and not name.startswith("config."):
            return f"unknown option {override!r}; overrides are written --config.key=value"
    return None


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, keys(base()), n=1, cutoff=0.5)
    return f"; the nearest key is config.{near[0]}" if near else ""
