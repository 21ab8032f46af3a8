"""Import of PyTorch checkpoints, against the stand-in of `torch_cvse`: its golden files, and live."""

import json
import os
import pathlib
import pickle
import zipfile

import cvse_data
import front_door
import jax
import numpy as np
import pytest
from cvse_data import GOLDEN, run
from imported import assert_reproduces, assert_same_losses_and_gradients, imported, load

from mhcvse_jax import config as config_lib
from mhcvse_jax import main
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading
from mhcvse_jax.files.torch_file import OpenDict, read_torch_file, write_torch_file


def test_an_imported_checkpoint_reproduces_the_original(workdir, data, golden, capsys):
    assert golden["recalls"].max() > 50  # it was trained
    experiment, split = assert_reproduces(workdir, data.directory, golden, capsys)
    assert_same_losses_and_gradients(experiment, split, golden)


def test_every_tensor_is_accounted_for(data, golden_states, tmp_path, capsys):
    printed = imported(capsys, GOLDEN / "cvse.pth.tar", data, tmp_path / "run")
    for module, state in enumerate(golden_states["model"]):
        line = [line for line in printed.splitlines() if f"not used  model[{module}]" in line]
        named = line[0].split(": ")[1].split(", ") if line else []
        assert set(named) <= set(state)
        used = set(state) - set(named)
        copies = {f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")} if module in range(2, 6) else set()
        assert copies <= set(named)
        assert len(used) == [2, 9, 14, 6, 13, 13, 3, 0][module]
    assert "adj_O_P, adj_O_M, joint_att_emb.weight" in printed


def test_the_configuration_evaluates_as_the_original_does(workdir, data):
    config = config_lib.load(workdir / "config.json")
    assert (config.model.name, config.model.num_heads, config.model.pooling) == ("cvse", 0, "attention")
    assert (config.text.bytes_literal, config.text.remove_stop_words) == (True, False)
    assert (config.eval.max_captions, config.eval.consensus_weight) == (5000, 0.05)
    assert (config.model.fixed_instance_weight, config.eval.test_split, config.eval.folds) == (0.85, "test", (1,))
    assert (config.model.label_share, config.loss.margin, config.matmul_precision) == (0.35, 0.2, "highest")
    assert config.data.dir == str(data.directory)
    np.testing.assert_array_equal(reading.load_language(workdir, config).concepts.adjacency, data.adjacency)


def test_how_it_was_trained_tells_it_from_others(data, golden_states, tmp_path, capsys):
    """So that compare does not gather it with checkpoints of another training."""
    said = {
        "batch_size": 96,
        "learning_rate": 1e-3,
        "learning_rate_MLGCN": 2e-4,
        "num_epochs": 7,
        "max_violation": False,
    }
    write_torch_file(tmp_path / "other.pth.tar", golden_states | {"opt": OpenDict(golden_states["opt"] | said)})
    imported(capsys, tmp_path / "other.pth.tar", data, tmp_path / "other")
    config = config_lib.load(tmp_path / "other" / "config.json")
    assert (config.batch_size, config.optimizer.learning_rate, config.loss.all_negatives_epochs) == (96, 1e-3, 7)
    assert config.optimizer.gcn_rate_factor == pytest.approx(0.2)


def test_the_data_set_decides_alpha_and_folds(data, golden_states, tmp_path, capsys):
    options = golden_states["opt"] | {"data_name": "coco_precomp", "Concept_label_ratio": 0.4}
    write_torch_file(tmp_path / "coco.pth.tar", golden_states | {"opt": OpenDict(options)})
    for name, more in (("coco", ()), ("said", ("--data_name", "f30k", "--seed", "3"))):
        imported(capsys, tmp_path / "coco.pth.tar", data, tmp_path / name, *more)
    coco, said = (config_lib.load(tmp_path / name / "config.json") for name in ("coco", "said"))
    assert (coco.model.fixed_instance_weight, coco.eval.test_split, coco.eval.folds) == (0.9, "testall", (5, 1))
    assert (said.model.fixed_instance_weight, said.eval.test_split, said.eval.folds) == (0.85, "test", (1,))
    assert (coco.eval.label_neighbours, said.eval.label_neighbours) == ("coco", "f30k")
    assert (coco.seed, said.seed) == (0, 3)
    assert coco.model.label_share == said.model.label_share == 0.4


@pytest.mark.first_python
def test_a_run_starts_from_an_imported_checkpoint(workdir, data, tmp_path, capsys):
    """At a rate that moves no parameter the run ends with the imported ones."""
    theirs = config_lib.load(workdir / "config.json")
    values = {
        "start_from": workdir,
        "data.dir": data.directory,
        "data.caption_lengths": "(32,)",
        "batch_size": 40,
        "num_epochs": 1,
        "optimizer.learning_rate": 1e-30,
        "text.bytes_literal": True,
    }
    for section in ("model", "concepts"):
        values |= {f"{section}.{key}": value for key, value in theirs[section].items() if value != ""}
    arguments = ["--config", "configs/cvse_f30k.py", *(f"--config.{key}={value}" for key, value in values.items())]
    (tmp_path / "same" / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)  # killed in its first save
    done = front_door.run("main", *arguments, "--workdir", tmp_path / "same")
    assert done.returncode == 0, done.stderr
    assert f"starting  from {workdir}, step 41" in done.stdout
    assert f"vectors of {workdir}" in done.stdout
    start, same = (load(path).restore_best()[0]["params"] for path in (workdir, tmp_path / "same"))
    jax.tree.map(np.testing.assert_array_equal, start, same)
    for name in ("vocabulary.json", "concepts.npz", "concept_vectors.npy"):
        assert (workdir / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    # What goes on needs nothing of the start.
    (tmp_path / "same" / "results.json").unlink()
    workdir.rename(tmp_path / "moved")
    done = front_door.run("main", *arguments, "--workdir", tmp_path / "same")
    assert done.returncode == 0, done.stderr
    assert "starting" not in done.stdout
    (tmp_path / "moved").rename(workdir)

    for wrong, message in (
        ("text.bytes_literal=False", f"{workdir}/config.json has text.bytes_literal True, and config.text"),
        ("model.label_share=0.9", f"{workdir}/config.json has model.label_share 0.35, and config.model.label_share"),
        ("text.vocabulary_path=v.json", "config.text.vocabulary_path is v.json; expected none"),
        (f"start_from={tmp_path}/absent", f"{tmp_path}/absent/config.json: no such file"),
    ):
        code, _, errors = run(main, capsys, *arguments, f"--config.{wrong}", "--workdir", tmp_path / "wrong")
        assert (code, errors.count("\n")) == (2, 1)
        assert message in errors
        assert not (tmp_path / "wrong").exists()


def test_a_vocabulary_may_be_a_pickle_and_vectors_too(data, tmp_path, capsys):
    content = json.loads((data.directory / "vocab.json").read_text())
    for protocol in (0, 2, 4):
        (tmp_path / f"vocab{protocol}.pkl").write_bytes(vocabulary_pickle(content, protocol))
        (tmp_path / "vectors.pkl").write_bytes(pickle.dumps(data.vectors, protocol))
        out = tmp_path / f"run{protocol}"
        more = ("--vocab", tmp_path / f"vocab{protocol}.pkl", "--concept_embeddings", tmp_path / "vectors.pkl")
        imported(capsys, GOLDEN / "cvse.pth.tar", data, out, *more)
        assert json.loads((out / "vocabulary.json").read_text())["word2idx"] == content["word2idx"]
        np.testing.assert_array_equal(np.load(out / "concept_vectors.npy"), data.vectors)


def vocabulary_pickle(content, protocol):
    """What `pickle.dump` of the original's Vocabulary writes, a class of its module `vocab`."""
    kind = type("Vocabulary", (), {"__module__": "vocab"})
    vocabulary = kind()
    vocabulary.__dict__.update(content)
    with pytest.MonkeyPatch.context() as patch:
        module = type(os)("vocab")
        module.Vocabulary = kind
        patch.setitem(__import__("sys").modules, "vocab", module)
        return pickle.dumps(vocabulary, protocol)


def test_a_prefix_of_data_parallel_is_taken_off(data, golden_states, tmp_path, capsys, workdir):
    states = [{f"module.{name}": tensor for name, tensor in state.items()} for state in golden_states["model"]]
    write_torch_file(
        tmp_path / "parallel.pth.tar", golden_states | {"model": states, "opt": OpenDict(data_name="f30k")}
    )
    imported(capsys, tmp_path / "parallel.pth.tar", data, tmp_path / "parallel")
    first, second = (load(path).restore_best()[0] for path in (workdir, tmp_path / "parallel"))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_fresh_checkpoint_reproduces_on_the_first_5000_captions(trained, tmp_path, capsys):
    from benchmarks import torch_cvse

    model, data = trained
    torch_cvse.save(model, tmp_path / "model_best.pth.tar", vocab_path=pathlib.Path("vocab"))
    imported(capsys, tmp_path / "model_best.pth.tar", data, tmp_path / "run")
    expected = torch_cvse.results(model, data.directory, "dev", cvse_data.CONCEPTS)
    assert len(expected["text/fused"]) == 5000
    assert_reproduces(tmp_path / "run", data.directory, expected, capsys, "dev")


def test_the_layout_before_pytorch_1_6_is_read_too(trained, tmp_path):
    from benchmarks import torch_cvse

    for is_zip in (True, False):
        torch_cvse.save(trained[0], tmp_path / f"{is_zip}.pth.tar", zipped=is_zip)
    assert not zipfile.is_zipfile(tmp_path / "False.pth.tar")
    new, old = (read_torch_file(tmp_path / f"{is_zip}.pth.tar") for is_zip in (True, False))
    assert new["opt"] == old["opt"]
    for state, of_old, of_torch in zip(new["model"], old["model"], trained[0].state_dict(), strict=True):
        assert list(state) == list(of_old) == list(of_torch)
        for name, tensor in state.items():
            np.testing.assert_array_equal(tensor, of_old[name])
            np.testing.assert_array_equal(tensor, of_torch[name].numpy())
    whole = (tmp_path / "False.pth.tar").read_bytes()
    for size in (30, 400, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth.tar").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"not a whole file of torch\.save"):
            read_torch_file(tmp_path / "cut.pth.tar")


def test_committed_results_are_what_torch_computes(torch, data, golden):
    from golden import make_golden

    from benchmarks import torch_cvse

    model = make_golden.cvse_model(data, dim=10)
    checkpoint = torch.load(GOLDEN / "cvse.pth.tar", weights_only=False)
    model.load_state_dict(checkpoint["model"])
    found = torch_cvse.results(model, data.directory, "test", cvse_data.CONCEPTS)
    assert found.keys() == golden.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, golden[name], rtol=1e-4, atol=1e-5, err_msg=name)
