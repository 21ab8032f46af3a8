"""What a run writes beside its results: checkpoints, metrics, warnings."""

import json
import math
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mhcvse_jax import config as config_lib
from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.experiment import training_parts
from mhcvse_jax.run.resume import check_workdir
from mhcvse_jax.training.checkpoint import Checkpoints, Progress, SavedCheckpoints
from mhcvse_jax.training.metrics_log import MetricsLog
from mhcvse_jax.training.step import TrainState
from mhcvse_jax.training.watches import CollapseWatch, NonFiniteWatch


def state_at(step, width=3):
    params = {"layer": {"kernel": jnp.arange(5.0 * width).reshape(5, width) + step}}
    return TrainState(
        step=jnp.array(step, jnp.int32),
        params=params,
        batch_stats={"norm": {"mean": jnp.full(width, step + 0.5)}},
        opt_state=optax.adam(0.1).init(params),
        key=jax.random.key(step),
    )


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = (jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v for v in (x, y))
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_checkpoint_comes_back_whole_on_any_devices(tmp_path, num_devices):
    progress = Progress(best_rsum=77.5, best_step=20, epochs_done=2, epochs_without_better=1, train_seconds=3.25)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(20), progress, rsum=77.5)
    checkpoints.close()
    mesh = make_mesh(jax.devices()[:num_devices])
    again = Checkpoints(tmp_path)
    state, found = again.restore(state_at(0), again.newest_step(), mesh)
    assert_same(state, state_at(20))
    assert found == progress
    assert state.params["layer"]["kernel"].sharding.num_devices == num_devices
    like = {"params": state_at(0).params, "batch_stats": state_at(0).batch_stats}
    assert_same(again.restore_model(like, 20, mesh)["params"], state_at(20).params)
    again.close()


def test_the_best_and_the_latest_are_kept(tmp_path):
    checkpoints, progress = Checkpoints(tmp_path), Progress()
    for step, rsum in [(10, 50.0), (20, 70.0), (30, 70.0), (35, None), (40, 65.0)]:
        if rsum is not None:
            progress.record(rsum, step)
        checkpoints.save(state_at(step), progress, rsum)
        checkpoints.wait()
    checkpoints.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [20, 40]
    assert (progress.best_step, progress.best_rsum, progress.epochs_without_better) == (20, 70.0, 2)


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(20), Progress(), rsum=1.0)
    checkpoints.wait()
    with pytest.raises(InputError, match=r"20: not a .* model: batch_stats/norm/mean is \(3,\); expected \(7,\)"):
        checkpoints.restore(state_at(0, width=7), 20, make_mesh(jax.devices()[:1]))
    other = state_at(0)
    like = {"params": {"layer": other.params["layer"] | {"bias": np.zeros(3)}}, "batch_stats": other.batch_stats}
    with pytest.raises(InputError, match=r"params/layer/bias is missing; expected \(3,\)"):
        checkpoints.restore_model(like, 20, make_mesh(jax.devices()[:1]))
    checkpoints.close()


def test_checkpoints_that_are_to_be_read_are_not_made(tmp_path):
    with pytest.raises(InputError, match="absent: no epoch has been validated yet"):
        SavedCheckpoints(tmp_path / "absent").step_to_test()
    assert not (tmp_path / "absent").exists()


def test_the_best_is_still_the_best_after_a_restart(tmp_path):
    progress = Progress()
    for step, rsum in [(10, 70.0), (20, 50.0), (30, 60.0)]:
        checkpoints = Checkpoints(tmp_path)
        progress.record(rsum, step)
        checkpoints.save(state_at(step), progress, rsum)
        checkpoints.close()
    assert SavedCheckpoints(tmp_path).steps() == [10, 30]
    assert SavedCheckpoints(tmp_path).step_to_test() == 10


def test_every_file_of_a_checkpoint_is_verified(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "run", keep_latest=2)
    for step in (10, 20):
        checkpoints.save(state_at(step), Progress(best_step=20, best_rsum=1.0), rsum=1.0)
    checkpoints.close()
    step = tmp_path / "run" / "20"
    files = [path for path in step.rglob("*") if path.is_file() and path.name != "_CHECKPOINT_METADATA"]
    files.remove(step / "commit_success.txt")
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], bytes([content[0] ^ 1]) + content[1:], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            found = SavedCheckpoints(tmp_path / "run")
            assert (found.newest_step(), found.step_to_test()) == (10, 10)
            warned = capsys.readouterr().err
            assert f"20 is not used: {path.relative_to(step)} is" in warned
            assert "best checkpoint, step 20, is lost; using step 10 instead" in warned
        path.write_bytes(content)
    assert SavedCheckpoints(tmp_path / "run").newest_step() == 20
    assert not capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_fails_the_run(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(RunFailedError, match="20: checkpoint not written: "):  # noqa: PT012 (saving is asynchronous)
        checkpoints.save(state_at(20), Progress())
        checkpoints.wait()


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_log_drops_what_was_logged_after_the_checkpoint(tmp_path):
    log = MetricsLog(tmp_path, resume_step=0)
    for step in range(1, 8):
        log.write(step, {"loss": step / 2}, kind="train")
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ki')
    log = MetricsLog(tmp_path, resume_step=5)
    log.write(6, {"loss": 99.0}, kind="train")
    log.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [
        *((step, step / 2) for step in range(1, 6)),
        (6, 99.0),
    ]


def test_tensorboard_gets_each_step_and_where_a_start_begins(tmp_path):
    log = MetricsLog(tmp_path, resume_step=5)
    log.write(6, {"loss": 1.5, "text": "no number"}, kind="train")
    log.write(7, {"loss": float("nan")}, kind="train")
    log.close()
    assert lines(tmp_path)[1]["loss"] == "nan"
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:  # TFRecord: length, its checksum, the record, its checksum
        (length,) = struct.unpack_from("<Q", content)
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    assert [event.step for event in events] == [0, 6, 6, 7]
    assert events[1].session_log.status == SessionLog.START
    assert [(value.tag, value.simple_value) for value in events[2].summary.value] == [("train/loss", 1.5)]


def test_a_step_that_is_not_finite_is_named_and_stops_or_is_skipped_for_a_while():
    fine, wrong = {"loss": 1.0, "loss_kl": 0.0}, {"gradient_norm": math.inf, "loss": math.nan, "loss_kl": math.nan}
    stop, skip = (NonFiniteWatch(policy, 2, lambda step: [f"{step}a", f"{step}b"]) for policy in ("stop", "skip"))
    assert stop.update(3, fine, 0) is None
    with pytest.raises(RunFailedError, match=r"step 3: not finite: loss_kl nan, gradient_norm inf, loss nan.* 3a 3b"):
        stop.update(3, wrong, 0)
    assert "3a 3b; skipped, 1 of 2" in (skip.update(3, wrong, 0) or "")
    assert "skipped, 2 of 2" in (skip.update(4, wrong, 1) or "")
    with pytest.raises(RunFailedError, match="nonfinite_limit, 2, was reached"):
        skip.update(5, wrong, 2)


def test_a_collapse_is_reported_once_when_it_lasts():
    watch = CollapseWatch(lambda term, step: 51.2 if step > 5 else {"fusion": 900.0}.get(term, 0.0), patience_steps=4)
    losses = {"loss_fusion": 51.3, "loss_instance": 20.0, "loss_consensus": 48.0}
    fine = losses | {"loss_fusion": 40.0}
    seen = [losses] * 3 + [losses | {"loss_fusion": 903.0}] * 2 + [losses] + [fine] + [losses] * 3
    assert [watch.update(step, values) for step, values in enumerate(seen, start=1)] == [None] * 10
    warning = watch.update(11, losses)
    assert warning is not None
    assert "fusion loss" in warning
    assert "config.loss.negatives=soft" in warning
    assert watch.update(12, losses) is None


def test_only_a_run_that_left_a_checkpoint_holds_its_workdir(tmp_path):
    first, other = config_lib.base(), config_lib.base()
    other.batch_size = 64
    config_lib.save(first, tmp_path / "config.json")
    (tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir(parents=True)  # a kill in the first save leaves it
    check_workdir(tmp_path, other)
    (tmp_path / "checkpoints" / "7").mkdir()
    check_workdir(tmp_path, first)
    with pytest.raises(InputError, match=r"holds a run with config\.batch_size=128, not 64"):
        check_workdir(tmp_path, other)


def test_all_negatives_may_count_for_ever():
    config = config_lib.base()
    for epochs, steps in ((0.0, 0), (0.5, 117), (1e30, 30 * 234), (math.inf, 30 * 234)):
        config.loss.all_negatives_epochs = epochs
        assert training_parts.all_negatives_steps(config, 234) == steps
