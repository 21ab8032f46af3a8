"""`compare` through its front door, on workdirs and files made by hand; a real run is in test_commands."""

import csv
import dataclasses
import html.parser
import io
import json
import re
import signal

import numpy as np
import pytest

from mhcvse_jax import compare, config
from mhcvse_jax.comparison import bootstrap, formats
from mhcvse_jax.comparison.entry import Hits, hits_of
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.retrieval.recall import Ranks

IMAGES, PER_IMAGE = 23, 5
OWNER = np.repeat(np.arange(IMAGES), PER_IMAGE)
IDS = [f"{i}.jpg" for i in range(IMAGES)]
FACTS = {"folds": [1], "num_images": IMAGES, "num_captions": len(OWNER), "image_ids": IDS}
HEADER = "name,i2t_r1,i2t_r5,i2t_r10,t2i_r1,t2i_r5,t2i_r10"


@pytest.fixture(autouse=True)
def handlers():
    """A command sets its own handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def run(capsys):
    """Runs the command; returns exit code, what it printed, and its errors."""

    def call(*arguments):
        code = compare.main([*map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def evaluation(seed, best=1, *, split="test", protocol="standard", rule="", ids=IDS, folds=(1,)):
    """Returns ranks from `best` on, by chance."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(ids)), PER_IMAGE)

    def ranks():
        return Ranks(*(rng.integers(best, 13, n).astype(np.int32) for n in (len(ids), len(owner))))

    kinds = ("fused", "instance", "consensus")
    return Evaluation(split, protocol, rule, ids, owner, {n: {kind: ranks() for kind in kinds} for n in folds})


def make_workdir(path, tested, **values):
    """Returns a workdir as `main` leaves it, but for its checkpoints."""
    path.mkdir(parents=True)
    saved = config.base()
    for key, value in values.items():
        parent, _, name = key.replace("__", ".").rpartition(".")
        (saved[parent] if parent else saved)[name] = value
    config.save(saved, path / "config.json")
    tested.save(path / "ranks.npz")
    (path / "results.json").write_text(json.dumps({"results": tested.rows(), "seed": saved.seed}))
    return path


def table(text):
    return {row["name"]: row for row in csv.DictReader(io.StringIO(text))}


def test_a_workdir_has_the_recalls_of_its_ranks_and_intervals_to_the_baseline(tmp_path, run):
    tested = {"good": evaluation(0), "bad": evaluation(1, best=4)}
    workdirs = [make_workdir(tmp_path / n, one, batch_size=64 + len(n)) for n, one in tested.items()]
    code, out, _ = run(*workdirs, "--baseline", "bad", "--format", "csv")
    assert code == 0
    rows = table(out)
    assert list(rows) == ["good", "bad"]
    for name, one in tested.items():
        expected = one.retrieval(1, "fused")
        assert float(rows[name]["rsum"]) == pytest.approx(expected.rsum)
        assert float(rows[name]["t2i_r5"]) == expected.t2i.r5
        assert (rows[name]["split"], rows[name]["num_images"], rows[name]["num_captions"]) == ("test", "23", "115")
        assert (rows[name]["num_seeds"], rows[name]["transductive"]) == ("1", "false")
    low, high, found = (float(rows["good"][f"rsum_{key}"]) for key in ("low", "high", "difference"))
    assert 0 < low < found < high
    assert found == pytest.approx(float(rows["good"]["rsum"]) - float(rows["bad"]["rsum"]))
    assert rows["bad"]["rsum_low"] == ""
    code, out, _ = run(*workdirs, "--embedding", "instance", "--format", "csv")
    assert float(table(out)["good"]["i2t_r1"]) == tested["good"].retrieval(1, "instance").i2t.r1


def test_seeds_of_one_configuration_become_one_row(tmp_path, run):
    tested = [evaluation(seed) for seed in range(3)]
    workdirs = [
        make_workdir(
            tmp_path / f"small_{seed}", one, seed=seed, data__dir=f"elsewhere/{seed}", log__every_steps=seed + 1
        )
        for seed, one in enumerate(tested)
    ]
    other = make_workdir(tmp_path / "other", evaluation(3), data__num_captions_per_image=4)
    # A key that this run's program did not have yet counts as its default.
    saved = json.loads((workdirs[1] / "config.json").read_text())
    del saved["eval"]["label_neighbours"], saved["loss"]["margin"]
    (workdirs[1] / "config.json").write_text(json.dumps(saved))
    code, out, _ = run(*workdirs, other, "--baseline", "small_1", "--format", "csv")
    assert code == 0
    rows = table(out)
    assert rows.keys() == {"small", "other"}
    rsums = [one.retrieval(1, "fused").rsum for one in tested]
    assert float(rows["small"]["rsum"]) == pytest.approx(np.mean(rsums))
    assert float(rows["small"]["rsum_sd"]) == pytest.approx(np.std(rsums, ddof=1))
    assert (rows["small"]["num_seeds"], rows["small"]["note"]) == (
        "3",
        "mean ± standard deviation over the seeds 0 (small_0), 1 (small_1), 2 (small_2)",
    )
    assert rows["other"]["rsum_sd"] == ""
    assert (
        float(rows["other"]["rsum_low"]) < float(rows["other"]["rsum_difference"]) < float(rows["other"]["rsum_high"])
    )
    # Hits are averaged over the seeds, then drawn.
    hits = [hits_of(one.ranks[1]["fused"], OWNER) for one in (*tested, evaluation(3))]
    mean = Hits(*(np.mean([one[way] for one in hits[:3]], axis=0) for way in range(2)), OWNER)
    expected = bootstrap.intervals([hits[3]], mean, num_draws=10_000, seed=0)[0]
    for name, bounds in expected.items():
        assert [float(rows["other"][f"{name}_{side}"]) for side in ("low", "high")] == pytest.approx(bounds)
    deviation = f"{np.std(rsums, ddof=1):.1f}"
    assert f"{np.mean(rsums):.1f} ±{deviation}" in run(*workdirs)[1]
    # What was trained on other data is no seed of it.
    (workdirs[2] / "vocabulary.json").write_text("{}")
    assert table(run(*workdirs, "--format", "csv")[1]).keys() == {"small", "small_2"}
    # Under names of their own they stay apart; under one they are one.
    named = [f"{name}={path}" for name, path in zip("aab", workdirs, strict=True)]
    assert table(run(*named, "--format", "csv")[1]).keys() == {"a", "b"}


def test_the_kept_evaluation_of_the_wanted_split_and_protocol_is_found(tmp_path, run):
    workdir = make_workdir(tmp_path / "run", evaluation(0, folds=(5, 1), ids=[str(i) for i in range(25)]))
    more = [
        evaluation(1, split="dev"),
        evaluation(2, protocol="label_completion", rule="f30k"),
        evaluation(3, protocol="label_completion", rule="coco"),
    ]
    for one in more:
        one.save(workdir / one.file_name())
    evaluation(4).save(workdir / "ranks_test_standard.npz")  # the run's own test comes first
    test = Evaluation.load(workdir / "ranks.npz")
    dev_in_folds = evaluation(5, split="dev", ids=[str(i) for i in range(25)], folds=(5,))
    dev_in_folds.save(workdir / dev_in_folds.file_name())  # the latest
    for arguments, expected, folds in (
        ((), test, 1),
        (("--split", "dev", "--folds", 5), dev_in_folds, 5),
        (("--folds", 5), test, 5),
        (("--split", "dev"), more[0], 1),
        (("--protocol", "label_completion"), more[1], 1),
    ):
        code, out, _ = run(workdir, *arguments, "--format", "csv")
        assert code == 0
        row = table(out)["run"]
        assert float(row["rsum"]) == pytest.approx(expected.retrieval(folds, "fused").rsum)
        assert row["folds"] == str(folds)
        assert row["transductive"] == str(expected.protocol == "label_completion").lower()
    out = run(workdir, "--protocol", "label_completion")[1]
    assert "label_completion f30k (transductive)" in out
    code, _, err = run(workdir, "--split", "train", "--folds", 7)
    assert code == 2
    assert f"evaluate --workdir {workdir} --split train --protocol standard --folds 7 makes them" in err


def test_unlike_rows_are_refused_unless_asked_for_and_then_marked(tmp_path, run):
    workdir = make_workdir(tmp_path / "run", evaluation(0))
    unlike = {
        "protocol": evaluation(1, protocol="label_completion", rule="f30k"),
        "split": evaluation(2, split="dev"),
        "number of pictures": evaluation(3, ids=IDS[:-1]),
        "pictures": evaluation(4, ids=[*IDS[:-1], "another.jpg"]),
        "number of folds": evaluation(5, folds=(23,)),
    }
    for name, one in unlike.items():
        path = tmp_path / f"{name.replace(' ', '_')}.npz"
        one.save(path)
        code, out, err = run(workdir, path)
        assert (code, out) == (2, "")
        assert f"the {name} differ" in err
        assert all(word in err for word in ("run", path.stem, "--allow_unlike"))
        assert err.count("\n") == 1
        for form in formats.FORMATS:
            code, out, _ = run(workdir, path, "--allow_unlike", "--baseline", "run", "--format", form)
            assert code == 0
            assert f"the {name} differ" in out
        # The same queries are paired, whatever they were ranked among.
        row = table(run(workdir, path, "--allow_unlike", "--baseline", "run", "--format", "csv")[1])[path.stem]
        assert (row["rsum_low"] == "") == (name in ("number of pictures", "pictures"))
        assert row["unlike"].startswith(f"the {name} differ")


def cells_of(line):
    """Returns the figures of a line of the terminal's table: what is left of name and footnotes."""
    return [cell for cell in line.split() if re.fullmatch(r"-|[0-9.]+", cell)]


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


class Cells(html.parser.HTMLParser):
    """The text of each cell by rows, and that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.rows, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


def test_every_format_shows_all_and_cuts_nothing_off(tmp_path, run):
    name = "a system with quite a long name & <odd> letters, ∞"
    workdirs = [
        f"{name}={make_workdir(tmp_path / 'one', evaluation(0))}",
        make_workdir(tmp_path / "two", evaluation(1), batch_size=3),
    ]
    arguments = (*workdirs, "--baseline", "two", "--draws", 100)
    outputs = {form: run(*arguments, "--format", form)[1] for form in formats.FORMATS}
    lines = outputs["terminal"].splitlines()
    assert len({len(line) for line in lines[2:5]}) == 1
    parser = Cells()
    parser.feed(outputs["html"])
    assert parser.open == []
    assert [len(row) for row in parser.rows[1:]] == [len(parser.rows[1])] * 3
    assert "http" not in outputs["html"]
    body = [line.split(" | ") for line in outputs["markdown"].splitlines() if line.startswith("|")]
    assert [len(row) for row in body] == [len(parser.rows[1])] * 4
    for row in parser.rows[2:]:
        shown = next(line for line in lines if line.startswith(row[0]))
        assert all(cell in shown for cell in row)
    assert name in outputs["terminal"]
    assert {row[0] for row in parser.rows[2:]} == {name, "two"}
    assert set(table(outputs["csv"])) == {name, "two"}
    for form, suffix in (("markdown", "md"), ("html", "html"), ("csv", "csv"), ("terminal", "txt")):
        code, out, _ = run(*arguments, "--output", tmp_path / f"out.{suffix}")
        assert (code, out) == (0, f"2 rows in {tmp_path}/out.{suffix}\n")
        assert (tmp_path / f"out.{suffix}").read_text() == outputs[form]
    assert not list(tmp_path.glob("*.partial"))


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


def bad_inputs(tmp_path):
    """Yields arguments and the message that they end with."""
    workdir = make_workdir(tmp_path / "w" / "run", evaluation(0))
    same = make_workdir(tmp_path / "same", evaluation(0))
    other = make_workdir(tmp_path / "v" / "run", evaluation(1), batch_size=3)

    def file(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    good = "S,60,70,80,50,60,75"
    yield (), "nothing to compare"
    yield (tmp_path / "absent",), "no such file or directory; expected a workdir, .npz, .json, .csv or .npy"
    yield (file("a.txt", ""),), "of unknown kind"
    yield (tmp_path,), "no config.json in it"
    yield (workdir, same), "the same configuration and the same seed, 0"
    yield (workdir, other), "two sources are named 'run'"
    yield (f"a={workdir}", f"a={other}"), "two sources are named 'a'"
    yield (workdir, "--baseline", "nothing"), "--baseline nothing: no such row; expected a source, or one of run"
    yield (workdir, "--output", tmp_path / "absent" / "x.md"), "no such directory"
    yield (workdir, "--output", workdir), "a directory; expected the name of a file"
    yield (workdir, "--output", tmp_path / "x.pdf"), "expected .txt, .md, .csv or .html, or --format"
    yield (workdir, "--seed", "-1"), "--seed is -1"
    yield (workdir, "--split", "testall"), "has no results of testall under standard"
    yield (file("b.csv", f"{HEADER.replace('t2i_r5,', '')}\n"),), "b.csv: no column t2i_r5; expected name, i2t_r1"
    yield (file("c.csv", ""),), "no column name"
    yield (file("d.csv", f"{HEADER}\n{good.replace('70', 'high')}\n"),), "line 2: i2t_r5 is 'high'; expected a number"
    yield (file("e.csv", f"{HEADER}\n{good.replace('70', 'nan')}\n"),), "line 2: i2t_r5 is 'nan'"
    yield (file("f.csv", f"{HEADER}\n{good.replace('75', '175')}\n"),), "a recall of 175; expected percent"
    yield (file("g.csv", f"{HEADER}\nS,.6,.7,.8,.5,.6,.75\n"),), "expected percent, not shares of 1"
    yield (file("h.csv", f"{HEADER}\nS,70,60,80,50,60,75\n"),), "expected R@1, R@5, R@10 to rise"
    yield (file("i.csv", f"{HEADER}\n{good.replace('S', ' ')}\n"),), "no name"
    yield (file("j.csv", f"{HEADER},folds\n{good},1.5\n"),), "folds is 1.5; expected a whole number"
    yield (file("l.csv", f"{HEADER}\n"),), "l.csv: no row below the header"
    yield (file("m.csv", f"{HEADER}\nS,60,70,80,50,60\n"),), "line 2: expected 7 cells, as the header has"
    yield (file("n.csv", f"{HEADER}\n{good},1,2\n"),), "line 2: expected 7 cells, as the header has"
    yield (file("k.csv", f"{HEADER}\n{good}\n{good}\n"),), "two sources are named 'S'"
    yield (file("a.json", "{"),), "a.json: not JSON"
    yield (file("b.json", "[3]"),), "b.json: JSON of another kind"
    yield (file("c.json", '{"results": [{"split": "test"}]}'),), "c.json: JSON of another kind"
    for key, value, message in (
        ("i2t", {"r1": float("nan"), "r5": 1.0, "r10": 1.0}, "a recall of nan; expected percent"),
        ("num_images", "1000", "num_images is '1000'"),
        ("split", ["test"], "split is ['test']"),
        ("rsum", float("inf"), "rsum is inf"),
        ("mean_recall", float("nan"), "a recall of nan; expected percent"),
        ("folds", 0, "folds is 0"),
    ):
        rows = [row | {key: value} for row in evaluation(0).rows()]
        yield (file(f"{key}.json", json.dumps({"results": rows})),), message
    yield (file("d.json", '{"name": "x"}'),), "d.json: object 1 has no i2t_r1"
    yield (file("a.npz", "nothing"),), "not ranks that an evaluation has written"
    for name, folds in (("none", []), ("no_divisor", [4])):
        whole = evaluation(0)
        dataclasses.replace(whole, ranks=dict.fromkeys(folds, whole.ranks[1])).save(tmp_path / f"{name}.npz")
        yield (tmp_path / f"{name}.npz",), f"{whole.num_images} pictures in {folds} folds; expected folds that divide"
    yield ("--ensemble", tmp_path / "a.npz"), "expected a workdir or a similarity matrix, .npy"
    np.save(tmp_path / "s.npy", np.zeros((4, 12)))
    yield (tmp_path / "s.npy",), "--captions_per_image says how many"
    (tmp_path / "broken").mkdir()
    file("broken/config.json", '{"seed": "x", "eval": {"test_split": "test"}}')
    yield (tmp_path / "broken",), "not the configuration of a run"


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, run):
    for arguments, message in bad_inputs(tmp_path):
        code, out, err = run(*arguments)
        assert (code, out) == (2, ""), arguments
        assert message in err, (arguments, err)
        assert err.startswith("error: "), arguments
        assert err.count("\n") == 1, arguments


@pytest.mark.parametrize("given", ["{}", "{}/", "{}/../good"])
def test_the_baseline_may_be_the_path_of_a_source(tmp_path, run, given):
    good = make_workdir(tmp_path / "good", evaluation(0), batch_size=64)
    bad = make_workdir(tmp_path / "bad", evaluation(1), batch_size=65)
    expected = run(f"a={good}", bad, "--baseline", "a")
    assert expected[0] == 0
    assert run(f"a={good}", bad, "--baseline", given.format(good)) == expected
    code, _, errors = run(good, bad, "--baseline", tmp_path)
    assert code == 2
    assert "no such row; expected a source, or one of good, bad" in errors
