"""What identifies a data set: sizes and checksums of its splits, kept in each workdir trained on it."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mhcvse_jax.data.regions import RegionFeatures
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file

FILE = "data.json"
PICTURES_READ = 64  # whose features are summed, at even distances: all of COCO's would be 30 GB


class Captioned(Protocol):
    """What the fingerprint reads of a split."""

    @property
    def regions(self) -> RegionFeatures:
        """Of its pictures."""
        ...

    @property
    def captions(self) -> list[str]:
        """In their order."""
        ...

    @property
    def image_of_caption(self) -> np.ndarray:
        """<int32>[captions]."""
        ...

    @property
    def image_ids(self) -> list[str]:
        """As the data set names them."""
        ...


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Sizes and checksums, SHA-256, of a split."""

    num_images: int
    num_captions: int
    captions_sha256: str  # each caption and the place of its picture
    image_ids_sha256: str
    regions: int
    features: int
    features_sha256: str  # of PICTURES_READ pictures as float32


def of_split(split: Captioned) -> Fingerprint:
    """Returns a split's fingerprint; reads the features of PICTURES_READ pictures."""
    num_images, regions, features = split.regions.shape
    chosen = np.unique(np.linspace(0, num_images - 1, min(PICTURES_READ, num_images)).round().astype(int))
    return Fingerprint(
        num_images=num_images,
        num_captions=len(split.captions),
        captions_sha256=captions_digest(split.captions, split.image_of_caption),
        image_ids_sha256=_digest(image_id.encode() for image_id in split.image_ids),
        regions=regions,
        features=features,
        features_sha256=_digest(split.regions.read(chosen[i : i + 1]).tobytes() for i in range(len(chosen))),
    )


def captions_digest(captions: Sequence[str], image_of_caption: np.ndarray) -> str:
    """Returns the checksum of captions with their pictures' places, <int>[captions]."""
    return _digest(f"{image} {caption}".encode() for image, caption in zip(image_of_caption, captions, strict=True))


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\n")
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """The data of a run."""

    name: str  # of its directory
    splits: dict[str, Fingerprint]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "DataFacts":
        """Returns what `to_dict` made JSON of."""
        splits = {name: Fingerprint(**values) for name, values in content["splits"].items()}
        return cls(str(content["name"]), splits)


def of_data(directory: pathlib.Path, splits: Mapping[str, Captioned]) -> DataFacts:
    """Returns what a run that reads these splits of a directory is to keep."""
    return DataFacts(directory.resolve().name, {name: of_split(split) for name, split in splits.items()})


def keep(facts: DataFacts, workdir: pathlib.Path) -> None:
    """Writes it into a workdir."""
    with whole_file(workdir / FILE) as partial:
        partial.write_text(json.dumps(facts.to_dict(), indent=2) + "\n", encoding="utf-8")


def read(workdir: pathlib.Path) -> DataFacts | None:
    """Returns what a workdir keeps; None where its run did not keep it.

    Raises:
      InputError: the file is damaged.
    """
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        return DataFacts.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error!r}); expected what the training wrote") from error
