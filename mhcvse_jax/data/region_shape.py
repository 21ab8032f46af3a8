"""The shape of a picture's regions, (regions, features), as regions.json in each workdir has it."""

import json
import pathlib
from typing import NamedTuple

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file

FILE = "regions.json"


class RegionShape(NamedTuple):
    """The shape for every picture; if regions vary in number, the most."""

    regions: int
    features: int


def read(workdir: pathlib.Path) -> RegionShape | None:
    """Returns what the model of a workdir was trained on; None for a run of a version that did not write it.

    Raises:
      InputError: the file is damaged.
    """
    path = workdir / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return RegionShape(*(int(content[field]) for field in RegionShape._fields))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a whole file of a run ({error!r})") from error


def save(workdir: pathlib.Path, shape: tuple[int, ...]) -> None:
    """Writes the file."""
    with whole_file(workdir / FILE) as partial:
        partial.write_text(json.dumps(RegionShape(*shape)._asdict()) + "\n", encoding="utf-8")
