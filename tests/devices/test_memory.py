"""Free memory, as the system's files say it: of the machine, of a container, of a group above it, of several runs."""

import pytest

from mhcvse_jax.devices import memory
from mhcvse_jax.errors import InputError

V1 = "9:cpu,cpuacct:/\n4:memory:/job/step\n0::/\n"
V2 = "0::/job/step\n"
UNLIMITED_V1 = "9223372036854771712"


def system(root, *, kilobytes, groups, **files):
    """Files below a root; a key of `files` is a path with __ for a slash and 'dot' for a point."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99000 kB\nMemFree: 1 kB\nMemAvailable:  {kilobytes} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("dot", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 7000 * 1024),
        (V2, {"job__step__memorydotmax": "max\n", "job__step__memorydotcurrent": "5\n"}, 7000 * 1024),
        (V2, {"job__step__memorydotmax": "7000000\n", "job__step__memorydotcurrent": "5000\n"}, 6995000),
        # Files that were read fill the limit, and are given up; the group's shared memory is not.
        (
            V2,
            {
                "memorydotmax": "6000",
                "memorydotcurrent": "5900",
                "memorydotstat": "file 5000\ninactive_file 1300\nactive_file 700\nshmem 3000\n",
            },
            2100,
        ),
        (
            V2,
            {
                "job__step__memorydotmax": "5000000",
                "job__step__memorydotcurrent": "10",
                "job__memorydotmax": "3000000",
                "job__memorydotcurrent": "20",
            },
            2999980,  # of the group above it
        ),
        (V2, {"job__memorydotmax": "1000", "job__memorydotcurrent": "1013"}, 0),
        (
            V1,
            {
                "memory__job__step__memorydotlimit_in_bytes": "4000000\n",
                "memory__job__step__memorydotusage_in_bytes": "1000000\n",
                "memory__job__step__memorydotstat": "inactive_file 7\ntotal_inactive_file 300\ntotal_active_file 11\n",
                "memory__memorydotlimit_in_bytes": UNLIMITED_V1,
                "memory__memorydotusage_in_bytes": "77",
            },
            3000311,
        ),
        # A container sees its own group as the root, by a path that is the machine's.
        (V1, {"memory__memorydotlimit_in_bytes": "2000", "memory__memorydotusage_in_bytes": "700"}, 1300),
    ],
)
def test_free_memory_is_what_the_narrowest_limit_leaves(tmp_path, groups, files, expected):
    system(tmp_path, kilobytes=7000, groups=groups, **files)
    assert memory.free_on_host(tmp_path) == expected


def test_runs_that_begin_at_once_share_it(tmp_path, monkeypatch):
    system(tmp_path, kilobytes=3000, groups="")
    monkeypatch.setenv(memory.RUNS_VARIABLE, "3")
    assert memory.free_on_host(tmp_path) == 1000 * 1024


@pytest.mark.parametrize("runs", ["two", "0"])
def test_a_number_of_runs_that_is_none_is_named(tmp_path, monkeypatch, runs):
    system(tmp_path, kilobytes=3000, groups="")
    monkeypatch.setenv(memory.RUNS_VARIABLE, runs)
    with pytest.raises(InputError, match=f"is '{runs}'; expected a whole number of 1 or more"):
        memory.free_on_host(tmp_path)


def test_a_system_that_does_not_say_is_told_from_a_full_one(tmp_path):
    assert memory.free_on_host(tmp_path) is None


def test_this_machine_has_some_memory_left():
    free = memory.free_on_host()
    assert free is None or 0 < free < 1 << 50
