"""What tells a data set from others changes with any part of it, and is read as it was kept."""

import dataclasses

import numpy as np
import pytest

from mhcvse_jax.data import fingerprint
from mhcvse_jax.data.regions import MappedRegions
from mhcvse_jax.data.scan_layout import ScanSplit
from mhcvse_jax.errors import InputError


def split(**changed):
    features = np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 2)
    values = {
        "regions": MappedRegions(changed.pop("features", features), np.arange(5)),
        "captions": [f"caption {i}" for i in range(7)],
        "image_of_caption": np.array([0, 0, 1, 2, 3, 4, 4]),
        "image_ids": list("abcde"),
        "image_names": None,
    }
    return ScanSplit(**values | changed)


def test_each_part_has_its_sum(tmp_path):
    features = np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 2)
    features[4, 2, 1] = -1
    one = fingerprint.of_split(split())
    for change, differs in (
        ({"captions": ["another", *split().captions[1:]]}, {"captions_sha256"}),
        ({"image_of_caption": np.array([0, 1, 1, 2, 3, 4, 4])}, {"captions_sha256"}),
        ({"image_ids": list("abcdf")}, {"image_ids_sha256"}),
        ({"features": features}, {"features_sha256"}),
    ):
        other = fingerprint.of_split(split(**change))
        changed = dataclasses.asdict(one).items() - dataclasses.asdict(other).items()
        assert {key for key, _ in changed} == differs
    assert (one.num_images, one.num_captions, one.regions, one.features) == (5, 7, 3, 2)
    facts = fingerprint.of_data(tmp_path, {"train": split()})
    assert (facts.name, fingerprint.read(tmp_path)) == (tmp_path.name, None)
    fingerprint.keep(facts, tmp_path)
    assert fingerprint.read(tmp_path) == facts
    (tmp_path / "data.json").write_text('{"name": "x", "splits": {"train": {}}}')
    with pytest.raises(InputError, match=r"data.json: damaged"):
        fingerprint.read(tmp_path)


def test_of_many_pictures_some_are_read(monkeypatch):
    monkeypatch.setattr(fingerprint, "PICTURES_READ", 3)
    read = []

    class Noting(MappedRegions):
        def read(self, images):
            read.extend(images.tolist())
            return super().read(images)

    noting = Noting(np.zeros((5, 3, 2), np.float32), np.arange(5))
    fingerprint.of_split(split()._replace(regions=noting))
    assert read == [0, 2, 4]
