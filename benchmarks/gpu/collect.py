"""Collects the wheels that a machine without a package index lacks, where there is one.

    python3.12 -m benchmarks.gpu.collect wheels

pip resolves the dependencies that pyproject.toml names, with the versions that machine.txt holds that machine to; what
machine.txt names is left out. Run it with that machine's Python and on that kind of system; it needs nothing but pip.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence

HERE = pathlib.Path(__file__).parent
MACHINE = HERE / "machine.txt"
MEGABYTE = 10**6


def canonical(name: str) -> str:
    """Returns a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def package(wheel: pathlib.Path) -> str:
    """Returns the canonical name of the package that a wheel's file name states."""
    return canonical(wheel.name.split("-")[0])


def names(requirements: str) -> set[str]:
    """Returns the canonical names in the lines of a requirements file."""
    lines = (line.split("#")[0].strip() for line in requirements.splitlines())
    return {canonical(re.split(r"[^\w.-]", line)[0]) for line in lines if line}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 2 bad input, 3 pip failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=pathlib.Path, metavar="DIR", help="where the wheels go; wheels in it are replaced")
    parser.add_argument("--machine", type=pathlib.Path, default=MACHINE, help="requirements that are there already")
    parser.add_argument("--python", default="3.12", help="version of the machine's Python (default %(default)s)")
    parser.add_argument(
        "--leave_out",
        nargs="*",
        default=["pyarrow"],
        metavar="NAME",
        help="packages that others ask for and no benchmark imports (default: pyarrow, of tensorflow-datasets)",
    )
    parser.add_argument("--at_most", type=float, default=64, metavar="MB", help="of all wheels (default %(default)s)")
    arguments = parser.parse_args(argv)
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running != arguments.python:
        parser.error(f"this is Python {running}; expected {arguments.python}, the machine's: wheels differ")
    if not arguments.machine.is_file():
        parser.error(f"{arguments.machine} is no file; expected the requirements that the machine meets")
    if arguments.out.exists() and any(path.suffix != ".whl" for path in arguments.out.iterdir()):
        parser.error(f"{arguments.out} holds more than wheels; expected an empty directory, or a new one")

    with (HERE.parents[1] / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    there = names(arguments.machine.read_text(encoding="utf-8")) | set(map(canonical, arguments.leave_out))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        command += ["--wheel-dir", folder, "--constraint", str(arguments.machine), *dependencies]
        if code := subprocess.run(command, check=False).returncode:
            print(f"pip left with exit code {code}; its lines above say why", file=sys.stderr)
            return 3
        wheels = sorted(path for path in pathlib.Path(folder).glob("*.whl") if package(path) not in there)
        megabytes = sum(path.stat().st_size for path in wheels) / MEGABYTE
        if megabytes > arguments.at_most:
            largest = max(wheels, key=lambda path: path.stat().st_size)
            parser.error(
                f"the {len(wheels)} wheels take {megabytes:.1f} MB; expected at most {arguments.at_most:g}. The "
                f"largest is {largest.name}, {largest.stat().st_size / MEGABYTE:.1f} MB"
            )
        shutil.rmtree(arguments.out, ignore_errors=True)
        arguments.out.mkdir()
        for path in wheels:
            shutil.move(path, arguments.out)
    print(f"{arguments.out}: {len(wheels)} wheels, {megabytes:.1f} MB, for Python {running}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
