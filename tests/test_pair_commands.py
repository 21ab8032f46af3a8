"""Models that score pairs, through the front door: trained, tested on all pairs, and re-ranking."""

import json

import numpy as np
import pytest
from front_door import run, train_lines
from site_of_index import ask, make_index, maps_of, serving

from mhcvse_jax.indexing.reranking import Reranker
from mhcvse_jax.terminal import progress


def results_in(workdir):
    return json.loads((workdir / "results.json").read_text())["results"]


def test_a_model_that_scores_pairs_trains_and_is_tested_on_all_of_them(pair_model):
    workdir, printed = pair_model
    assert "model     cross_attention, D 16, 2 heads: " in printed
    (row,) = results_in(workdir)
    assert (row["embedding"], row["num_images"], row["num_captions"]) == ("fused", 20, 100)
    terms = {"loss_fusion", "loss_instance", "loss_matching", "weight_matching"}
    lines = train_lines(workdir)
    assert terms <= set(lines[0])
    assert "loss_kl" not in lines[0]
    validated = [line for line in lines if line["kind"] == "dev_fused"]
    assert len(validated) == 1
    assert (workdir / "matches.png").exists()
    assert "tells the two apart" in printed


def test_re_ranking_all_candidates_is_scoring_all_pairs(finished, pair_model, tmp_path):
    output = tmp_path / "reranked.json"
    shared = ("--workdir", finished[0], "--rerank", pair_model[0], "--output", output)
    done = run("evaluate", *shared, "--rerank_top_k", 1000)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["results"] == results_in(pair_model[0]) == found["rerank"]["all_pairs"]["results"]
    assert found["rerank"]["first"]["results"] == results_in(finished[0])
    assert "test, its top 1000 by cross_attention, " in done.stdout
    few = run("evaluate", *shared, "--rerank_top_k", 3, "--rerank_only")
    assert few.returncode == 0, few.stderr
    found = json.loads(output.read_text())
    assert found["results"] != results_in(pair_model[0])
    assert "all_pairs" not in found["rerank"]


def test_models_that_cannot_re_rank_are_refused(finished, pair_model):
    for first, second, message in (
        (finished[0], finished[0], "holds mhcvse; expected a model that scores pairs"),
        (pair_model[0], pair_model[0], "scores pairs itself; expected a model with embeddings"),
    ):
        done = run("evaluate", "--workdir", first, "--rerank", second)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
    done = run("evaluate", "--workdir", finished[0], "--rerank_top_k", 3)
    assert (done.returncode, done.stdout) == (2, "")
    assert "need --rerank WORKDIR" in done.stderr
    done = run("evaluate", "--workdir", pair_model[0], "--protocol", "label_completion")
    assert done.returncode == 2
    assert "expected another, as cross_attention has no labels" in done.stderr


def test_what_a_pair_model_does_not_have_is_said(pair_model, tmp_path):
    for arguments, message in (
        (
            ("export_pytorch", pair_model[0], "--out", tmp_path / "x.tar"),
            "holds cross_attention, mean pooling; expected",
        ),
        (("compare", pair_model[0], "--embedding", "instance"), "has no instance embedding; expected fused"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


QUERY = "a red circle above a blue square"


def test_the_page_shows_where_the_model_that_re_ranks_looks(finished, pair_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    index = make_index(finished[0], tmp_path / "index")
    reranker = Reranker(pair_model[0], None)
    (first,) = index.search([QUERY], 100)
    expected = reranker.pictures(index, QUERY, first)
    with serving(index, reranker=reranker) as port:
        _, _, found = ask(port, "/api/search", q=QUERY, k=7)
        _, _, about = ask(port, "/api/index")
        _, _, seen = ask(port, "/api/explain", picture=4, q=QUERY)
    assert capsys.readouterr().out.count("pairs") == 0  # on standard output `mhcvse search --json` has JSON alone
    assert about["reranked_by"] == "cross_attention"
    assert [hit["place"] for hit in found["hits"]] == [hit.place for hit in expected[:7]]
    assert [hit.place for hit in expected] != [hit.place for hit in first]
    pair = seen["pair"]
    assert pair["words"] == ["<start>", *QUERY.split(), "<end>"]
    assert pair["score"] == pytest.approx(next(hit.score for hit in expected if hit.place == 4), abs=1e-4)
    maps = maps_of(reranker.experiment, reranker.variables, index.regions(4), QUERY)
    assert set(pair["maps"]) == {"text_to_image", "image_to_text"}
    for name, values in pair["maps"].items():
        assert len(values) == 2 * pair["layers"]  # heads
        np.testing.assert_allclose(values, getattr(maps, name)[0], atol=2e-4)
