import numpy as np
import pytest

from mhcvse_jax.data import region_boxes
from mhcvse_jax.errors import InputError

PICTURES, REGIONS = 5, 3


def test_what_is_not_there_is_none(tmp_path):
    assert region_boxes.read(tmp_path, "test", PICTURES, REGIONS) == (None, None)


def test_boxes_and_sizes_of_the_first_pictures(tmp_path):
    boxes = np.arange(PICTURES * REGIONS * 4, dtype=np.float32).reshape(PICTURES, REGIONS, 4)
    sizes = np.arange(PICTURES * 2, dtype=np.int32).reshape(PICTURES, 2)
    np.save(tmp_path / "test_boxes.npy", boxes)
    np.save(tmp_path / "test_image_sizes.npy", sizes)
    found = region_boxes.read(tmp_path, "test", 2, REGIONS)
    np.testing.assert_array_equal(found.boxes, boxes[:2])
    np.testing.assert_array_equal(found.sizes, sizes[:2])


@pytest.mark.parametrize("shape", [(PICTURES - 1, REGIONS, 4), (PICTURES, REGIONS + 1, 4), (PICTURES, REGIONS, 2)])
def test_boxes_of_other_pictures_are_refused(tmp_path, shape):
    np.save(tmp_path / "test_boxes.npy", np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=r"test_boxes.npy is .*; expected \(5, 3, 4\)"):
        region_boxes.read(tmp_path, "test", PICTURES, REGIONS)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "test_boxes.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="not a whole"):
        region_boxes.read(tmp_path, "test", PICTURES, REGIONS)
