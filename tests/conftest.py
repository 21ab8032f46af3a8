"""Eight devices out of one CPU, so that what runs on several is tested on any machine; one finished run for all."""

import os
import shutil
import signal
import tempfile

import filelock
import front_door
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = front_door.xla_flags(8)


# A shell's background jobs, and all that they start, have Ctrl-C ignored: what the tests send is to arrive there, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# All processes of the tests, workers and programs, compile each function once among them. The workers inherit it.
COMPILED = None
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="mhcvse_jax_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_collection_modifyitems(items):
    """Slow tests come first: none starts last, and one worker gets all that share a run of two processes."""
    items.sort(key=lambda item: not any(item.iter_markers("slow")) and not any(item.iter_markers("once")))


def pytest_collection_finish():
    front_door.collect_rarely()


def pytest_unconfigure():
    front_door.stop_fork_server()
    if COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run, as a user's shell starts it, and what it printed: one for all workers."""
    return run_once(tmp_path_factory, "finished", *front_door.tiny("run"), start=front_door.run_by_itself)


@pytest.fixture(scope="session")
def pair_model(tmp_path_factory):
    """Likewise a run of a model that scores pairs, on the same scenes."""
    arguments = [each.replace("demo.py", "cross_attention_demo.py") for each in front_door.tiny("run")]
    arguments += ["--config.eval.validation_captions=50", "--config.num_epochs=1"]
    return run_once(tmp_path_factory, "pair_model", *arguments)


def run_once(tmp_path_factory, name, *arguments, start=front_door.run):
    """The workdir "run" among the arguments, of a run that one of the workers has made, and what it printed."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    workdir, printed = directory / name / "run", directory / name / "printed.txt"
    with filelock.FileLock(directory / f"{name}.lock"):
        if not printed.exists():
            workdir.parent.mkdir()
            own = [str(workdir) if each == "run" else each for each in arguments]
            done = start("main", *own)
            assert done.returncode == 0, done.stderr
            printed.write_text(done.stdout)
    return workdir, printed.read_text()
