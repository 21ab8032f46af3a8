"""What an evaluation says of a trained run, and what it was made from: cards, protocols, transfers, ensembles."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import oracle
import pytest
from front_door import run

from mhcvse_jax.data import fingerprint
from mhcvse_jax.evaluation import card
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment.assemble import Experiment


def test_a_run_card_has_all_that_a_row_needs(finished):
    workdir, _ = finished
    content = json.loads((workdir / "results.json").read_text())
    lines = {line.name: line.value for line in card.lines(content)}
    assert lines.keys() == {
        *("model", "seed", "data", "train", "dev", "test", "protocol", "selection", "commit", "device", "versions"),
        "wall time",
    }
    captions = (workdir / "scenes" / "train_caps.txt").read_text().splitlines()
    digest = fingerprint.captions_digest(captions, np.arange(300) // 5)
    assert lines["train"].startswith("60 pictures, 300 captions, 5 regions of 16; ")
    assert digest[:12] in lines["train"]
    assert content["data"] == json.loads((workdir / "data.json").read_text())
    assert lines["protocol"] == "standard, test"
    assert f"dev rsum {content['selection']['dev_rsum']:.1f}, 2 of 2 epochs done" in lines["selection"]
    assert "not kept" not in "".join(lines.values())
    assert "not kept" in "".join(line.value for line in card.lines({"versions": {}}))


@pytest.mark.parametrize(("protocol", "setting"), [("csls", "10 neighbours"), ("qb_norm", "temperature 0.05, bank of")])
def test_protocols_against_hubs_are_stamped(finished, tmp_path, protocol, setting):
    output = tmp_path / "out.json"
    done = run("evaluate", "--workdir", finished[0], "--protocol", protocol, "--folds", "2", "--output", output)
    assert done.returncode == 0, done.stderr
    is_transductive = protocol == "csls"
    assert (f"{protocol} protocol (transductive)" in done.stdout) == is_transductive
    assert f"fused, {protocol}{', transductive' * is_transductive} " in done.stdout
    assert "hubness   captions among the first 10 of a picture: skewness" in done.stdout
    content = json.loads(output.read_text())
    assert content["results"][0]["setting"].startswith(setting)
    assert all(row["transductive"] == is_transductive for row in content["results"])
    assert content["hubness"]["t2i"]["most"] >= 50
    assert Evaluation.load(tmp_path / "out_ranks.npz").rows() == content["results"]
    run("compare", output, "--protocol", protocol, "--output", tmp_path / "table.csv")
    again = run("compare", f"there={tmp_path / 'table.csv'}", output, "--protocol", protocol)
    assert again.stdout.count(f"{protocol}, {setting}") == 2, again.stderr
    one = run("evaluate", "--workdir", finished[0], "--protocol", protocol, "--similarity", tmp_path / "s.npy")
    assert (one.returncode, one.stdout) == (2, f"testing   mhcvse of {finished[0]} on test\n")
    assert "--similarity is by one similarity" in one.stderr


def test_a_run_on_other_data_is_stamped_as_a_transfer(finished, tmp_path):
    workdir, other = shutil.copytree(finished[0], tmp_path / "run"), tmp_path / "other data"
    shutil.copytree(workdir / "scenes", other)
    output = ("--output", tmp_path / "same.json")
    same = run("evaluate", "--workdir", workdir, "--data_dir", other, *output)
    assert "transfer" not in same.stdout + (tmp_path / "same.json").read_text()
    captions = (other / "test_caps.txt").read_text().splitlines()
    (other / "test_caps.txt").write_text("\n".join(["zebra " * 29, *captions[1:-1], "quokka " * 31]) + "\n")
    done = run("evaluate", "--workdir", workdir, "--data_dir", other)
    assert done.returncode == 0, done.stderr
    assert "transfer  trained on scenes, tested on other data" in done.stdout
    assert " different, quokka, zebra" in done.stdout
    assert "test, fused, transfer " in done.stdout
    ranks = workdir / "ranks_transfer_other_data_test_standard.npz"
    assert Evaluation.load(ranks).rows()[0]["trained_on"] == "scenes"
    table = run("compare", workdir, f"there={ranks}", "--allow_unlike").stdout
    assert "there [" in table
    assert "a transfer: trained on scenes" in table
    (workdir / "ranks.npz").unlink()
    assert Evaluation.load(ranks).split == "test"
    assert "the rank of each query is not kept" in run("compare", workdir).stdout  # and the transfer's are not taken


def test_the_rank_of_every_query_gives_the_results_to_the_digit(finished):
    workdir, _ = finished
    kept = Evaluation.load(workdir / "ranks.npz")
    assert kept.rows() == json.loads((workdir / "results.json").read_text())["results"]
    assert kept.image_ids == (workdir / "scenes" / "test_ids.txt").read_text().split()
    assert [len(kept.ranks[1]["fused"].i2t), len(kept.ranks[1]["fused"].t2i)] == [20, 100]


@pytest.fixture(scope="module")
def completed(finished, tmp_path_factory):
    """The results of the finished run under label completion, and its similarity matrix."""
    directory = tmp_path_factory.mktemp("completed")
    arguments = ("--workdir", finished[0], "--protocol", "label_completion", "--folds", "2")
    done = run("evaluate", *arguments, "--output", directory / "lc.json", "--similarity", directory / "lc.npy")
    assert done.returncode == 0, done.stderr
    return directory, done.stdout


def test_label_completion_is_called_transductive_wherever_it_is_told(completed, finished):
    directory, printed = completed
    assert "label_completion protocol (transductive)" in printed
    assert "test (2 folds), fused, label_completion, transductive" in printed
    rows = json.loads((directory / "lc.json").read_text())["results"]
    assert all(row["transductive"] and row["label_neighbours"] == "f30k" for row in rows)
    with np.load(directory / "lc_ranks.npz") as arrays:
        assert bool(arrays["transductive"])
    assert json.loads((directory / "lc.npy.json").read_text())["transductive"]
    assert Evaluation.load(directory / "lc_ranks.npz").rows() == rows
    done = run("compare", finished[0], directory / "lc.json", "--allow_unlike")
    assert "label_completion f30k (transductive)" in done.stdout
    assert run("compare", finished[0], directory / "lc.json").returncode == 2


def test_label_completion_encodes_again_with_the_labels_of_neighbours_over_all_folds(completed, finished):
    experiment = Experiment.of_workdir(finished[0], protocol="label_completion")
    split = experiment.load_split(finished[0] / "scenes", "test", (2,))
    variables, _ = experiment.restore_best()
    encoded = experiment.encoder(variables, split)
    labels = split.caption_labels.copy()
    sides = (np.asarray(side.fused, float) for side in encoded)
    for i, neighbours in enumerate(oracle.completion_neighbours(*sides, 3, 3)):
        for j in neighbours:
            labels[i] |= split.caption_labels[j]
    assert (labels != split.caption_labels).any(axis=1).sum() > 20
    text = experiment.encoder(variables, dataclasses.replace(split, caption_labels=labels)).text
    matrix = np.load(completed[0] / "lc.npy")
    assert (matrix.dtype, matrix.shape) == (np.float32, (20, 100))
    np.testing.assert_allclose(matrix, encoded.image.fused @ text.fused.T, atol=1e-5)
    assert np.abs(matrix - np.asarray(encoded.image.fused @ encoded.text.fused.T)).max() > 1e-4


def test_an_ensemble_of_a_run_with_itself_is_the_run(completed, finished, tmp_path):
    workdir, matrix = finished[0], completed[0] / "lc.npy"
    ensembles = ("--ensemble", workdir, workdir, "--ensemble", f"a={workdir}", matrix)
    arguments = ("--protocol", "label_completion", "--folds", "2", "--format", "csv")
    done = run("compare", completed[0] / "lc.json", *ensembles, *arguments, "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert "evaluating" in done.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"lc", "ensemble of run + run", "ensemble of a + lc"}
    for name in ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"):
        assert len({row[name] for row in rows.values()}) == 1
    assert {row["transductive"] for row in rows.values()} == {"true"}
