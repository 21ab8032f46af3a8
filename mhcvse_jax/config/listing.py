"""The list of all keys: for the terminal, and as the documentation page that this module prints."""

import textwrap
from typing import Any

from mhcvse_jax.config.declare import FREE
from mhcvse_jax.config.defaults import KEYS

INTRODUCTION = """# Configuration

    python -m mhcvse_jax.main --config f30k --config.batch_size=64 --config.model.fusion=concat

Every key with its default and allowed values. `--config.KEY=VALUE` overrides one; a file in `configs/` says only what
differs from the defaults, which are MH-CVSE as in its paper on Flickr30k. A value outside its range, or a key that does
not exist, is an error before anything is read. Keys marked with * may change when a run is resumed; all others must
stay as they were.

This page is made from mhcvse_jax/config/defaults.py: `python -m mhcvse_jax.config.listing > docs/configuration.md`
"""


def for_terminal() -> str:
    """Returns a paragraph per key: its name and default, its meaning, its allowed values."""
    paragraphs = []
    for name, key in KEYS.items():
        says = f"{key.meaning} ({key.allowed.expected})"
        paragraphs.append(
            f"--config.{name}={_shown(key.default)}\n" + textwrap.indent(textwrap.fill(says, 100), " " * 8)
        )
    return "\n".join(paragraphs)


def as_markdown() -> str:
    """Returns the page of the documentation."""
    lines, section = [INTRODUCTION], None
    for name, key in KEYS.items():
        group = name.rpartition(".")[0]
        if group != section:
            section = group
            lines.append(f"\n## {f'config.{group}' if group else 'config'}\n")
            lines += ["| key | default | meaning | allowed values |", "| --- | --- | --- | --- |"]
        mark = "*" if key.resume == FREE else ""
        cells = (f"`{name}`{mark}", f"`{_shown(key.default)}`", key.meaning, key.allowed.expected)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    return repr(default).replace(" ", "")


if __name__ == "__main__":
    print(as_markdown(), end="")
