"""Similarity matrices: ranked as the embeddings are, saved and read in blocks, averaged, refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.retrieval.ranks import ranks

IMAGES, PER_IMAGE = 22, 3
OWNER = np.repeat(np.arange(IMAGES), PER_IMAGE)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 7)


def coarse(seed, dim=5):
    """Returns embeddings of few values: many ties."""
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.integers(-1, 2, (n, dim)), jnp.float32) for n in (IMAGES, len(OWNER)))


def test_a_matrix_is_ranked_as_the_embeddings_are():
    image, text = coarse(0)
    found = similarity.ranks_of(similarity.of_embeddings(image, text), OWNER)
    expected = ranks(image, text, OWNER)
    np.testing.assert_array_equal(found.i2t, expected.i2t)
    np.testing.assert_array_equal(found.t2i, expected.t2i)
    assert len(set(found.t2i)) > 5


def test_a_fold_of_a_matrix_is_ranked_as_if_it_were_alone():
    image, text = coarse(1)
    found = similarity.ranks_of(similarity.of_embeddings(image, text), OWNER, folds=2)
    for fold in range(2):
        images = slice(11 * fold, 11 * fold + 11)
        captions = np.arange(33 * fold, 33 * fold + 33)
        expected = ranks(image[images], text[captions], OWNER[captions] - 11 * fold)
        np.testing.assert_array_equal(found.i2t[images], expected.i2t)
        np.testing.assert_array_equal(found.t2i[captions], expected.t2i)
    with pytest.raises(InputError, match="3 folds do not divide the 22 pictures"):
        similarity.ranks_of(similarity.of_embeddings(image, text), OWNER, folds=3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_saved_matrix_is_read_as_it_was(tmp_path, dtype):
    image, text = coarse(2)
    matrix = similarity.of_embeddings(image, text)
    path = tmp_path / "s.npy"
    similarity.save(path, matrix)
    saved = np.load(path)
    assert saved.dtype == np.float32
    np.testing.assert_array_equal(saved, image @ text.T)
    np.save(path, saved.astype(dtype))
    read = similarity.of_file(path, PER_IMAGE)
    np.testing.assert_array_equal(np.concatenate([block for _, block in read.blocks()]), saved)
    assert [file.name for file in tmp_path.iterdir()] == ["s.npy"]


def test_the_mean_of_matrices():
    rng = np.random.default_rng(3)
    arrays = rng.normal(size=(3, IMAGES, len(OWNER))).astype(np.float32)
    parts = [similarity.Similarity(*a.shape, lambda start, stop, a=a: a[start:stop]) for a in arrays]
    found = np.concatenate([block for _, block in similarity.mean(parts).blocks()])
    np.testing.assert_allclose(found, arrays.astype(float).mean(axis=0), atol=1e-6)
    with pytest.raises(InputError, match="unlike shapes cannot be averaged: pictures x captions are 2 x 4, 22 x 66"):
        similarity.mean([*parts, similarity.Similarity(2, 4, lambda start, stop: np.zeros((2, 4)))])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 12), np.int32), r"holds int32 \(4, 12\); expected floating-point \[pictures, 3 x pictures\]"),
        (np.zeros((4, 3, 4)), r"holds float64 \(4, 3, 4\)"),
        (np.zeros((0, 0)), r"holds float64 \(0, 0\)"),
        (np.zeros((4, 20)), r"--captions_per_image says how many"),
        (np.zeros((12, 4)), r"it seems to be transposed"),
        (np.where(np.arange(300).reshape(10, 30) == 271, np.nan, 0), r"row 9, column 1 is nan; expected a number"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, array, message):
    path = tmp_path / "s.npy"
    np.save(path, array)
    with pytest.raises(InputError, match=message):
        similarity.of_file(path, 3)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "s.npy"
    path.write_bytes(b"\x93NUMPY nothing")
    with pytest.raises(InputError, match=r"not a whole \.npy array"):
        similarity.of_file(path, 3)
    with pytest.raises(InputError, match="no such file"):
        similarity.of_file(tmp_path / "absent.npy", 3)


def test_a_similarity_that_is_not_finite_is_no_rank():
    image, text = coarse(4)
    with pytest.raises(RunFailedError, match="1 of 22 image embeddings are not finite"):
        similarity.of_embeddings(image.at[3, 1].set(jnp.inf), text)
    rows = similarity.Similarity(4, 12, lambda start, stop: np.full((stop - start, 12), np.nan, np.float32))
    with pytest.raises(RunFailedError, match="pictures 0 to 3 is not finite"):
        similarity.ranks_of(rows, OWNER[:12])
