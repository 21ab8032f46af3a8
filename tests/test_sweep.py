"""A sweep through its command: grid, seeds, side by side, stopped and started again, and its table."""

import os
import signal
import subprocess
import time

import pytest
from front_door import LIGHT, TINY, command, train_lines

from mhcvse_jax import sweep
from mhcvse_jax.errors import InputError


def test_points_of_a_grid_have_names_and_overrides():
    assert sweep.grid_points([]) == {"runs": []}
    assert sweep.grid_points([["model.fusion", "concat", "adap_sum"], ["loss.margin", "0.1"]]) == {
        "fusion_concat_margin_0.1": ["model.fusion=concat", "loss.margin=0.1"],
        "fusion_adap_sum_margin_0.1": ["model.fusion=adap_sum", "loss.margin=0.1"],
    }
    clash = sweep.grid_points([["loss.consensus_weight", "1"], ["eval.consensus_weight", "0"]])
    assert list(clash) == ["loss.consensus_weight_1_eval.consensus_weight_0"]
    assert list(sweep.grid_points([["text.word_vectors_path", "a/b.txt"]])) == ["word_vectors_path_a-b.txt"]


@pytest.mark.parametrize(
    ("grid", "message"),
    [([["loss.margin"]], "no value"), ([["loss.margin", "1"], ["loss.margin", "2"]], "twice")],
)
def test_grids_that_make_no_sense_are_refused(grid, message):
    with pytest.raises(InputError, match=message):
        sweep.grid_points(grid)


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7,9")
    assert sweep.gpu_shares(1) == [None]
    assert sweep.gpu_shares(2) == ["3,5", "6,7"]
    with pytest.raises(InputError, match="expected one a job"):
        sweep.gpu_shares(6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sweep.gpu_shares(3) == [None] * 3


def test_nothing_starts_where_one_point_is_wrong(tmp_path, capfd):
    arguments = ["--config", "configs/demo.py", "--out", str(tmp_path / "out"), "--grid", "model.fusion", "concat"]
    assert sweep.main([*arguments, "no_such"]) == 2
    assert "config.model.fusion is 'no_such'" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.once
def test_a_sweep_that_was_stopped_goes_on_and_ends_in_a_table(finished, tmp_path):
    out = tmp_path / "out"
    values = [value for value in (*TINY, *LIGHT) if not value.startswith("log.")]
    values += ["data.format=scan", f"data.dir={finished[0] / 'scenes'}", "log.every_steps=1", "num_epochs=1"]
    whole = command(
        *("sweep", "--config", "configs/demo.py", "--out", out, "--jobs", "2"),
        *("--grid", "loss.margin", "0.1", "0.2", "--set", *values),
    )
    workdirs = [out / f"margin_{margin}_seed0" for margin in ("0.1", "0.2")]
    process = subprocess.Popen(**whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 400
        while not all((workdir / "metrics.jsonl").exists() and train_lines(workdir) for workdir in workdirs):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=400)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it ends its own
            process.communicate(timeout=400)
    assert process.returncode == 75, errors
    # Both have saved themselves: the lock is free and there is a step.
    assert all(any((workdir / "checkpoints").glob("[0-9]*")) for workdir in workdirs)
    stopped = [(workdir / "results.json").exists() for workdir in workdirs]

    done = subprocess.run(**whole, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for workdir, was_finished in zip(workdirs, stopped, strict=True):
        assert [line["step"] for line in train_lines(workdir) if line["kind"] == "train"] == list(range(1, 19))
        log = (out / f"{workdir.name}.log").read_text()
        assert was_finished or (log.count("\nstopped"), log.count("results in")) == (1, 1)
    table = (out / "sweep.md").read_text()
    assert all(rf"| margin\_{margin} |" in table for margin in ("0.1", "0.2"))

    before = [os.stat(workdir / "results.json").st_mtime_ns for workdir in workdirs]
    done = subprocess.run(**whole, capture_output=True, timeout=600)
    assert "2 of 2 runs are finished already" in done.stdout
    assert [os.stat(workdir / "results.json").st_mtime_ns for workdir in workdirs] == before

    # What is finished is of the same settings and data, or not taken for it.
    for change, message in (("loss.margin=0.3", "config.loss.margin"), (f"data.dir={tmp_path}", "config.data.dir")):
        run = sweep.Run("margin_0.1", 0, out, "configs/demo.py", [*values, "loss.margin=0.1", change])
        with pytest.raises(InputError, match=message):
            sweep.train([run], jobs=1)


def test_points_of_one_name_are_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"two points are named word_vectors_path_dir-header.vec, as letters"):
        sweep.grid_points([["text.word_vectors_path", "dir/header.vec", "dir-header.vec"]])
