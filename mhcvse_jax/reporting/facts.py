"""What was run: the non-default configuration, the data, the device, how long it took."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mhcvse_jax import config as config_lib
from mhcvse_jax.config import Config

MISSING = "-"


class Setting(NamedTuple):
    """A configuration key with a value of each run."""

    key: str
    values: list[str]  # one a run
    default: str
    meaning: str


def settings(configs: Sequence[Config]) -> list[Setting]:
    """Returns the keys in which a run differs from the base, or one run from another, in the order of the base."""
    base = config_lib.base()
    found = []
    for key in config_lib.keys(base):
        values, default = [config_lib.lookup(config, key) for config in configs], config_lib.lookup(base, key)
        if any(value != default for value in values):
            found.append(
                Setting(key, [_shown(value) for value in values], _shown(default), config_lib.KEYS[key].meaning)
            )
    return found


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "empty" if value == "" else str(value)


def results(path: pathlib.Path) -> Mapping[str, Any]:
    """Returns what a run wrote at its end; nothing if it has not finished or the file is not JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def duration(seconds: float) -> str:
    """Returns seconds in words that a person would use."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min ({seconds:,.0f} s)" if hours < 2 else f"{hours:.1f} h ({seconds:,.0f} s)"
