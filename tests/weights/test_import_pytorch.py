"""Import and export of PyTorch checkpoints, against the stand-in of `torch_cvse`: its golden files, and live."""

import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import zipfile

import cvse_data
import front_door
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cvse_data import GOLDEN, run

from mhcvse_jax import config as config_lib
from mhcvse_jax import evaluate, export_pytorch, import_pytorch, main
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.files import torch_file
from mhcvse_jax.files.torch_file import OpenDict, read_torch_file, write_torch_file
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.losses import Contrast, LossTerms, loss_terms
from mhcvse_jax.losses.weighting import loss_weights
from mhcvse_jax.weights import pytorch_layout


@pytest.fixture(scope="module", autouse=True)
def precision():
    """An imported workdir sets the precision of products for the whole process."""
    yield
    jax.config.update("jax_default_matmul_precision", None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return cvse_data.write(tmp_path_factory.mktemp("data"), **cvse_data.IMAGES)


def imported(capsys, checkpoint, data, out, *more):
    code, printed, errors = run(import_pytorch, capsys, checkpoint, *data.arguments, "--out", out, *more)
    assert code == 0, errors
    return printed


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


def load(workdir):
    config = config_lib.load(workdir / "config.json")
    return Experiment.assemble(config, workdir, reading.load_language(workdir, config), jax.devices()[:1])


def assert_reproduces(workdir, directory, expected, capsys, split="test"):
    """Holds embeddings and recalls of a workdir against those of PyTorch; returns its experiment and the split."""
    experiment = load(workdir)
    loaded = experiment.load_split(directory, split, (1,))
    encoded = experiment.encode_with_best(loaded)
    for side in ("image", "text"):
        for name, values in getattr(encoded, side)._asdict().items():
            rows = expected[f"{side}/{name}"]
            rows = rows[:: len(rows) // loaded.num_images] if side == "image" else rows
            np.testing.assert_allclose(values, rows, rtol=0, atol=1e-5, err_msg=f"{side}/{name}")
    output = workdir / "again.json"
    code, _, errors = run(
        evaluate, capsys, "--workdir", workdir, "--data_dir", directory, "--split", split, "--output", output
    )
    assert code == 0, errors
    fused = json.loads(output.read_text())["results"][0]
    found = [fused[way][name] for way in ("i2t", "t2i") for name in ("r1", "r5", "r10")]
    assert found == np.round(expected["recalls"], 4).tolist()
    return experiment, loaded


def assert_same_losses_and_gradients(experiment, split, expected):
    order = expected["order"]
    variables, _ = experiment.restore_best()
    images = split.image_of_caption[order]
    tokens = split.tokens.padded(order, split.lengths.max())
    inputs = split.regions.read(images), Captions(tokens, split.lengths[order], split.caption_labels[order])
    weights = LossTerms(*(experiment.config.loss[f"{name}_weight"] for name in LossTerms._fields))

    def objective(params):
        model, graph = experiment.model, experiment.graph
        image, text = model.apply(variables | {"params": params}, *inputs, graph, train=False)
        margin = experiment.config.loss.margin
        masked = experiment.config.loss.mask_same_image
        losses, _ = loss_terms(image, text, images, Contrast(margin), mask_same_image=masked, reduction="sum")
        lambdas = loss_weights(losses, weights, experiment.config.loss.weighting)
        return sum(jax.tree.leaves(jax.tree.map(jnp.multiply, losses, lambdas))), losses

    compiled = jax.jit(jax.grad(objective, has_aux=True))
    gradients, losses = compiled(variables["params"])
    np.testing.assert_allclose(jax.tree.leaves(losses), expected["losses"], rtol=1e-4)
    arrays = {path: np.asarray(leaf) for path, leaf in pytorch_layout.flatten({"params": gradients}).items()}
    num_concepts = len(experiment.language.concepts.words)
    compared = 0
    for module, state in enumerate(pytorch_layout.to_state_dicts(arrays, np.zeros((num_concepts,) * 2))):
        for name, gradient in state.items():
            if name == "adj_all":
                continue
            torch_gradient = expected[f"gradient/{module}/{name}"]
            if "bias_hh" in name:  # of r and z ours have one bias where PyTorch has two
                third = len(gradient) // 3
                gradient, torch_gradient = gradient[2 * third :], torch_gradient[2 * third :]
            norm, difference = np.linalg.norm(torch_gradient), np.linalg.norm(gradient - torch_gradient)
            assert difference < 1e-3 * norm + 1e-5, (module, name, difference, norm)
            compared += norm > 1e-3
    assert compared > 30


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


def test_tensors_that_lay_on_a_gpu_are_read(golden_states, tmp_path):
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


def test_nothing_that_exists_is_overwritten(workdir, data, tmp_path, capsys):
    before = (workdir / "config.json").read_text()
    arguments = (GOLDEN / "cvse.pth.tar", *data.arguments, "--out")
    code, _, errors = run(import_pytorch, capsys, *arguments, workdir)
    assert (code, errors) == (2, f"error: --out {workdir} exists; expected a new directory\n")
    assert (workdir / "config.json").read_text() == before
    code, _, errors = run(import_pytorch, capsys, *arguments, tmp_path / "no" / "run")
    assert code == 2
    assert f"{tmp_path}/no is no directory" in errors
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
    assert not (tmp_path / "new.pth.tar").exists()


# What follows needs PyTorch.


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
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


def test_views_of_storages_are_refused(torch, tmp_path):
    """PyTorch before 0.4 wrote them."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", 4, ("1", 0, 2)) if isinstance(obj, bytes) else None

    buffer = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"storage": b""}):
        Pickler(buffer, 2).dump(part)
    (tmp_path / "views.pth.tar").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"holds a view of a storage, as PyTorch before 0\.4 wrote it"):
        read_torch_file(tmp_path / "views.pth.tar")


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
