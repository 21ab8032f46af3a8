"""What is no checkpoint of a PyTorch CVSE, or goes with other files, is refused in one line, and nothing is written."""

import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from cvse_data import GOLDEN, run

from mhcvse_jax import config as config_lib
from mhcvse_jax import import_pytorch
from mhcvse_jax.files.torch_file import OpenDict, write_torch_file


def assert_refused(capsys, data, tmp_path, checkpoint, message, *more):
    out = tmp_path / "refused"
    before = set(tmp_path.iterdir())
    code, printed, errors = run(import_pytorch, capsys, checkpoint, *data.arguments, "--out", out, *more)
    assert message in errors
    assert (code, printed, errors.count("\n")) == (2, "", 1)
    assert set(tmp_path.iterdir()) == before


def test_the_tar_layout_is_named(data, tmp_path, capsys):
    with tarfile.open(tmp_path / "old.pth.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    assert_refused(capsys, data, tmp_path, tmp_path / "old.pth.tar", "the tar layout of PyTorch before 0.2")
    (tmp_path / "text.pth.tar").write_text("no checkpoint")
    assert_refused(capsys, data, tmp_path, tmp_path / "text.pth.tar", "not a whole file of torch.save")


class Runs:
    """A pickle of it makes a directory where it is run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def zipped(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
    return buffer.getvalue()


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_code_in_a_checkpoint_is_named_and_not_run(layout, data, tmp_path, capsys):
    content = {"model": [], "opt": Runs(tmp_path / "trace")}
    legacy = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content)
    harmful = zipped(content) if layout == "zip" else b"".join(pickle.dumps(part, 2) for part in legacy)
    (tmp_path / "harm.pth.tar").write_bytes(harmful)
    assert_refused(
        capsys, data, tmp_path, tmp_path / "harm.pth.tar", r"harm.pth.tar: holds posix.mkdir, which is not read"
    )
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("size", [0, 3, 100, 20_000, 40_000])
def test_a_file_cut_short_is_refused(size, data, tmp_path, capsys):
    whole = (GOLDEN / "cvse.pth.tar").read_bytes()
    assert len(whole) > 40_000
    (tmp_path / "cut.pth.tar").write_bytes(whole[:size])
    assert_refused(capsys, data, tmp_path, tmp_path / "cut.pth.tar", "cut.pth.tar: not a whole file of torch.save")


def test_bits_that_flipped_are_refused_or_show(data, tmp_path, capsys):
    """An archive has a checksum of each tensor."""
    damaged = bytearray((GOLDEN / "cvse.pth.tar").read_bytes())
    with zipfile.ZipFile(GOLDEN / "cvse.pth.tar") as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data/3"))
    damaged[entry.header_offset + 200] ^= 0x10
    (tmp_path / "damaged.pth.tar").write_bytes(bytes(damaged))
    assert_refused(capsys, data, tmp_path, tmp_path / "damaged.pth.tar", "Bad CRC-32")


def change(states, module, **changes):
    """Returns the state dicts with some tensors of one module replaced, or taken out where None."""
    changed = [dict(state) for state in states]
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        changed[module].pop(name, None)
        if tensor is not None:
            changed[module][name] = tensor
    return changed


def floats(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (0, {"fc__weight": None, "fc__weight_g": floats(1), "fc__weight_v": floats(10, 11)}, "weight_norm is not sup"),
        (0, {"fc__bias": floats(9)}, "model[0] (image encoder) fc.bias is (9,); expected (10,)"),
        (0, {"fc__bias": None}, "model[0] (image encoder) fc.bias is missing; found fc.weight"),
        (0, {"fc__bias": floats(10) * np.nan}, "fc.bias is not finite; expected finite"),
        (0, {"fc__bias": np.ones(10, np.int64)}, "fc.bias is int64; expected finite"),
        (1, {"rnn__weight_hh_l0": floats(40, 10)}, "rnn is an LSTM, not supported; expected a Bi-GRU"),
        (1, {"rnn__weight_ih_l0_reverse": None}, "rnn is of one direction, not supported"),
        (1, {"rnn__weight_ih_l1": floats(30, 20)}, "rnn is of several layers, not supported"),
        (2, {"embedding_1__1__running_mean": floats(36)}, "embedding_1.1.weight is (5,); expected (36,)"),
        (2, {"fc1__weight": floats(10, 10)}, "fc1.weight differs from embedding_1.0.weight"),
        (4, {"novel__weight": floats(3)}, "model[4] (visual consensus) novel.weight (3,) is not known"),
        (6, {"adj_all": floats(13, 12)}, "(concept GCN) adj_all: concepts: adjacency is float32 (13, 12)"),
        (6, {"adj_all": -floats(13, 13)}, "row 0 of the adjacency sums to -13.0"),
        (6, {"joint_att_emb__bias": floats(3)}, "joint_att_emb.bias is (3,); expected (10,)"),
        (7, {"joint_emb_v__weight": floats(10, 10)}, "expected (10, 20) (concat) or (1, 10) (adap_sum)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(module, changes, message, data, golden_states, tmp_path, capsys):
    states = change(golden_states["model"], module, **changes)
    content = {"model": states, "opt": OpenDict(data_name="f30k_precomp")}
    write_torch_file(tmp_path / "changed.pth.tar", content)
    assert_refused(capsys, data, tmp_path, tmp_path / "changed.pth.tar", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list; expected a checkpoint with model, opt"),
        ({"fc.weight": floats(2, 3)}, "holds keys fc.weight; expected a checkpoint with model, opt"),
        ({"model": [{}]}, "model holds 1; expected a list of 8 state dicts"),
        ({"model": [{}] * 7 + [3]}, "model[7] is not a state dict"),
        ({"model": None}, "model holds NoneType; expected a list of 8"),
        ({"opt": OpenDict()}, "opt.data_name is None; say --data_name f30k or coco"),
        ({"opt": OpenDict(data_name="f30k", no_imgnorm=True)}, "opt.no_imgnorm is True, not supported; expected False"),
        ({"opt": OpenDict(data_name="f30k", feature_fuse_type="multiple")}, "opt.feature_fuse_type is 'multiple'"),
        (
            {"opt": OpenDict(data_name="f30k", margin="wide")},
            "opt.margin is 'wide', which cannot be config.loss.margin",
        ),
        ({"opt": OpenDict(data_name="f30k", dropout_rate=1.5)}, "config.model.dropout_rate is 1.5; expected a share"),
        ({"opt": OpenDict(data_name="f30k"), "epoch": "last"}, "epoch, best_rsum and Eiters must be numbers"),
        ({"opt": OpenDict(data_name="f30k"), "epoch": np.inf}, "epoch, best_rsum and Eiters must be numbers"),
        ({"opt": OpenDict(data_name="f30k"), "Eiters": 2**31}, "epoch, best_rsum and Eiters must be numbers"),
        ({"opt": OpenDict(data_name="f30k", num_epochs=np.inf)}, "opt.num_epochs is inf, which cannot be config.num"),
        ({"opt": OpenDict(data_name="f30k", lr_update=2.7)}, "opt.lr_update is 2.7, which cannot be config.optimizer"),
        ({"opt": OpenDict(data_name="f30k", no_imgnorm=floats(2))}, "opt.no_imgnorm is an array, not supported"),
        ({"model": [{1: floats(2)}] * 8}, "model[0] is not a state dict"),
    ],
)
def test_another_file_is_no_checkpoint(content, message, data, golden_states, tmp_path, capsys):
    if isinstance(content, dict) and "opt" in content:
        content = {"model": golden_states["model"]} | content
    write_torch_file(tmp_path / "other.pth.tar", content)
    assert_refused(capsys, data, tmp_path, tmp_path / "other.pth.tar", message)


def test_files_of_other_counts_are_refused(data, tmp_path, capsys):
    checkpoint = GOLDEN / "cvse.pth.tar"
    vocabulary = json.loads((data.directory / "vocab.json").read_text())
    vocabulary["word2idx"]["extra"] = len(vocabulary["word2idx"])
    (tmp_path / "more.json").write_text(json.dumps(vocabulary))
    (tmp_path / "concepts.json").write_text(json.dumps({"dog": 0, "man": 1}))
    np.save(tmp_path / "vectors.npy", data.vectors[:-1])
    (tmp_path / "vocab.pkl").write_bytes(pickle.dumps({"word2idx": {}}))
    num = len(data.words)
    for option, name, message in (
        ("--vocab", "more.json", f"more.json has {num + 1} words; expected {num}, the rows of {checkpoint}: model[1]"),
        ("--vocab", "absent.json", "absent.json: no such file; expected a vocabulary"),
        (
            "--vocab",
            "vocab.pkl",
            "vocab.pkl: holds an object of type dict, expected only an object of class Vocabulary",
        ),
        ("--concepts", "concepts.json", "concepts.json has 2 concepts; expected 13, the rows of"),
        ("--concept_embeddings", "vectors.npy", "holds float32 (12, 3), expected an array of numbers (13, 3)"),
        ("--data_dir", "absent", "absent: no such directory"),
    ):
        assert_refused(capsys, data, tmp_path, checkpoint, message, option, tmp_path / name)
    assert_refused(capsys, data, tmp_path, tmp_path / "none.pth.tar", "none.pth.tar: cannot be read (No such file")


def test_a_disk_that_fills_leaves_nothing_behind(data, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config_lib, "save", full)
    assert_refused(
        capsys, data, tmp_path, GOLDEN / "cvse.pth.tar", "refused: cannot be written (No space left on device)"
    )
