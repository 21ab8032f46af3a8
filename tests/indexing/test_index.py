"""An index of a trained run: found again by its own vectors, changed, damaged, and asked in words."""

import json

import numpy as np
import pytest

import mhcvse_jax
from mhcvse_jax.errors import InputError
from mhcvse_jax.indexing import build, store


@pytest.fixture(scope="module")
def model(finished):
    return mhcvse_jax.load(finished[0])


@pytest.fixture(scope="module")
def source(finished):
    data = finished[0] / "scenes"
    return build.Source(data, ("dev", "test"), data / "images")


@pytest.fixture(scope="module")
def index(model, source, tmp_path_factory):
    directory = tmp_path_factory.mktemp("index")
    build.add(directory, build.new_header(model, "float32"), model, source)
    return mhcvse_jax.Index.open(directory, model)


def test_vectors_are_those_of_the_evaluation(index, model, source):
    split = model.experiment.load_split(source.directory, "test", (1,))
    encoded = model.experiment.encoder(model.variables, split)
    np.testing.assert_allclose(index.vectors(range(20, 40)), encoded.image.fused, atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(split.captions), encoded.text.fused, atol=1e-6)


def test_search_is_the_sorted_product(index, model):
    texts = ["a red circle above a blue square", "two green things"]
    scores = model.similarity(index.vectors(range(len(index))), model.encode_texts(texts)).T
    for row, hits in zip(scores, index.search(texts, 7), strict=True):
        assert [hit.place for hit in hits] == list(np.argsort(-row, kind="stable")[:7])
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(row)[::-1][:7], atol=1e-6)


def test_records_are_those_of_the_data(index, source):
    picture = index.pictures[23]
    assert picture.id == (source.directory / "test_ids.txt").read_text().splitlines()[3]
    assert picture.captions == (source.directory / "test_caps.txt").read_text().splitlines()[15:20]
    np.testing.assert_allclose(picture.boxes, np.load(source.directory / "test_boxes.npy")[3], atol=0.06)
    np.testing.assert_array_equal(index.regions(23), np.load(source.directory / "test_ims.npy")[3])


def test_captions_are_found_with_their_pictures(index, model):
    text = index.pictures[31].captions[2]
    (hits,) = index.search_captions(model.encode_texts([text]), 1)
    assert hits[0].caption.lower() == text.lower()
    assert hits[0].caption in hits[0].picture.captions


def test_half_an_index_is_none(index, tmp_path):
    for path in index.directory.iterdir():
        if path.name != store.FILE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="not a whole index"):
        mhcvse_jax.Index.open(tmp_path)
    content = json.loads((index.directory / store.FILE).read_text())
    (tmp_path / store.FILE).write_text(json.dumps(content))
    (tmp_path / "000001_images.npy").unlink()
    with pytest.raises(InputError, match=r"000001_images.npy: no such file"):
        mhcvse_jax.Index.open(tmp_path)
