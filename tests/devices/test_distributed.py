"""Two processes of two CPU devices each, through launch/local.sh, against one process of four: real processes."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import NamedTuple

import jax
import numpy as np
import pytest
from front_door import ROOT, command, run, tiny, train_lines

from mhcvse_jax import build_tfds
from mhcvse_jax import config as config_lib
from mhcvse_jax.data import batches
from mhcvse_jax.devices import distributed
from mhcvse_jax.errors import InputError, PeerLostError
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment

BATCH, EPOCHS, TRAIN, DEV = 60, 2, 60, 20
STEPS = 5 * TRAIN // BATCH
# A large eps: a gradient that is zero but for rounding would else become a full step of either sign.
STABLE = (
    *(f"batch_size={BATCH}", f"num_epochs={EPOCHS}", "log.matches=0", "log.every_steps=1", "optimizer.adam_eps=1e-3"),
    *("model.consensus_norm=layer", "model.fusion=concat"),
)
SECONDS = 400  # that a job may take on a busy machine


class Job:
    """launch/local.sh with two processes of two devices; ends what it started."""

    def __init__(self, record, *arguments, **environment):
        record.mkdir(exist_ok=True)
        self._record = record
        python = record / "python"
        python.write_text(
            f'#!/bin/sh\n[ "$1" = -m ] && exec {sys.executable} {ROOT}/tests/recording.py "$@"\n'
            f'exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        whole = command("main", num_devices=2)
        whole["args"] = [str(ROOT / "launch" / "local.sh"), "2", *map(str, arguments)]
        whole["env"] |= {"PYTHON": str(python), "PYTHONPATH": str(ROOT), "RECORD_DIR": str(record), **environment}
        self.process = subprocess.Popen(**whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def pid(self, number):
        return int((self._record / f"process_{number}.pid").read_text())

    def reads(self, number):
        return json.loads((self._record / f"process_{number}.json").read_text())

    def wait(self):
        """Returns exit code, stdout and stderr."""
        output, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, output, errors

    def wait_until(self, condition):
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            for number in (0, 1):
                with contextlib.suppress(OSError):
                    os.kill(self.pid(number), signal.SIGKILL)
            self.process.kill()
            self.process.communicate()


def scenes(directory, workdir, *, form="scan"):
    return tiny(workdir, *STABLE, f"data.format={form}", f"data.dir={directory}")


class Outcome(NamedTuple):
    """What a job left."""

    code: int
    output: str
    errors: str
    reads: list  # of each process


def steps_done(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b'"train"') if path.exists() else 0


def outcome(job, number=None, *, when=lambda: True):
    """What a job leaves, after a signal to process 1 where there is one."""
    if number is not None:
        job.wait_until(when)
        os.kill(job.pid(1), number)
    return Outcome(*job.wait(), [job.reads(process) for process in (0, 1)])


class Jobs(NamedTuple):
    """One run in three starts of two processes."""

    workdir: pathlib.Path
    stopped: Outcome
    stopped_at: int
    killed: Outcome
    seconds_to_end: float  # after the kill
    finished: Outcome


@pytest.fixture(scope="module")
def jobs(finished, tmp_path_factory):
    """SIGUSR1 to process 1, then SIGKILL to it, each in the middle of an epoch; the rest is read from tfds."""
    directory = tmp_path_factory.mktemp("two")
    assert build_tfds.main([str(finished[0] / "scenes"), str(directory / "tfds")]) == 0
    workdir = directory / "run"
    arguments = scenes(finished[0] / "scenes", workdir)
    with Job(directory / "stopped", *arguments, SCARCE_MEMORY="1") as job:
        stopped = outcome(job, signal.SIGUSR1, when=lambda: steps_done(workdir) >= 2)
    stopped_at = train_lines(workdir)[-1]["step"]
    with Job(directory / "killed", *arguments, MHCVSE_GRACE_SECONDS="2") as job:
        job.wait_until(lambda: steps_done(workdir) > stopped_at)
        started = time.monotonic()
        killed = outcome(job, signal.SIGKILL)
        seconds = time.monotonic() - started
        with pytest.raises(ProcessLookupError):
            os.kill(job.pid(0), 0)
    with Job(directory / "finished", *scenes(directory / "tfds", workdir, form="tfds")) as job:
        last = outcome(job)
    return Jobs(workdir, stopped, stopped_at, killed, seconds, last)


@pytest.fixture(scope="module")
def one(finished, tmp_path_factory):
    """A run of one process with as many devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    done = run("main", *scenes(finished[0] / "scenes", workdir), num_devices=4)
    assert done.returncode == 0, done.stderr
    return workdir


def assert_same_run(found, expected, *, validated=EPOCHS * 3):
    """Losses to the order of float32 sums, recalls and every rank of the test exactly."""
    lines = [train_lines(workdir) for workdir in (found, expected)]
    assert [(x["step"], x["kind"]) for x in lines[0]] == [(x["step"], x["kind"]) for x in lines[1]]
    for a, b in zip(*lines, strict=True):
        if a.pop("kind") == "train":
            assert a == pytest.approx({name: b[name] for name in a}, rel=2e-5, abs=1e-6)
        else:
            assert a == {name: b[name] for name in a}
    assert len(lines[0]) == EPOCHS * STEPS + validated
    ranks = [Evaluation.load(workdir / "ranks.npz").ranks[1] for workdir in (found, expected)]
    for kind, of_kind in ranks[0].items():
        np.testing.assert_array_equal(of_kind.i2t, ranks[1][kind].i2t)
        np.testing.assert_array_equal(of_kind.t2i, ranks[1][kind].t2i)


@pytest.mark.slow
def test_two_processes_do_as_one_however_often_they_are_ended(jobs, one):
    """Negatives and batch are global, the splits of 20 pictures and 100 captions uneven over 4 devices and batches."""
    assert jobs.finished.code == 0, jobs.finished.errors
    assert_same_run(jobs.workdir, one)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(jobs):
    assert jobs.stopped.code == 75, jobs.stopped.errors
    assert jobs.stopped.errors.count("stopped and saved; the same command resumes from here") == 1
    assert 2 <= jobs.stopped_at <= STEPS
    assert f"resuming  at step {jobs.stopped_at}," in jobs.killed.output


@pytest.mark.slow
def test_a_killed_process_ends_the_job(jobs):
    assert jobs.killed.code == 128 + signal.SIGKILL
    assert "process 1 of 2 was killed (SIGKILL)" in jobs.killed.errors
    assert "Traceback" not in jobs.killed.errors
    assert jobs.seconds_to_end < 60  # far less than the 100 after which a silent process is missed
    assert f"resuming  at step {jobs.stopped_at}," in jobs.finished.output


@pytest.mark.slow
def test_processes_of_unlike_memory_choose_alike_and_keep_to_it(jobs):
    assert (
        "features  read from the host as steps need them: 0.00 GB in float32, more than half of" in jobs.stopped.output
    )
    assert (
        "features  read from the host as steps need them: 0.00 GB in float32, as the run began" in jobs.finished.output
    )


@pytest.mark.slow
def test_each_process_reads_its_share(jobs):
    """Of each batch the half that its devices hold; of a split that is encoded, its own pictures."""
    for process in (0, 1):
        rows = slice(process * BATCH // 2, (process + 1) * BATCH // 2)
        wanted = [
            batches.captions_of_step(5 * TRAIN, step, batch_size=BATCH, seed=0, epoch=epoch)[rows] // 5
            for epoch in range(EPOCHS)
            for step in range(STEPS)
        ]
        first_epoch = Counter(np.concatenate(wanted[:STEPS]).tolist())
        rest = Counter(np.concatenate(wanted[jobs.stopped_at :]).tolist())
        fingerprint = Counter(range(TRAIN) if process == 0 else ())  # of so few pictures it takes all
        assert Counter(jobs.stopped.reads[process][f"MappedRegions {TRAIN}"]) == first_epoch + fingerprint
        read = Counter(jobs.finished.reads[process][f"RecordRegions {TRAIN}"])
        assert read == rest + fingerprint + Counter([0])  # picture 0 is looked at when the data are opened
    first, second = (set(read[f"RecordRegions {DEV}"]) for read in jobs.finished.reads)
    assert (first, second) == (set(range(DEV)), {0, *range(16, DEV)})


@pytest.mark.slow
def test_one_process_speaks_and_writes(jobs, one):
    assert jobs.finished.output.count("reading ") == jobs.finished.output.count("results in") == 1
    assert "devices   4 x cpu" in jobs.finished.output
    names = [{str(file.relative_to(path)) for file in path.iterdir()} for path in (jobs.workdir, one)]
    assert names[0] == names[1]
    assert len(list((jobs.workdir / "tensorboard").iterdir())) == 3  # one a start
    assert not list(jobs.workdir.rglob("*.partial"))


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_restored_on_any_number_of_devices(jobs):
    saved = jobs.workdir / "checkpoints" / str(EPOCHS * STEPS) / "model"
    assert {path.name for path in saved.glob("ocdbt.process_*")} == {"ocdbt.process_0", "ocdbt.process_1"}
    config = config_lib.load(jobs.workdir / "config.json")
    language = reading.load_language(jobs.workdir, config)
    found = []
    for number in (1, 2, 4):
        experiment = Experiment.assemble(config, jobs.workdir, language, devices=jax.devices()[:number])
        variables, progress = experiment.restore_best()
        assert all(len(leaf.sharding.device_set) == number for leaf in jax.tree.leaves(variables))
        assert progress.epochs_done in (1, EPOCHS)
        found.append(jax.device_get(variables))
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])


@pytest.mark.once
def test_two_processes_score_pairs_as_one(finished, tmp_path):
    def arguments(workdir):
        given = scenes(finished[0] / "scenes", workdir)
        return [str(each).replace("configs/demo.py", "configs/cross_attention_demo.py") for each in given]

    done = run("main", *arguments(tmp_path / "one"), num_devices=4)
    assert done.returncode == 0, done.stderr
    with Job(tmp_path / "record", *arguments(tmp_path / "two")) as job:
        code, _, errors = job.wait()
    assert code == 0, errors
    assert_same_run(tmp_path / "two", tmp_path / "one", validated=EPOCHS)


@pytest.mark.slow
def test_what_all_processes_find_wrong_is_said_once(tmp_path):
    arguments = ("--config", "configs/demo.py", "--config.batch_size=15", "--workdir", tmp_path / "run")
    with Job(tmp_path / "record", *arguments) as job:
        code, _, errors = job.wait()
    assert code == 2
    assert errors == "error: config.batch_size is 15, which the 4 devices do not divide\n"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MHCVSE_NUM_PROCESSES": "2"}, "set without MHCVSE_COORDINATOR, MHCVSE_PROCESS_ID"),
        ({"MHCVSE_COORDINATOR": "host", "MHCVSE_NUM_PROCESSES": "2", "MHCVSE_PROCESS_ID": "1"}, "expected HOST:PORT"),
        ({"MHCVSE_COORDINATOR": "h:1", "MHCVSE_NUM_PROCESSES": "2", "MHCVSE_PROCESS_ID": "2"}, "expected 0 to 1"),
        ({"MHCVSE_COORDINATOR": "h:1", "MHCVSE_NUM_PROCESSES": "two", "MHCVSE_PROCESS_ID": "0"}, "'two'; expected"),
    ],
)
def test_variables_that_do_not_make_a_cluster_are_named(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        distributed.initialize()
    assert not distributed.is_several()


def test_one_process_asks_nobody(tmp_path):
    assert distributed.from_first(lambda: pathlib.Path("as it is")) == pathlib.Path("as it is")
    assert distributed.leave(3, together=False) == 3
    distributed.raise_peer_lost(RuntimeError("Gloo all-reduce failed: Connection closed by peer"))


@pytest.mark.parametrize(
    ("message", "is_lost"),
    [
        ("FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:3", True),
        ("UNAVAILABLE: Failed to send RPC to coordination service.", True),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 bytes", False),
    ],
)
def test_errors_of_lost_processes_are_told_from_others(monkeypatch, message, is_lost):
    monkeypatch.setattr(distributed, "is_several", lambda: True)
    with pytest.raises(PeerLostError) if is_lost else contextlib.nullcontext():
        distributed.raise_peer_lost(RuntimeError(message))
