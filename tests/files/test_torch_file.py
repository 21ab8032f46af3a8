"""Files of torch.save, read without PyTorch: what is in them, and what is refused."""

import io
import pickle
import struct
import zipfile

import jax
import numpy as np
import pytest
from cvse_data import GOLDEN

from mhcvse_jax.errors import InputError
from mhcvse_jax.files import torch_file
from mhcvse_jax.files.torch_file import read_torch_file, write_torch_file


def test_tensors_that_lay_on_a_gpu_are_read(tmp_path):
    golden_states = read_torch_file(GOLDEN / "cvse.pth.tar")
    write_torch_file(tmp_path / "cpu.pth.tar", golden_states["model"])
    on_cpu, on_gpu = (struct.pack("<I", len(device)) + device for device in (b"cpu", b"cuda:0"))
    with zipfile.ZipFile(tmp_path / "cpu.pth.tar") as before, zipfile.ZipFile(tmp_path / "gpu.pth.tar", "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(on_cpu, on_gpu))
        assert on_gpu in after.read("archive/data.pkl")
    for state, expected in zip(read_torch_file(tmp_path / "gpu.pth.tar"), golden_states["model"], strict=True):
        jax.tree.map(np.testing.assert_array_equal, state, expected)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        *(((2, 3), (3, 1), 1), ((7,), (1,), 0), ((7,), (0,), 0), ((6,), (1,), -1), ((-1,), (1,), 0)),
        ((5,), (np.int64(2**62),), 0),  # 4 times it is 0 in 64 bits
    ],
)
def test_a_tensor_reaches_no_further_than_its_storage(size, stride, offset):
    storage = torch_file._Storage(np.dtype("<f4"), 6)
    storage.fill(np.arange(6, dtype="<f4").tobytes())
    np.testing.assert_array_equal(torch_file._Tensor(storage, 1, (2, 2), (1, 2)).plain(), [[1, 3], [2, 4]])
    with pytest.raises(ValueError, match=r"of a storage of 6 numbers|expected whole numbers"):
        torch_file._Tensor(storage, offset, size, stride).plain()


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ", id="a storage"),
        pytest.param(b"0ctorch\ndevice\n", id="a name"),
        pytest.param(b"0ctorch\ndevice\n)R", id="an object"),
    ],
)
def test_a_pickle_sets_no_attribute(before, tmp_path):
    """A storage that said it has more numbers than it has would give the memory behind it away."""
    path = tmp_path / "sets.pth"
    with zipfile.ZipFile(path, "w") as archive:
        state = b"N}X\x03\x00\x00\x00numJ\x00\xca\x9a\x3bs\x86b"  # BUILD (None, {"num": 10**9})
        archive.writestr("archive/data.pkl", b"\x80\x02(X\x07\x00\x00\x00storage" + before + state + b".")
        archive.writestr("archive/data/0", np.arange(6, dtype="<f4").tobytes())
    with pytest.raises(InputError, match=r"sets\.pth: holds a state for"):
        read_torch_file(path)
    assert not hasattr(torch_file._Text, "num")


def test_views_of_storages_are_refused(tmp_path):
    """PyTorch before 0.4 wrote them."""
    torch = pytest.importorskip("torch")

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", 4, ("1", 0, 2)) if isinstance(obj, bytes) else None

    buffer = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"storage": b""}):
        Pickler(buffer, 2).dump(part)
    (tmp_path / "views.pth.tar").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"holds a view of a storage, as PyTorch before 0\.4 wrote it"):
        read_torch_file(tmp_path / "views.pth.tar")
