"""Runs that are stopped, killed, damaged, shared or out of room, through the front door: real processes, real files."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from front_door import LIGHT, Started, command, run, tiny, train_lines

from mhcvse_jax.training.checkpoint import SavedCheckpoints

STEPS = 300 // 16  # of an epoch


def wait_until(condition, process, seconds=400):
    """Returns once the condition holds; fails where the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def logged(workdir):
    """Lines written of steps that are done, whole or not."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def parameters(workdir, step):
    """The arrays of a checkpoint, by their paths."""
    found = {}
    for item in ("model", "training"):
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(workdir / "checkpoints" / str(step) / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            found[item + jax.tree_util.keystr(path)] = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return found


def assert_same_run(workdir, expected):
    """Metrics, results, steps kept and every number in the last checkpoint: bit for bit."""
    assert train_lines(workdir) == train_lines(expected)
    results = [json.loads((path / "results.json").read_text()) for path in (workdir, expected)]
    assert results[0]["results"] == results[1]["results"]
    step = 2 * STEPS
    found, wanted = parameters(workdir, step), parameters(expected, step)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    progress = [SavedCheckpoints(path / "checkpoints").restore_progress(step) for path in (workdir, expected)]
    for one in progress:
        one.train_seconds = 0.0
    assert progress[0] == progress[1]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.once), signal.SIGTERM])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(finished, tmp_path, number):
    workdir = tmp_path / "stopped"
    process = Started("main", *tiny(workdir))
    try:
        wait_until(lambda: logged(workdir), process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 75, errors
    assert "the same command resumes" in errors
    stopped_at = train_lines(workdir)[-1]["step"]
    assert stopped_at < 2 * STEPS
    of_an_earlier_checkpoint = workdir / "ranks_dev_standard.npz"
    of_an_earlier_checkpoint.touch()
    done = run("main", *tiny(workdir))
    assert done.returncode == 0, done.stderr
    assert f"resuming  at step {stopped_at}" in done.stdout
    assert not of_an_earlier_checkpoint.exists()
    assert_same_run(workdir, finished[0])
    # Trained, and stopped before the test was written: the test alone is done again.
    (workdir / "results.json").unlink()
    assert run("main", *tiny(workdir)).returncode == 0
    assert_same_run(workdir, finished[0])


@pytest.mark.once
def test_a_terminal_that_closes_ends_the_run_saved(tmp_path):
    """A window or a connection is gone: the kernel sends SIGHUP, and there is nowhere left to print to."""
    workdir = tmp_path / "run"
    whole = command("main", *tiny(workdir, "num_epochs=400"))
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    within = f'exec "$@" <{os.ttyname(theirs)} >{os.ttyname(theirs)} 2>&1'  # opened by its session, it rules it
    whole |= {"args": ["sh", "-c", within, "sh", *whole["args"]]}
    process = subprocess.Popen(**whole, start_new_session=True)
    try:

        def has_logged():
            with contextlib.suppress(BlockingIOError):
                os.read(ours, 1 << 16)
            return logged(workdir)

        wait_until(has_logged, process)
        os.close(theirs)
        os.close(ours)
        assert process.wait(timeout=400) == 75
    finally:
        process.kill()
    last = [line["step"] for line in train_lines(workdir) if line["kind"] == "train"][-1]
    assert SavedCheckpoints(workdir / "checkpoints").newest_step() == last


@pytest.mark.once
def test_several_steps_in_a_dispatch_are_gone_on_with_to_the_bit(finished, tmp_path):
    """Features on the device, four steps at once; stopped between two dispatches."""
    more = (*LIGHT, "data.placement=device", "data.format=scan", f"data.dir={finished[0]}/scenes", "log.matches=0")
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "stopped"
    assert run("main", *tiny(undisturbed, *more, "steps_per_dispatch=4")).returncode == 0
    process = Started("main", *tiny(workdir, *more, "steps_per_dispatch=4"))
    try:
        wait_until(lambda: logged(workdir), process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 75, errors
    assert train_lines(workdir)[-1]["step"] < 2 * STEPS
    done = run("main", *tiny(workdir, *more, "steps_per_dispatch=4"))
    assert done.returncode == 0, done.stderr
    assert "features  on the devices, replicated" in done.stdout
    assert_same_run(workdir, undisturbed)


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again_ends_as_one_that_was_not(finished, tmp_path):
    """SIGKILL while it starts, while it saves, within an epoch, and while it validates."""
    workdir = tmp_path / "killed"
    saves_often = tiny(workdir, "checkpoint.every_minutes=0.0001")
    checkpoints = workdir / "checkpoints"
    moments = [
        lambda: workdir.exists(),
        lambda: any(checkpoints.glob("*tmp*")),
        lambda: logged(workdir) >= 12,
        lambda: any(checkpoints.glob(f"{STEPS}*tmp*")),
        lambda: logged(workdir) >= STEPS + 10,
    ]
    for moment in moments:
        process = Started("main", *saves_often)
        try:
            wait_until(moment, process)
        finally:
            process.kill()
            process.communicate()
    done = run("main", *saves_often)
    assert done.returncode == 0, done.stderr
    assert "resuming  at step" in done.stdout
    assert_same_run(workdir, finished[0])
    assert not any(checkpoints.glob("*tmp*"))


def test_what_was_logged_up_to_a_checkpoint_is_on_disk_when_it_is(tmp_path):
    """Killed right after an epoch is saved: its recalls on dev would not be written again."""
    workdir, steps = tmp_path / "killed", 300 * 5 // 4
    # The next epoch takes seconds, and nothing else is written in it.
    more = ("log.every_steps=1000", "data.scenes.num_train=300", "batch_size=4")
    process = Started("main", *tiny(workdir, *LIGHT, *more))
    try:
        wait_until(lambda: (workdir / "checkpoints" / str(steps)).is_dir(), process)
    finally:
        process.kill()
        process.communicate()
    kinds = [line["kind"] for line in train_lines(workdir) if line["step"] == steps]
    assert kinds == ["train", "dev_fused"]


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run without its results, to be damaged."""
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    return tmp_path / "run"


def flip_a_bit(step):
    path = max(step.rglob("model/ocdbt*/d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def truncate(step):
    path = max((step / "training").rglob("d/*"), key=lambda file: file.stat().st_size)
    path.write_bytes(path.read_bytes()[:-7])


def delete_a_file(step):
    (step / "progress" / "metadata").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "is not used: model/ocdbt.process_0/d/"),
        (truncate, "its SHA-256 is not the one"),
        (delete_a_file, "progress/metadata is missing"),
        (shutil.rmtree, "is missing: deleted"),
    ],
)
def test_a_damaged_step_is_named_and_not_used(copied, capsys, damage, message):
    damage(copied / "checkpoints" / str(2 * STEPS))
    assert SavedCheckpoints(copied / "checkpoints").newest_step() == STEPS
    errors = capsys.readouterr().err
    assert f"checkpoints/{2 * STEPS} is" in errors
    assert message in errors


@pytest.mark.parametrize("damage", [flip_a_bit, shutil.rmtree])
def test_a_run_goes_on_from_the_step_before_the_damaged_one(finished, copied, damage):
    damage(copied / "checkpoints" / str(2 * STEPS))
    done = run("main", *tiny(copied))
    assert done.returncode == 0, done.stderr
    assert f"checkpoints/{2 * STEPS} is" in done.stderr
    assert f"resuming  at step {STEPS}," in done.stdout
    assert_same_run(copied, finished[0])


def test_evaluate_names_damage_and_leaves_it_where_it_is(copied):
    flip_a_bit(copied / "checkpoints" / str(2 * STEPS))
    done = run("evaluate", "--workdir", copied)
    assert done.returncode == 0
    assert f"checkpoints/{2 * STEPS} is not used: model/" in done.stderr
    assert f"checkpoint of step {STEPS}" in done.stdout  # what is tested, not what was best
    assert (copied / "checkpoints" / str(2 * STEPS)).exists()
    flip_a_bit(copied / "checkpoints" / str(STEPS))
    for done in (run("evaluate", "--workdir", copied), run("main", *tiny(copied))):
        assert done.returncode == 2
        assert "no sound checkpoint is left" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_workdir_in_use_is_refused(tmp_path):
    endless = tiny(tmp_path / "run", *LIGHT, "num_epochs=5000", "patience_epochs=5000")
    first = Started("main", *endless)
    try:
        wait_until(lambda: logged(tmp_path / "run"), first)
        second = run("main", *endless)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 2
    assert f"is in use by process {first.pid} on" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    wrong = tiny(tmp_path / "wrong", *LIGHT, "optimizer.learning_rate=1e38", "optimizer.warmup_epochs=0")
    done = run("main", *wrong)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("failed: step ")
    assert ": not finite: loss_" in last
    ids = last.split("pictures of its batch: ")[1].split(". The last")[0].split()
    assert len(ids) == 16
    known = (tmp_path / "wrong" / "scenes" / "train_ids.txt").read_text().split()
    assert set(ids) <= set(known)
    assert "Traceback" not in done.stderr
    # Skipping has a limit.
    done = run("main", *wrong, "--config.optimizer.nonfinite_steps=skip", "--config.optimizer.nonfinite_limit=3")
    assert done.returncode == 3
    assert "skipped, 3 of 3" in done.stdout
    assert "config.optimizer.nonfinite_limit, 3, was reached" in done.stderr


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_run_with_one_line(finished, tmp_path):
    more = ("data.format=scan", f"data.dir={finished[0]}/scenes", "log.matches=0")
    whole = command("main", *tiny(tmp_path / "run", *more))
    whole["args"] = ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash", *whole["args"]]  # no file above 20 KiB
    done = subprocess.run(**whole, capture_output=True, timeout=600)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("failed: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "results.json").exists()
    done = run("main", *tiny(tmp_path / "run", *more))
    assert done.returncode == 0, done.stderr
    assert train_lines(tmp_path / "run") == train_lines(finished[0])
