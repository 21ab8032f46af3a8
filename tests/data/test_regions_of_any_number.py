"""Pictures with any number of regions, through the commands: what stands behind them reaches no model."""

import json

import cvse_data
import numpy as np
import pytest
from uneven_data import REGIONS, options, write

from mhcvse_jax import main, models

WITHOUT_HEADS = ("vsepp", "cvse", "scan")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Infinity behind the regions: a file of features that is read there is refused."""
    directory, rng = write(tmp_path_factory.mktemp("any_number") / "data"), np.random.default_rng(1)
    for path in directory.glob("*_ims.npy"):
        features = np.load(path)
        numbers = rng.integers(1, REGIONS + 1, len(features)).astype(np.int32)
        features[np.arange(REGIONS) >= numbers[:, None]] = np.inf
        np.save(path, features)
        np.save(path.with_name(path.name.replace("_ims", "_num_regions")), numbers)
    return directory


@pytest.mark.once
@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_trains_and_is_tested_on_them(name, directory, tmp_path, capsys):
    heads = 0 if name in WITHOUT_HEADS else 2
    more = (f"model.name={name}", f"model.num_heads={heads}", "log.matches=0", "data.placement=host")
    code, out, errors = cvse_data.run(main, capsys, *options(directory, tmp_path / "run", *more))
    assert code == 0, errors
    assert f"1 to {REGIONS} regions of 7" in out
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(step["gradient_norm"]) for step in steps if step["kind"] == "train")
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert {row["embedding"] for row in rows} >= {"fused"}
