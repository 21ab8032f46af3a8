"""Eight devices out of one CPU, so that what runs on several is tested on any machine; one finished run for all."""

import os

import front_door
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # nothing in the user's cache directory
flags = os.environ.get("XLA_FLAGS", "")
if "--xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory):
    """The processes of the tests compile each function once among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("jax")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compilation_cache):
    """A finished run and what it printed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = front_door.run("main", *front_door.tiny(workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout
