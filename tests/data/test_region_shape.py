"""What a workdir says of the pictures that trained its model."""

import pytest

from mhcvse_jax.data import region_shape
from mhcvse_jax.errors import InputError


def test_what_is_saved_is_read(tmp_path):
    region_shape.save(tmp_path, (7, 11))
    assert region_shape.read(tmp_path) == (7, 11)


def test_a_run_of_before_states_nothing(tmp_path):
    assert region_shape.read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "{}", '{"regions": 7}', '{"regions": 7, "features": "many"}', "[7, 11]"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "regions.json").write_text(content)
    with pytest.raises(InputError, match=r"regions\.json: not a whole file of a run"):
        region_shape.read(tmp_path)
