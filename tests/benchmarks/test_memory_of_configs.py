"""A device's memory as it is counted, against sizes by hand."""

import jax
import pytest

from benchmarks import memory
from mhcvse_jax import config as config_lib
from mhcvse_jax.devices.mesh import make_mesh

DATA = memory.Data(images=29, regions=5, features=23, vocabulary=43, edges=13)
BATCH, DIM, CONCEPTS = 16, 32, 11
SIZES = {"batch_size": BATCH, "model.embedding_dim": DIM, "model.word_dim": 6, "concepts.num": CONCEPTS}


def read(**more):
    return config_lib.read("vsepp_f30k", [f"--config.{key}={value}" for key, value in (SIZES | more).items()])


def test_what_a_step_holds():
    config = read()
    found = memory.peak(config, DATA)
    parts = memory.make_parts(config, DATA, make_mesh(jax.devices()[:1]))
    params = sum(leaf.size for leaf in jax.tree.leaves(memory.state_shapes(parts, DATA).params))
    assert 0 <= found.state - 3 * 4 * params < 100  # with Adam's two moments; a key and numbers of steps beside
    words = memory._words(config)
    assert found.batch == BATCH * (4 * DATA.regions * DATA.features + 4 * words + 4 + CONCEPTS + 4)
    captions = memory.CAPTIONS_PER_IMAGE * DATA.images
    of_captions = captions * (4 * memory.WORDS_A_CAPTION + 2 * 4 + CONCEPTS + 4)
    assert found.resident == 4 * DATA.images * DATA.regions * DATA.features + of_captions
    # Before it is normalised a region is kept for the backward pass, and so are a word's states of both directions.
    assert found.between > 4 * BATCH * DIM * (DATA.regions + 2 * words)
    assert found.features_on_device - found.features_on_host == found.resident


def test_features_of_half_the_precision_take_half():
    mesh = make_mesh(jax.devices()[:1])
    sizes = [memory.split_shapes(read(compute_dtype=dtype), DATA, mesh) for dtype in ("float32", "bfloat16")]
    assert memory._bytes(sizes[0].regions) == 2 * memory._bytes(sizes[1].regions)


def test_the_smallest_device_that_fits():
    assert [memory.fits(int(gb * 1e9)) for gb in (7.1, 7.3, 21.7, 71, 73)] == [
        "8 GB",
        "24 GB",
        "80 GB",
        "80 GB",
        "none",
    ]


@pytest.mark.once
def test_command(capsys):
    memory.main(["demo"])
    assert "8 GB / 8 GB" in capsys.readouterr().out
