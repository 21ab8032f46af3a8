"""What a result was computed with: versions, devices and the commit of the program."""

import importlib.metadata
import pathlib
import platform
import subprocess

PACKAGES = ("mhcvse_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jraph", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def device_name() -> str:
    """Returns the number and kind of the devices, for example `8 x NVIDIA H200`."""
    import jax  # here, so that results can be read without it

    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def git_revision() -> str:
    """Returns the commit of the program's source, with `-dirty` if it was changed since; "unknown" outside git."""
    root = pathlib.Path(__file__).resolve().parents[2]
    try:
        # Installed into an environment inside somebody's repository, we would find that one's commit.
        if _git(root, "rev-parse", "--show-toplevel") != str(root):
            return "unknown"
        return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(root: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
