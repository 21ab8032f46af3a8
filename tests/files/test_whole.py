"""Files are there whole or not at all."""

import numpy as np
import pytest

from mhcvse_jax.data.concepts import Concepts
from mhcvse_jax.data.dataset import Language
from mhcvse_jax.data.text import SPECIAL_TOKENS, Vocabulary
from mhcvse_jax.files.whole import whole_file


def test_what_fails_midway_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "file.txt"
    with whole_file(path) as partial:
        partial.write_text("first")

    def fail():
        with whole_file(path) as partial:
            partial.write_text("half of the sec")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def language(value):
    concepts = Concepts(("dog", "run"), ("object", "motion"), np.array([3, 2]), value * (1 - np.eye(2, dtype=int)))
    return Language(Vocabulary([*SPECIAL_TOKENS, "dog"]), concepts, np.full((2, 5), value, np.float32), True, False)


@pytest.mark.parametrize("fails", ["save", "savez"])
def test_a_language_is_never_half_written(tmp_path, monkeypatch, fails):
    language(1).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half(file, *arrays, **named):
        file.write(b"half")
        raise OSError("full")

    monkeypatch.setattr(np, fails, half)
    with pytest.raises(OSError, match="full"):
        language(2).save(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    written = {"save": "concept_vectors.npy", "savez": "concepts.npz"}[fails]
    assert after[written] == before[written]
