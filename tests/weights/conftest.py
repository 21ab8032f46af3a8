"""A data set that a CVSE checkpoint goes with, the golden checkpoint, and one that PyTorch has just trained."""

import cvse_data
import jax
import numpy as np
import pytest
from cvse_data import GOLDEN
from imported import imported

from mhcvse_jax.files.torch_file import read_torch_file


@pytest.fixture(scope="module", autouse=True)
def precision():
    """An imported workdir sets the precision of products for the whole process."""
    yield
    jax.config.update("jax_default_matmul_precision", None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return cvse_data.write(tmp_path_factory.mktemp("data"), **cvse_data.IMAGES)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "cvse.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden_states():
    return read_torch_file(GOLDEN / "cvse.pth.tar")


@pytest.fixture
def workdir(capsys, data, tmp_path):
    imported(capsys, GOLDEN / "cvse.pth.tar", data, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def trained(torch, tmp_path_factory):
    """A stand-in after some training, on a dev split of more than 5,000 captions."""
    from golden import make_golden

    from benchmarks import torch_cvse

    torch.manual_seed(1)
    data = cvse_data.write(tmp_path_factory.mktemp("trained"), train=100, dev=1014, test=53)
    model = make_golden.cvse_model(data)
    reader = torch_cvse.Reader(data.directory, "train", cvse_data.CONCEPTS)
    torch_cvse.fit(model, reader, steps=80, batch_size=32, rate=5e-3)
    return model, data
