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


def pytest_unconfigure():
    if COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run and what it printed: one for all workers."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    workdir, printed = directory / "finished" / "run", directory / "finished" / "printed.txt"
    with filelock.FileLock(directory / "finished.lock"):
        if not printed.exists():
            workdir.parent.mkdir()
            done = front_door.run_by_itself("main", *front_door.tiny(workdir))
            assert done.returncode == 0, done.stderr
            printed.write_text(done.stdout)
    return workdir, printed.read_text()
