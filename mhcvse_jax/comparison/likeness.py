"""Whether rows can share a table: they need the same protocol, split, folds and pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mhcvse_jax.comparison.entry import Entry

_NAMES = {
    "stamped_protocol": "protocol",
    "label_neighbours": "rule of label completion",
    "setting": "setting of the protocol",
    "split": "split",
    "folds": "number of folds",
    "num_images": "number of pictures",
    "num_captions": "number of captions",
}


def differences(entries: Sequence[Entry]) -> list[str]:
    """Returns a sentence for each fact in which rows differ, naming each row's value; missing facts are not compared.

    If the numbers of pictures are equal, their ids are compared.
    """
    found = []
    for key, name in _NAMES.items():
        holders: dict[Any, list[str]] = {}
        for entry in entries:
            value = getattr(entry.facts, key)
            if value not in (None, ""):  # no rule where labels are not completed
                holders.setdefault(value, []).append(entry.name)
        if len(holders) > 1:
            values = "; ".join(f"{_number(value)} of {', '.join(names)}" for value, names in holders.items())
            found.append(f"the {name} differs: {values}")
    if not any("number of" in sentence and "folds" not in sentence for sentence in found):
        with_ids = [entry for entry in entries if entry.image_ids is not None]
        others = [entry.name for entry in with_ids if entry.image_ids != with_ids[0].image_ids]
        if others:
            found.append(f"the pictures differ: {', '.join(others)} had other ids than {with_ids[0].name}")
    return found


def are_paired(one: Entry, other: Entry) -> bool:
    """Returns whether the hits of both are known, for the same queries in the same order."""
    if one.hits is None or other.hits is None:
        return False
    if one.image_ids is not None and other.image_ids is not None and one.image_ids != other.image_ids:
        return False
    return len(one.hits.i2t) == len(other.hits.i2t) and np.array_equal(
        one.hits.image_of_caption, other.hits.image_of_caption
    )


def not_stated(entry: Entry) -> str | None:
    """Returns which facts a row does not state; None if it states all."""
    missing = [name for key, name in _NAMES.items() if getattr(entry.facts, key) is None]
    return f"does not state its {', '.join(missing)}" if missing else None


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
