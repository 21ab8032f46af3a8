"""The program through its front door: real processes, real files, the built-in data set."""

import json
import pickle
import shutil

import numpy as np
import pytest
from front_door import LIGHT, run, run_by_itself, tiny, train_lines
from PIL import Image

from mhcvse_jax.data import region_shape
from mhcvse_jax.evaluation.evaluation import Evaluation


def test_main_says_what_it_does_and_leaves_a_whole_workdir(finished):
    workdir, printed = finished
    for word in ("devices", "60 pictures, 300 captions", "concepts  10 (7 objects, 2 properties, 1 motions)"):
        assert word in printed
    assert "16 heads" not in printed
    assert "epoch 2/2" in printed
    assert {path.name for path in workdir.iterdir()} >= {
        *("config.json", "metrics.jsonl", "tensorboard", "checkpoints", "results.json"),
        *("vocabulary.json", "concepts.npz", "concept_vectors.npy", "matches.png", "scenes", "ranks.npz"),
    }
    assert region_shape.read(workdir) == np.load(workdir / "scenes" / "train_ims.npy", mmap_mode="r").shape[1:]
    with Image.open(workdir / "matches.png") as image:
        assert image.size[0] > 600


def test_results_have_the_documented_form(finished):
    workdir, printed = finished
    content = json.loads((workdir / "results.json").read_text())
    assert content.keys() >= {"results", "versions", "device", "seed", "git_revision", "seconds", "test_seconds"}
    assert content["test_seconds"] > 0
    assert [row["embedding"] for row in content["results"]] == ["fused", "instance", "consensus"]
    for row in content["results"]:
        assert (row["split"], row["protocol"], row["folds"]) == ("test", "standard", 1)
        assert (row["num_images"], row["num_captions"]) == (20, 100)
        six = [row[way][name] for way in ("i2t", "t2i") for name in ("r1", "r5", "r10")]
        assert row["rsum"] == pytest.approx(sum(six), abs=1e-3)
        assert row["mean_recall"] == pytest.approx(sum(six) / 6, abs=1e-3)
        assert {"medr", "meanr"} <= row["i2t"].keys()
        assert f"{row['rsum']:.1f}" in printed
    assert 0 <= content["twins"]["order_accuracy"] <= 100


def test_every_step_and_every_validation_is_logged(finished):
    lines = train_lines(finished[0])
    train = [line for line in lines if line["kind"] == "train"]
    steps = 300 // 16
    assert [line["step"] for line in train] == list(range(1, 2 * steps + 1))
    for term in ("fusion", "instance", "consensus", "kl"):
        assert all(line[f"loss_{term}"] >= 0 and line[f"weight_{term}"] > 0 for line in train)
    assert all(0 < line["attention_entropy_text"] <= 1.0001 for line in train)
    rates = [line["learning_rate"] for line in train]
    assert rates[0] < max(rates) > rates[-1] > 0
    dev = [line for line in lines if line["kind"] == "dev_fused"]
    assert [line["step"] for line in dev] == [steps, 2 * steps]


def test_a_finished_run_prints_its_results_again(finished):
    workdir, printed = finished
    before = (workdir / "metrics.jsonl").stat().st_mtime_ns
    again = run("main", *tiny(workdir))
    assert again.returncode == 0
    assert "is finished" in again.stdout
    table = [line for line in printed.splitlines() if line.startswith("test, ")]
    assert all(line in again.stdout for line in table)
    assert (workdir / "metrics.jsonl").stat().st_mtime_ns == before


def test_evaluate_needs_the_workdir_alone_and_finds_the_same(finished, tmp_path):
    workdir, _ = finished
    output = tmp_path / "again.json"
    arguments = ("--workdir", workdir, "--data_dir", workdir / "scenes", "--output", output)
    done = run("evaluate", *arguments, "--matches", tmp_path / "matches.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text())["results"] == json.loads((workdir / "results.json").read_text())["results"]
    assert (tmp_path / "matches.png").exists()
    folds = run("evaluate", "--workdir", workdir, "--split", "dev", "--folds", "4")
    assert "dev (4 folds), fused" in folds.stdout
    assert list(Evaluation.load(workdir / "ranks_dev_standard_folds4.npz").ranks) == [4]


@pytest.mark.once
def test_a_built_data_set_trains_and_tests_as_the_directory_that_it_was_built_from(finished, tmp_path):
    built = ("data.format=tfds", f"data.dir={tmp_path / 'built'}")
    assert run("build_tfds", finished[0] / "scenes", tmp_path / "built").returncode == 0
    done = run("main", *tiny(tmp_path / "run", *built))
    assert done.returncode == 0, done.stderr
    assert train_lines(tmp_path / "run") == train_lines(finished[0])
    results = [json.loads((workdir / "results.json").read_text()) for workdir in (finished[0], tmp_path / "run")]
    for key in ("results", "twins"):
        assert results[0][key] == results[1][key]
    # A run may go on, and be evaluated, on either.
    assert "is finished" in run("main", *tiny(finished[0], *built)).stdout
    output = tmp_path / "again.json"
    elsewhere = ("--data_dir", tmp_path / "built", "--data_format", "tfds", "--output", output)
    done = run("evaluate", "--workdir", finished[0], *elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text())["results"] == results[0]["results"]


@pytest.mark.once
def test_eight_devices_train_as_one(finished, tmp_path):
    done = run("main", *tiny(tmp_path), num_devices=8)
    assert done.returncode == 0, done.stderr
    assert "devices   8 x cpu" in done.stdout
    for one, eight in zip(train_lines(finished[0]), train_lines(tmp_path), strict=True):
        assert one.keys() == eight.keys()
        if one["kind"] == "train":
            values = [name for name in one if name != "kind"]
            assert [eight[name] for name in values] == pytest.approx([one[name] for name in values], rel=2e-2)


@pytest.mark.first_python
def test_training_stops_when_nothing_gets_better(tmp_path):
    standing_still = ("optimizer.learning_rate=1e-12", "optimizer.warmup_epochs=0")
    done = run("main", *tiny(tmp_path, *LIGHT, "num_epochs=9", "patience_epochs=2", *standing_still))
    assert done.returncode == 0, done.stderr
    assert "no better one in the last 2" in done.stdout
    lines = train_lines(tmp_path)
    assert len([line for line in lines if line["kind"] == "dev_fused"]) < 9


@pytest.fixture
def scan_directory(finished, tmp_path):
    """The data of the finished run as a directory that may be damaged."""
    for path in (finished[0] / "scenes").iterdir():
        if path.is_file() and path.suffix in (".npy", ".txt"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.first_python
def test_the_user_may_bring_vectors_concepts_and_splits_in_folds(scan_directory, tmp_path):
    """GloVe for words, CVSE's files for concepts, COCO's name for the test split."""
    for path in scan_directory.glob("test_*"):
        path.rename(path.with_name(path.name.replace("test_", "testall_")))
    words = ["red", "blue", "circle", "square", "large", "small", "above", "absent", "striped", "ring"]
    glove = [f"{word} {' '.join(['0.5'] * 8)}" for word in ("red", "circle", "unseen")]
    (tmp_path / "glove.txt").write_text("\n".join(glove) + "\n")
    (tmp_path / "words.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    counts = np.ones((10, 10)) - np.eye(10)
    (tmp_path / "counts.pkl").write_bytes(pickle.dumps({"nums": np.full(10, 3), "adj_all": counts}))
    np.save(tmp_path / "vectors.npy", np.eye(10, 13))
    more = (
        *("data.format=scan", f"data.dir={scan_directory}", "num_epochs=1", "seed=1", "log.matches=0"),
        *(f"text.word_vectors_path={tmp_path}/glove.txt", "text.remove_stop_words=True"),
        *(f"concepts.words_path={tmp_path}/words.json", f"concepts.counts_path={tmp_path}/counts.pkl"),
        *(f"concepts.vectors_path={tmp_path}/vectors.npy", "eval.test_split=testall", "eval.folds=(2,1)"),
        *("model.train_concept_vectors=True", "compute_dtype=bfloat16", "matmul_precision=highest"),
    )
    done = run("main", *tiny(tmp_path / "run", *more))
    assert done.returncode == 0, done.stderr
    for line in ("glove.txt has 2 of", "vectors.npy has vectors of 10", "testall (2 folds), fused", "testall, fused"):
        assert line in done.stdout
    assert json.loads((tmp_path / "run" / "vocabulary.json").read_text())["word2idx"].get("the") is None
    assert len(json.loads((tmp_path / "run" / "results.json").read_text())["results"]) == 6
    assert list(Evaluation.load(tmp_path / "run" / "ranks.npz").ranks) == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "absent.py"), "absent.py: no such file"),
        (("--config", "configs/f30k.py", "--config.data.dir=absent"), "absent: no such directory"),
        (("--config", "configs/demo.py", "--config.model.heads=3"), "the nearest key is config.model.num_heads"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    done = run("main", *arguments, "--workdir", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_workdir_of_another_run_is_refused(finished, scan_directory, tmp_path):
    done = run("main", *tiny(finished[0], "model.fusion=concat"))
    assert done.returncode == 2
    assert "config.model.fusion='weight_sum', not 'concat'" in done.stderr
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    scenes = tmp_path / "run" / "scenes"
    captions = (scenes / "train_caps.txt").read_text().replace("red", "reddish")
    (scenes / "train_caps.txt").write_text(captions)
    done = run("main", *tiny(tmp_path / "run"))
    assert done.returncode == 2
    assert "holds a run with other words than these data give" in done.stderr


def test_a_test_split_that_cannot_be_used_is_known_before_the_training(finished, tmp_path):
    scenes = (f"data.dir={finished[0]}/scenes", "eval.folds=(3,)")
    done = run("main", *tiny(tmp_path, *scenes))
    assert done.returncode == 2
    assert "3 folds do not divide the 20 pictures of test" in done.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_features_that_are_not_finite_end_the_run(scan_directory, tmp_path):
    features = np.load(scan_directory / "train_ims.npy")
    features[3, 2] = np.nan
    np.save(scan_directory / "train_ims.npy", features)
    done = run("main", *tiny(tmp_path / "run", "data.format=scan", f"data.dir={scan_directory}"))
    assert done.returncode == 2
    assert "train_ims.npy: picture 9 (row 3), region 2 holds nan" in done.stderr
    assert done.stderr.count("\n") == 1


CVSE = (
    *("model.name=cvse", "model.num_heads=0", "model.pooling=attention", "model.fusion=fixed_sum"),
    *("loss.weighting=fixed", "loss.mask_same_image=False", "optimizer.schedule=step", "optimizer.step_epochs=1"),
    *("optimizer.warmup_epochs=0", "eval.consensus_weight=0.05", "eval.max_captions=50", "text.bytes_literal=True"),
)


@pytest.mark.first_python
def test_cvse_trains_and_goes_to_pytorch_and_back(tmp_path):
    workdir, back = tmp_path / "run", tmp_path / "back"
    done = run("main", *tiny(workdir, *CVSE))
    assert done.returncode == 0, done.stderr
    assert "model     cvse, D 16, fixed_sum fusion, attention pooling:" in done.stdout
    train = [line for line in train_lines(workdir) if line["kind"] == "train"]
    assert not any("attention_entropy_text" in line for line in train)
    weights = {name: train[0][f"weight_{name}"] for name in ("fusion", "instance", "consensus", "kl")}
    assert weights == {"fusion": 3, "instance": 5, "consensus": 1, "kl": 2}
    assert train[-1]["learning_rate"] == pytest.approx(train[0]["learning_rate"] / 10)
    content = json.loads((workdir / "results.json").read_text())
    assert {(row["num_images"], row["num_captions"]) for row in content["results"]} == {(10, 50)}
    assert "twins" not in content  # they are of the whole split

    files = tmp_path / "files"
    done = run("export_pytorch", workdir, "--out", tmp_path / "model_best.pth.tar", "--files", files)
    assert done.returncode == 0, done.stderr
    arguments = ("--vocab", files / "vocab.json", "--concepts", files / "category_concepts.json", "--out", back)
    more = ("--concept_embeddings", files / "concept_vectors.npy", "--data_dir", workdir / "scenes")
    done = run("import_pytorch", tmp_path / "model_best.pth.tar", *arguments, *more)
    assert done.returncode == 0, done.stderr
    config = json.loads((back / "config.json").read_text())
    config["eval"]["max_captions"] = 50
    (back / "config.json").write_text(json.dumps(config))
    done = run("evaluate", "--workdir", back, "--output", tmp_path / "again.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "again.json").read_text())["results"] == content["results"]


@pytest.mark.parametrize(
    ("module", "option"),
    [
        ("main", "--workdir"),
        ("evaluate", "--workdir"),
        ("compare", "SOURCE"),
        ("import_pytorch", "in_proj_weight"),
        ("export_pytorch", "--out"),
    ],
)
def test_help_helps(module, option):
    done = run_by_itself(module, "--help")
    assert done.returncode == 0
    assert option in done.stdout
