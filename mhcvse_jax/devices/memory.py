"""Host memory that this process may still use, within the limits of its container."""

import os
import pathlib
import platform
from collections.abc import Iterator

from mhcvse_jax.errors import InputError

RUNS_VARIABLE = "MHCVSE_RUNS_AT_ONCE"
"""Number of runs that begin side by side on this machine, as a sweep sets it: each takes its part of what is free."""


def free_on_host(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Returns the bytes that this process may still use; None if the system does not say (it is not Linux).

    That is what the machine has available, or less if a control group (a container, a SLURM job) or one above it has a
    limit. Pages of files count as free: the kernel gives them up when memory is needed. If several runs start at once
    (`RUNS_VARIABLE`), it is one run's part.

    Args:
      root: the directory that holds /proc and /sys.

    Raises:
      InputError: `RUNS_VARIABLE` is no number.
    """
    available = _numbers(root / "proc" / "meminfo").get("MemAvailable:")
    if available is None:
        return None
    free = min([1024 * available, *_left_in_groups(root)])
    runs = os.environ.get(RUNS_VARIABLE) or "1"
    if not runs.isdigit() or int(runs) < 1:
        raise InputError(f"{RUNS_VARIABLE} is {runs!r}; expected a whole number of 1 or more")
    return max(free, 0) // int(runs)


def _left_in_groups(root: pathlib.Path) -> Iterator[int]:
    """Yields what is left of the limit of each control group that this process is in, version 1 or 2."""
    mounted = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, limit_name, used_name, prefix = mounted, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            base, prefix = mounted / "memory", "total_"
            limit_name, used_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = pathlib.PurePosixPath(path.lstrip("/"))
        # In a container the path may be that of the machine, which is not there; its own group is the root then.
        for directory in (base / group, *(base / parent for parent in group.parents)):
            limit, used = _text(directory / limit_name).strip(), _text(directory / used_name).strip()
            if limit.isdigit() and used.isdigit():
                pages = _numbers(directory / "memory.stat")
                files = sum(pages.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                yield int(limit) - int(used) + files


def machine() -> str:
    """Returns what tells this machine from others, also from within a container."""
    return _text(pathlib.Path("/proc/sys/kernel/random/boot_id")).strip() or platform.node()


def _numbers(path: pathlib.Path) -> dict[str, int]:
    """Returns the number after each name in a file of lines such as `NAME NUMBER`."""
    lines = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _text(path: pathlib.Path) -> str:
    """Returns what a file holds; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
