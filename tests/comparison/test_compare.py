"""What `compare` makes of runs: recalls, intervals, seeds, unlike rows, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest
from compared import HEADER, IDS, OWNER, evaluation, make_workdir, table

from mhcvse_jax.comparison import bootstrap, formats, seeds
from mhcvse_jax.comparison.entry import Hits, hits_of
from mhcvse_jax.evaluation.evaluation import Evaluation


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
    yield (file("a.txt", ""),), "unknown kind of source"
    yield (tmp_path,), "no config.json in it"
    yield (workdir, same), "the same configuration and the same seed, 0"
    yield (workdir, other), "two sources are named 'run'"
    yield (f"a={workdir}", f"a={other}"), "two sources are named 'a'"
    yield (workdir, "--baseline", "nothing"), "--baseline nothing: no such row; expected a source, or one of run"
    yield (workdir, "--output", tmp_path / "absent" / "x.md"), "no such directory"
    yield (workdir, "--output", workdir), "is a directory; expected a file name"
    yield (workdir, "--output", tmp_path / "x.pdf"), "expected .txt, .md, .csv or .html, or --format"
    yield (workdir, "--seed", "-1"), "--seed is -1"
    yield (workdir, "--split", "testall"), "has no results of testall under standard"
    yield (file("b.csv", f"{HEADER.replace('t2i_r5,', '')}\n"),), "b.csv: no column t2i_r5; expected name, i2t_r1"
    yield (file("c.csv", ""),), "no column name"
    yield (file("d.csv", f"{HEADER}\n{good.replace('70', 'high')}\n"),), "line 2: i2t_r5 is 'high'; expected a number"
    yield (file("e.csv", f"{HEADER}\n{good.replace('70', 'nan')}\n"),), "line 2: i2t_r5 is 'nan'"
    yield (file("f.csv", f"{HEADER}\n{good.replace('75', '175')}\n"),), "a recall of 175; expected percent"
    yield (file("g.csv", f"{HEADER}\nS,.6,.7,.8,.5,.6,.75\n"),), "expected percent, not fractions"
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


@pytest.mark.parametrize("given", ["{}", "{}/", "{}/../good", "a={}"])
def test_the_baseline_may_be_the_path_of_a_source(tmp_path, run, given):
    good = make_workdir(tmp_path / "good", evaluation(0), batch_size=64)
    bad = make_workdir(tmp_path / "bad", evaluation(1), batch_size=65)
    expected = run(f"a={good}", bad, "--baseline", "a")
    assert expected[0] == 0
    assert run(f"a={good}", bad, "--baseline", given.format(good)) == expected
    code, _, errors = run(good, bad, "--baseline", tmp_path)
    assert code == 2
    assert "no such row; expected a source, or one of good, bad" in errors


def test_several_seeds_on_both_sides_have_their_spread_in_the_interval(tmp_path, run):
    workdirs = [
        make_workdir(tmp_path / f"{name}_{seed}", evaluation(seed, best), seed=seed, batch_size=64 + best)
        for name, best in (("good", 1), ("bad", 4))
        for seed in (1, 2, 3)
    ]
    code, out, _ = run(*workdirs, "--baseline", "bad", "--format", "csv")
    assert code == 0
    row = table(out)["good"]
    runs = [[hits_of(evaluation(seed, best).ranks[1]["fused"], OWNER) for seed in (1, 2, 3)] for best in (1, 4)]
    expected = seeds.differences([runs[0]], runs[1], num_draws=10_000, seed=0)[0]
    for measure, seen in expected.items():
        assert float(row[f"{measure}_low"]) == pytest.approx(seen.interval.low)
        assert row[f"{measure}_seeds_needed"] == ("" if seen.seeds_needed is None else str(seen.seeds_needed))
    code, out, _ = run(*workdirs, "--baseline", "bad")
    assert "seeds to see it" in out
    assert "95% intervals of good: paired bootstrap, 10,000 draws" in out
    assert "They do not include the spread between seeds" not in out
    code, out, _ = run(workdirs[0], *workdirs[3:], "--baseline", "bad")
    assert "seeds to see it" not in out
    assert "95% intervals of good_1: paired" in out
    assert "They do not include the spread between seeds, which needs several seeds on both sides" in out
