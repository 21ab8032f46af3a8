"""The finished run as a model, and an index of its pictures."""

import pytest

import mhcvse_jax
from mhcvse_jax.indexing import build


@pytest.fixture(scope="session")
def model(finished):
    return mhcvse_jax.load(finished[0])


@pytest.fixture(scope="session")
def source(finished):
    data = finished[0] / "scenes"
    return build.Source(data, ("dev", "test"), data / "images")


@pytest.fixture(scope="session")
def index(model, source, tmp_path_factory):
    directory = tmp_path_factory.mktemp("index")
    build.add(directory, build.new_header(model, "float32"), model, source)
    return mhcvse_jax.Index.open(directory, model)
