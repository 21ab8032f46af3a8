"""Which encoder made the features of a data directory: features.json there, and in each workdir trained on them."""

import json
import pathlib
import shutil
from typing import Any, NamedTuple

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_no_web_page

FILE = "features.json"
FILE_BESIDE_TFDS = "feature_source.json"
"""Its name in a tensorflow-datasets data set, which has a features.json of its own."""


class FeatureSource(NamedTuple):
    """Where features come from: a trained model cannot use features from another source."""

    encoder: str
    weights_sha256: str | None  # None where they are not known
    settings: dict[str, Any]

    def __str__(self) -> str:
        """Returns it in a few words."""
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        weights = f"weights {self.weights_sha256[:12]}" if self.weights_sha256 else "weights not known"
        return f"{self.encoder} ({', '.join(filter(None, (weights, settings)))})"


def read(directory: pathlib.Path) -> FeatureSource | None:
    """Returns what made the features of a data directory or workdir; None if it does not say.

    Raises:
      InputError: its features.json is damaged.
    """
    path = path_in(directory)
    if not path.exists():
        return None
    check_no_web_page(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return FeatureSource(*(content[field] for field in FeatureSource._fields))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged; expected what `mhcvse extract` wrote ({error!r})") from error


def check(directory: pathlib.Path, workdir: pathlib.Path) -> None:
    """Checks that a model was trained on features from the same source; passes if either side does not say.

    Raises:
      InputError: both say it, and they differ.
    """
    found, trained = read(directory), read(workdir)
    if found and trained and found != trained:
        raise InputError(f"{directory} has features of {found}; expected {trained}, which {workdir} was trained on")


def keep(directory: pathlib.Path, workdir: pathlib.Path) -> None:
    """Copies what the data directory says to the workdir."""
    said, kept = path_in(directory), path_in(workdir)
    if said.exists():
        shutil.copyfile(said, kept)
    else:
        kept.unlink(missing_ok=True)


def path_in(directory: pathlib.Path) -> pathlib.Path:
    """Returns the file of a data directory, of a data set of tensorflow-datasets, or of a workdir."""
    return directory / (FILE_BESIDE_TFDS if (directory / "dataset_info.json").exists() else FILE)
