"""What goes to PyTorch is what was trained, and comes back the same."""

import json
import shutil

import cvse_data
import jax
import numpy as np
from cvse_data import GOLDEN, run
from imported import assert_reproduces, assert_same_losses_and_gradients, imported, load

from mhcvse_jax import config as config_lib
from mhcvse_jax import export_pytorch, import_pytorch
from mhcvse_jax.files.torch_file import read_torch_file


def test_what_is_exported_and_imported_is_the_same(workdir, data, tmp_path, capsys):
    code, _, errors = run(
        export_pytorch, capsys, workdir, "--out", tmp_path / "back.pth.tar", "--files", tmp_path / "files"
    )
    assert code == 0, errors
    files = tmp_path / "files"
    arguments = (
        *("--vocab", files / "vocab.json", "--concepts", files / "category_concepts.json"),
        *("--concept_embeddings", files / "concept_vectors.npy", "--data_dir", data.directory),
    )
    again = tmp_path / "again"
    code, _, errors = run(import_pytorch, capsys, tmp_path / "back.pth.tar", *arguments, "--out", again)
    assert code == 0, errors
    (first, progress), (second, progress_again) = (load(path).restore_best() for path in (workdir, again))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert progress == progress_again
    assert progress.best_step == 41
    for name in ("config.json", "vocabulary.json"):
        assert (workdir / name).read_text() == (again / name).read_text()
    assert (workdir / "concepts.npz").read_bytes() == (again / "concepts.npz").read_bytes()
    assert (workdir / "concept_vectors.npy").read_bytes() == (again / "concept_vectors.npy").read_bytes()
    original, exported = (read_torch_file(path) for path in (GOLDEN / "cvse.pth.tar", tmp_path / "back.pth.tar"))
    for module, (before, after) in enumerate(zip(original["model"], exported["model"], strict=True)):
        assert before.keys() == after.keys(), module
        assert {name: tensor.shape for name, tensor in before.items()} == {n: t.shape for n, t in after.items()}


def test_what_the_pytorch_program_has_fixed_survives_an_export(workdir, data, tmp_path, capsys):
    path = workdir / "config.json"
    saved = json.loads(path.read_text())
    saved["model"]["fixed_instance_weight"], saved["eval"]["consensus_weight"] = 0.6, 0.0
    path.write_text(json.dumps(saved))
    code, printed, errors = run(export_pytorch, capsys, workdir, "--out", tmp_path / "back.pth.tar")
    assert code == 0, errors
    assert "note: config.model.fixed_instance_weight is 0.6; the PyTorch program evaluates with 0.85" in printed
    assert "note: config.eval.consensus_weight is 0.0; the PyTorch program evaluates with 0.05" in printed
    imported(capsys, tmp_path / "back.pth.tar", data, tmp_path / "again")
    again = config_lib.load(tmp_path / "again" / "config.json")
    assert (again.model.fixed_instance_weight, again.eval.consensus_weight) == (0.6, 0.0)


def test_nothing_that_exists_is_overwritten(workdir, data, tmp_path, capsys):
    before = (workdir / "config.json").read_text()
    arguments = (GOLDEN / "cvse.pth.tar", *data.arguments, "--out")
    code, _, errors = run(import_pytorch, capsys, *arguments, workdir)
    assert (code, errors) == (2, f"error: --out {workdir} exists; expected a new directory\n")
    assert (workdir / "config.json").read_text() == before
    code, _, errors = run(import_pytorch, capsys, *arguments, tmp_path / "no" / "run")
    assert code == 2
    assert f"{tmp_path}/no is not a directory" in errors
    code, _, errors = run(export_pytorch, capsys, workdir, "--out", workdir / "config.json")
    assert code == 2
    assert "config.json exists; expected a new file" in errors


def test_what_the_pytorch_program_lacks_is_not_exported(workdir, tmp_path, capsys):
    shutil.copytree(workdir, tmp_path / "changed")
    config = config_lib.load(workdir / "config.json").unlock()
    config.model.consensus_norm = "layer"
    config_lib.save(config, tmp_path / "changed" / "config.json")
    code, _, errors = run(export_pytorch, capsys, tmp_path / "changed", "--out", tmp_path / "new.pth.tar")
    assert code == 2
    assert "config.model.consensus_norm is 'layer', which the PyTorch program does not have" in errors
    config.model.update(name="mhcvse", consensus_norm="batch", num_heads=2, attention_start="gate")
    config_lib.save(config, tmp_path / "changed" / "config.json")
    code, _, errors = run(export_pytorch, capsys, tmp_path / "changed", "--out", tmp_path / "new.pth.tar")
    assert (code, "config.model.attention_start is 'gate'; expected 'random' or 'zero'" in errors) == (2, True)
    assert not (tmp_path / "new.pth.tar").exists()


def test_pytorch_loads_what_is_exported(torch, trained, tmp_path, capsys):
    from golden import make_golden

    from benchmarks import torch_cvse

    model, data = trained
    torch_cvse.save(model, tmp_path / "model_best.pth.tar")
    imported(capsys, tmp_path / "model_best.pth.tar", data, tmp_path / "run")
    code, _, errors = run(export_pytorch, capsys, tmp_path / "run", "--out", tmp_path / "back.pth.tar")
    assert code == 0, errors
    loaded = torch.load(tmp_path / "back.pth.tar", weights_only=True)
    assert (loaded["epoch"], loaded["best_rsum"], loaded["Eiters"]) == (3, 123.4, 41)
    assert loaded["opt"].data_name == "f30k_precomp"
    assert loaded["opt"].embed_size == loaded["opt"]["embed_size"] == 26
    again = make_golden.cvse_model(data)
    again.load_state_dict(loaded["model"])
    expected, found = (
        torch_cvse.encode(side, torch_cvse.Reader(data.directory, "test", cvse_data.CONCEPTS))
        for side in (model, again)
    )
    for of_expected, of_found in zip(expected, found, strict=True):
        for a, b in zip(of_expected, of_found, strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-6)


def test_a_pytorch_mhcvse_is_imported_and_exported(torch, trained, tmp_path, capsys):
    from benchmarks import torch_cvse

    _, data = trained
    torch.manual_seed(2)
    sizes = {"features": cvse_data.FEATURES, "regions": cvse_data.REGIONS, "vocabulary_size": len(data.words)}
    model = torch_cvse.TorchMHCVSE(
        word_dim=6, dim=26, alpha=None, num_heads=2, vectors=data.vectors, adjacency=data.adjacency, **sizes
    )
    torch_cvse.fit(
        model, torch_cvse.Reader(data.directory, "train", cvse_data.CONCEPTS), steps=10, batch_size=32, rate=5e-3
    )
    states = model.state_dict()
    states[9] = {f"attention.{name}": tensor for name, tensor in states[9].items()}  # under any prefix
    content = {"epoch": 1, "model": states, "best_rsum": 1.0, "opt": {"data_name": "f30k_precomp"}, "Eiters": 9}
    torch.save(content | {"opt": content["opt"] | {"num_heads": 0}}, tmp_path / "headless.pth.tar")
    out = ("--out", tmp_path / "run")
    code, _, errors = run(import_pytorch, capsys, tmp_path / "headless.pth.tar", *data.arguments, *out)
    assert (code, "opt.num_heads is 0; expected 1 or more" in errors) == (2, True)
    torch.save(content, tmp_path / "mh.pth.tar")
    imported(capsys, tmp_path / "mh.pth.tar", data, tmp_path / "run", "--num_heads", "2")
    config = config_lib.load(tmp_path / "run" / "config.json")
    assert (config.model.name, config.model.num_heads, config.model.fusion) == ("mhcvse", 2, "weight_sum")
    expected = torch_cvse.results(model, data.directory, "test", cvse_data.CONCEPTS)
    experiment, split = assert_reproduces(tmp_path / "run", data.directory, expected, capsys)
    weights = {"loss.weighting": "fixed", "loss.mask_same_image": False}
    assert {key: config_lib.lookup(experiment.config, key) for key in weights} == weights
    assert_same_losses_and_gradients(experiment, split, expected)
    code, _, errors = run(export_pytorch, capsys, tmp_path / "run", "--out", tmp_path / "back.pth.tar")
    assert code == 0, errors
    imported(capsys, tmp_path / "back.pth.tar", data, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "run" / "config.json").read_text()
    first, second = (load(tmp_path / name).restore_best()[0] for name in ("run", "again"))
    jax.tree.map(np.testing.assert_array_equal, first, second)
