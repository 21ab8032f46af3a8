"""Names of what regions show."""

import numpy as np
import pytest

from mhcvse_jax.data import region_names
from mhcvse_jax.errors import InputError


@pytest.fixture
def data(tmp_path):
    np.save(tmp_path / "dev_classes.npy", np.array([[2, 0, 1], [1, 1, 0]], np.int32))
    np.save(tmp_path / "dev_attributes.npy", np.array([[1, 0, 1], [0, 0, 0]], np.int32))
    np.save(tmp_path / "dev_attribute_scores.npy", np.array([[0.5, 0.05, 0.1], [0.2, 0.2, 0.2]], np.float32))
    return tmp_path


def test_a_region_is_told_in_words_where_there_are_names(data):
    assert region_names.read(data, "dev", 2, 3).of(0) == ["attribute 1 class 2", "class 0", "attribute 1 class 1"]
    (data / "class_names.txt").write_text("__background__\ndog,puppy\r\nhorse\n t-shirt , tee\n")
    (data / "attribute_names.txt").write_text("red\nvery large\n")
    told = region_names.read(data, "dev", 2, 3)
    assert told.of(0) == ["very large t-shirt", "dog", "very large horse"]
    assert told.of(1) == ["red horse", "red horse", "red dog"]
    assert region_names.read(data, "train", 2, 3).of(0) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("dog\nhorse\n", "class_names.txt: 2 names, and a region has number 2; expected a name for each"),
        ("dog\n\nhorse\n", "class_names.txt line 2: no name"),
        ("__background__\n", "class_names.txt: no name in it"),
    ],
)
def test_names_that_do_not_fit_are_refused(data, names, message):
    (data / "class_names.txt").write_text(names)
    with pytest.raises(InputError, match=message):
        region_names.read(data, "dev", 2, 3)
