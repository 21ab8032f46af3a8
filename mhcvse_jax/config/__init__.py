"""The configuration: its keys with their defaults and ranges, its rules, how it is read, overridden and kept."""

from mhcvse_jax.config.access import keys, lookup
from mhcvse_jax.config.command_line import name_of, named, read
from mhcvse_jax.config.declare import FREE, SAME, Key
from mhcvse_jax.config.defaults import CHOICES, KEYS, Config, base, cvse, mhcvse
from mhcvse_jax.config.rules import check
from mhcvse_jax.config.saved import load, load_unchecked, save

__all__ = [
    "CHOICES",
    "FREE",
    "KEYS",
    "SAME",
    "Config",
    "Key",
    "base",
    "check",
    "cvse",
    "keys",
    "load",
    "load_unchecked",
    "lookup",
    "mhcvse",
    "name_of",
    "named",
    "read",
    "save",
]
