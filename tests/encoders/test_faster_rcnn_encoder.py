"""The detector as an encoder: a thin one on whole pictures, from a file of its weights."""

import jax
import numpy as np
import pytest

from benchmarks.detector_state import random_state
from mhcvse_jax.detection import faster_rcnn
from mhcvse_jax.detection.faster_rcnn import Architecture
from mhcvse_jax.encoders.encoder import file_sha256
from mhcvse_jax.encoders.faster_rcnn import FasterRCNNRegions
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.torch_file import write_torch_file

ARCHITECTURE = Architecture((1, 1, 1, 1), 2, 7, 11, 5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "bua.pth"
    write_torch_file(path, {"model": random_state(ARCHITECTURE, 1)})
    return path


def test_regions_of_pictures_of_any_size(weights, monkeypatch):
    traced = []
    propose = faster_rcnn.propose
    monkeypatch.setattr(faster_rcnn, "propose", lambda *arguments: traced.append(1) or propose(*arguments))
    encoder = FasterRCNNRegions(weights, num_regions="10_to_100", architecture=ARCHITECTURE)
    assert (encoder.regions_width, encoder.max_regions) == (64, 100)
    assert encoder.settings() == {"num_regions": "10_to_100", "compute_dtype": "float32"}
    assert encoder.weights_sha256 == file_sha256(weights)
    rng = np.random.default_rng(0)
    sizes = [(53, 61), (7, 9), (53, 61), (299, 397)]  # all on one canvas
    pictures = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    pictures[2] = pictures[0]
    found = encoder.encode(pictures)
    assert len(found) == 4
    jax.tree.map(np.testing.assert_array_equal, found[0], found[2])
    for (height, width), regions in zip(sizes, found, strict=True):
        num = len(regions.features)
        assert 1 <= num <= 100
        assert regions.features.shape == (num, 64)
        assert regions.features.min() >= 0
        assert regions.boxes.shape == (num, 4)
        assert (regions.boxes >= 0).all()
        assert (regions.boxes <= [width, height, width, height]).all()
        for values, most in ((regions.classes, 11), (regions.attributes, 5)):
            assert values.shape == (num,)
            assert 0 <= values.min() <= values.max() < most
        for scores in (regions.class_scores, regions.attribute_scores):
            assert 0 < scores.min() <= scores.max() <= 1
    assert len(found[3].features) >= 10
    assert len(traced) == 1


def test_weights_are_needed_and_must_be_those_of_visual_genome(weights):
    with pytest.raises(InputError, match=r"comes without weights; expected --weights FILE"):
        FasterRCNNRegions(None)
    with pytest.raises(InputError, match=r"backbone\.stem\.conv1\.weight is 2 x 3 x 7 x 7; expected 64 x 3 x 7 x 7"):
        FasterRCNNRegions(weights)
