"""What a run logged, thinned out and drawn."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mhcvse_jax.reporting import curves, plots
from mhcvse_jax.reporting.curves import Curve, Panel, Series


def log_of(tmp_path, lines):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return curves.read(path)


def test_a_log_of_a_killed_run_is_read_as_far_as_it_goes(tmp_path):
    lines = [{"step": step, "kind": "train", "loss": step / 2, "name": "text"} for step in (1, 2)]
    log = log_of(tmp_path, [*lines, {"step": 3, "kind": "train", "loss": "nan"}, "[]", '{"step": 4, "kind": "tra'])
    steps, values = log.kinds["train"]["loss"]
    np.testing.assert_array_equal(steps, [1, 2, 3])
    np.testing.assert_array_equal(values, [0.5, 1.0, np.nan])
    assert log.names("train") == ["loss"]
    assert curves.last_step(log) == 3
    assert curves.num_epochs(log) == 0


def test_no_log_is_an_empty_one(tmp_path):
    log = curves.read(tmp_path / "metrics.jsonl")
    assert curves.last_step(log) == 0
    assert curves.panels({"run": log}) == {}


@pytest.mark.parametrize("number", [1, 7, 160, 161, 1873])
def test_thinning_keeps_every_value_in_one_point(number):
    rng = np.random.default_rng(number)
    steps, values = np.arange(number) * 3, rng.normal(size=number)
    values[rng.integers(number)] = np.nan if number > 1 else 0.5
    curve = curves.thin(steps, values)
    kept = [(step, value) for step, value in zip(steps, values, strict=True) if np.isfinite(value)]
    points = min(len(kept), curves.POINTS)
    bins = [kept[place * len(kept) // points : (place + 1) * len(kept) // points] for place in range(points)]
    assert len(curve.steps) == points
    for place, one in enumerate(bins):
        numbers = [value for _, value in one]
        expected = np.mean([step for step, _ in one]), np.mean(numbers), min(numbers), max(numbers)
        np.testing.assert_allclose([part[place] for part in curve], expected)


def test_of_one_run_terms_share_a_panel_and_of_several_runs_do(tmp_path):
    lines = [
        {"step": step, "kind": "train", "loss": 3.0, "loss_kl": 1.0, "loss_fusion": 2.0}
        | {"weight_kl": 0.3, "weight_fusion": 0.5, "gradient_norm": 7.0}
        for step in range(5)
    ]
    lines += [{"step": 4 * epoch, "kind": "dev_fused", "rsum": 30.0, "i2t_r1": 1.0} for epoch in (1, 2)]
    log = log_of(tmp_path, lines)
    alone = curves.panels({"run": log}, {"loss_fusion": 51.2})
    assert [panel.title for panel in alone["Losses"]] == ["loss, all terms", "fusion loss", "KL loss"]
    assert [panel.level for panel in alone["Losses"]] == [None, 51.2, None]
    assert [one.name for one in alone["Training"][0].series] == ["fusion", "KL"]
    rsum = alone["Recall on dev by epoch"][0]
    assert (rsum.unit, rsum.series[0].curve.steps.tolist()) == ("epoch", [1, 2])
    both = curves.panels({"one": log, "other": log})
    assert [panel.title for panel in both["Training"]] == ["weight, fusion", "weight, KL", "gradient norm"]
    assert [(one.name, one.colour) for one in both["Training"][0].series] == [("one", 0), ("other", 1)]


def test_a_plot_is_svg_that_takes_its_colours_from_the_page():
    steps = np.arange(1.0, 30)
    curve = Curve(steps, steps**2, steps**2 - 1, steps**2 + 1)
    svg = plots.draw([Panel('loss "<&>', "step", [Series("", 2, curve)], 5.0, "level")])[0]
    root = ET.fromstring(svg)
    assert root.get("aria-label") == 'loss "<&> by step: from 0 to 842'
    assert root.get("width") is None
    assert "var(--series-2)" in svg
    assert "var(--ink)" in svg
    assert not re.findall("(?:fill|stroke): #|DejaVu|<style", svg)
    texts = [text.text.strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "step" in texts
    assert len(svg) < 20_000


def test_two_plots_share_no_name():
    steps = np.arange(1.0, 9)
    svgs = plots.draw([Panel("same", "epoch", [Series("", 0, Curve(*[steps * scale] * 4))]) for scale in (1, 2)])
    names = [{element.get("id") for element in ET.fromstring(svg).iter()} - {None} for svg in svgs]
    assert names[0]
    assert not names[0] & names[1]
