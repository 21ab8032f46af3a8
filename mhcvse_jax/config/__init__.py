"""The configuration: its keys with their defaults, its rules, how it is read, overridden and kept."""

from mhcvse_jax.config.access import keys, lookup
from mhcvse_jax.config.command_line import named, read
from mhcvse_jax.config.defaults import CHOICES, Config, base, cvse
from mhcvse_jax.config.rules import check
from mhcvse_jax.config.saved import load, save

__all__ = ["CHOICES", "Config", "base", "check", "cvse", "keys", "load", "lookup", "named", "read", "save"]
