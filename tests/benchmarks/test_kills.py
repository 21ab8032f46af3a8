"""A handful of the kills of `benchmarks.kills`, which the benchmark deals out by the hundred."""

import json
import shutil

import numpy as np
import pytest

from benchmarks import kills
from mhcvse_jax.errors import RunFailedError


@pytest.mark.once
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path, capfd):
    code = kills.main(["--kills", "2", "--out", str(tmp_path), "--seed", "3"])
    output, errors = capfd.readouterr()
    assert code == 0, errors
    assert "2 kills (" in output.splitlines()[-1]
    assert "equal those of the undisturbed run, bit for bit" in output.splitlines()[-1]
    assert len(kills.lines(tmp_path / "undisturbed")) == 2 * (15 + 3)

    # What is compared is seen.
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "killed", other)
    assert kills.compare(other, tmp_path / "undisturbed") > 10_000
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(RunFailedError, match=r"metrics\.jsonl is not that of"):
        kills.compare(other, tmp_path / "undisturbed")
    (other / "metrics.jsonl").write_text("".join(lines))
    results = json.loads((other / "results.json").read_text())
    results["results"][0]["rsum"] += 1
    (other / "results.json").write_text(json.dumps(results))
    with pytest.raises(RunFailedError, match=r"results\.json is not that of"):
        kills.compare(other, tmp_path / "undisturbed")


def test_one_bit_of_one_parameter_is_seen(tmp_path, monkeypatch):
    arrays = {"a": np.float32([1, 2]), "b": np.float32([3])}
    other = arrays | {"a": np.nextafter(arrays["a"], 9)}
    found = {tmp_path / "one": arrays, tmp_path / "two": other}
    monkeypatch.setattr(kills, "parameters", found.get)
    with pytest.raises(RunFailedError, match="a is not that of"):
        kills.compare(tmp_path / "one", tmp_path / "two")
