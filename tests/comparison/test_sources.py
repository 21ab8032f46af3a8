"""What `compare` reads: tables, matrices, ensembles, results without ranks."""

import json

import numpy as np
import pytest
from compared import FACTS, HEADER, IMAGES, OWNER, PER_IMAGE, cells_of, evaluation, make_workdir, table


def test_the_published_table_has_its_source_and_the_printed_mean(run):
    code, out, _ = run("--published")
    assert code == 0
    lines = {line.split(" [")[0]: line for line in out.splitlines()}
    assert cells_of(lines["MH-CVSE"])[:9] == ["74.1", "92.6", "95.4", "53.8", "82.1", "88.9", "486.9", "81.2", "83.5"]
    assert cells_of(lines["VSE++"])[:9] == ["52.9", "-", "87.2", "39.6", "-", "79.5", "-", "-", "-"]
    assert "its source prints mR 83.5; the mean of its six recalls is 81.15" in out
    assert "its source prints mR 58.5; the mean of its six recalls is 39.20" in out
    assert "printed in MH-CVSE (arXiv:2412.19184), Table 1" in out
    shown = out.splitlines()
    assert shown.index(lines["MH-CVSE"]) < shown.index(lines["DVSA"]) < shown.index(lines["VSE++"])  # no rsum: last
    rows = table(run("--published", "--format", "csv")[1])
    printed = {name: float(row["printed_mean_recall"]) for name, row in rows.items() if row["printed_mean_recall"]}
    wrong = {name for name, value in printed.items() if abs(value - float(rows[name]["mean_recall"])) > 0.06}
    assert wrong == {"DVSA", "MH-CVSE"}
    assert len(printed) == 9


def test_tables_of_recalls_are_read_and_what_they_do_not_state_is_said(tmp_path, run):
    values = "60,70,80,50,-,75"
    (tmp_path / "a.csv").write_text(
        f"\ufeff{HEADER},split,other\nSome | <b>system</b>,{values},test,x\n", encoding="utf-8"
    )
    row = dict(zip(HEADER.split(","), ["B", 61, 71, 81, 51, 61, 76.5], strict=True))
    (tmp_path / "b.json").write_text(json.dumps([row | {"printed_mean_recall": 67.0, "num_seeds": 5, "rsum_sd": 2.5}]))
    code, out, _ = run(tmp_path / "a.csv", tmp_path / "b.json", "--baseline", "B", "--format", "csv")
    assert code == 0
    rows = table(out)
    assert rows["Some | <b>system</b>"]["rsum"] == ""
    assert rows["Some | <b>system</b>"]["i2t_r1_difference"] == "-1.0"
    assert "does not state its protocol, number of folds, number of pictures" in run(tmp_path / "a.csv")[1]
    assert float(rows["B"]["mean_recall"]) == pytest.approx(66.9166666, abs=1e-6)
    (tmp_path / "again.csv").write_text(out)
    again = table(run(tmp_path / "again.csv", "--baseline", "B", "--format", "csv")[1])
    assert again == rows
    markdown = run(tmp_path / "a.csv", tmp_path / "b.json", "--format", "markdown")[1]
    assert r"Some \| \<b>system\</b>" in markdown
    assert "404.5" not in markdown
    assert "401.5 ±2.5" in markdown
    named = table(run(f"N={tmp_path}/a.csv", f"M={tmp_path}/b.json", "--format", "csv", "--sort", "given")[1])
    assert list(named) == ["N", "M"]


def test_a_matrix_is_compared_and_paired_with_a_run(tmp_path, run):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(IMAGES, IMAGES * PER_IMAGE)).astype(np.float32)
    np.save(tmp_path / "s.npy", array)
    workdir = make_workdir(tmp_path / "run", evaluation(0))
    code, out, _ = run(tmp_path / "s.npy", workdir, "--baseline", "run", "--format", "csv")
    assert code == 0
    row = table(out)["s"]
    own = array[OWNER, np.arange(len(OWNER))]
    t2i = 1 + (array > own).sum(axis=0)
    i2t = [1 + (line > line[5 * i : 5 * i + 5].max()).sum() for i, line in enumerate(array)]
    for way, ranks in (("i2t", np.array(i2t)), ("t2i", t2i)):
        for k in (1, 5, 10):
            assert float(row[f"{way}_r{k}"]) == pytest.approx(100 * np.mean(ranks <= k))
    assert float(row["rsum_low"]) < float(row["rsum_high"])
    assert "in the order of the others'" in row["note"]
    row = table(run(tmp_path / "s.npy", "--folds", IMAGES, "--format", "csv")[1])["s"]
    assert (row["folds"], row["i2t_r1"], row["t2i_r1"]) == (str(IMAGES), "100.0", "100.0")  # each picture alone
    # What it is of stands beside it.
    facts = FACTS | {"split": "dev", "protocol": "label_completion", "transductive": True, "label_neighbours": "coco"}
    (tmp_path / "s.npy.json").write_text(json.dumps(facts))
    row = table(run(tmp_path / "s.npy", "--format", "csv")[1])["s"]
    assert (row["split"], row["protocol"], row["transductive"]) == ("dev", "label_completion", "true")
    assert "the protocol differs" in run(tmp_path / "s.npy", workdir)[2]
    # A rule that is not stated is no difference; another one is.
    table_of = f"{HEADER},split,protocol,label_neighbours\nS,6,7,8,5,6,7,dev,{{}}"
    (tmp_path / "t.csv").write_text(table_of.format("label_completion,-"))
    assert run(tmp_path / "s.npy", tmp_path / "t.csv")[0] == 0
    (tmp_path / "t.csv").write_text(table_of.format("label_completion,f30k"))
    code, _, err = run(tmp_path / "s.npy", tmp_path / "t.csv")
    assert (code, "the rule of label completion differs: coco of s; f30k of S" in err) == (2, True)
    (tmp_path / "s.npy.json").write_text(json.dumps(facts | {"num_images": 7}))
    assert "is of 7 pictures and 115 captions" in run(tmp_path / "s.npy")[2]
    for folds in (["x"], [0]):
        (tmp_path / "s.npy.json").write_text(json.dumps(facts | {"folds": folds}))
        code, _, err = run(tmp_path / "s.npy")
        assert (code, "does not say what s.npy is of" in err) == (2, True)


def test_recalls_below_one_percent_are_read_where_the_pictures_are_counted(tmp_path, run):
    """Chance among 5,000 pictures is 0.2 for R@10."""
    (tmp_path / "chance.csv").write_text(f"{HEADER},num_images\nchance,0,.1,.2,0,.1,.2,5000\n")
    code, out, err = run(tmp_path / "chance.csv", "--format", "csv")
    assert code == 0, err
    assert table(out)["chance"]["i2t_r10"] == "0.2"


def test_an_ensemble_of_matrices_is_the_rank_of_their_mean(tmp_path, run):
    rng = np.random.default_rng(0)
    right = np.repeat(np.eye(IMAGES), PER_IMAGE, axis=1)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", (right + rng.normal(size=right.shape)).astype(np.float32))
    np.save(tmp_path / "mean.npy", (np.load(tmp_path / "a.npy") + np.load(tmp_path / "b.npy")) / 2)
    paths = [tmp_path / f"{name}.npy" for name in ("a", "b")]
    code, out, _ = run(tmp_path / "mean.npy", *paths, "--ensemble", *paths, "--format", "csv")
    assert code == 0
    rows = table(out)
    for name in ("rsum", "i2t_r1", "t2i_r10"):
        assert rows["ensemble of a + b"][name] == rows["mean"][name] > rows["a"][name]
    # What one of them does not state is not taken from the other.
    facts = FACTS | {"split": "dev", "protocol": "standard", "label_neighbours": ""}
    (tmp_path / "a.npy.json").write_text(json.dumps(facts))
    row = table(run("--ensemble", *paths, "--format", "csv")[1])["ensemble of a + b"]
    assert (row["protocol"], row["split"], row["num_images"]) == ("", "", "23")
    assert "the pictures of b are taken to be in the order of the others'" in row["note"]
    np.save(tmp_path / "b.npy", np.zeros((3, 15)))
    code, _, err = run("--ensemble", *paths)
    assert code == 2
    assert "the number of pictures differs: 23 of a; 3 of b" in err


def old_workdir(path):
    """Returns a workdir from before ranks were kept."""
    make_workdir(path, evaluation(0))
    (path / "ranks.npz").unlink()
    return path


def test_results_without_ranks_have_no_interval_and_say_what_makes_it(tmp_path, run):
    workdirs = [old_workdir(tmp_path / "old"), make_workdir(tmp_path / "new", evaluation(1), batch_size=3)]
    code, out, _ = run(*workdirs, "--baseline", "new", "--format", "csv")
    assert code == 0
    row = table(out)["old"]
    assert float(row["rsum"]) == evaluation(0).rows()[0]["rsum"]
    assert (row["rsum_low"], row["rsum_difference"] != "") == ("", True)
    assert f"python -m mhcvse_jax.evaluate --workdir {tmp_path}/old --split test" in row["note"]
    # A file of results finds the ranks beside it, and only its own.
    results, beside = tmp_path / "dev.json", tmp_path / "dev_ranks.npz"
    results.write_text(json.dumps({"results": evaluation(2, split="dev").rows()}))
    evaluation(2, split="dev").save(beside)
    row = table(run(results, "--format", "csv")[1])["dev"]
    assert float(row["rsum"]) == pytest.approx(evaluation(2).retrieval(1, "fused").rsum, abs=1e-9)
    evaluation(3, split="dev").save(beside)
    code, _, err = run(results)
    assert code == 2
    assert "does not belong to dev.json" in err
