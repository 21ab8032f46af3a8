"""Puts the rows of a GPU's calls where the table takes them from: a file a step.

python -m benchmarks.gpu.unpack out/results.json --prefix h100
python -m benchmarks.table
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from benchmarks import timing
from benchmarks.gpu.run import DONE, read_results

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.unpack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=pathlib.Path, help="results.json of the last call")
    parser.add_argument("--into", type=pathlib.Path, default=RESULTS, metavar="DIR", help="(default %(default)s)")
    parser.add_argument("--prefix", default="gpu", help="of the files' names (default %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        results = read_results(arguments.results)
    except ValueError as error:
        parser.error(str(error))
    if results["toy"]:
        parser.error(f"{arguments.results} is of a dry run, whose figures mean nothing; expected one on a GPU")
    commit = next((call["commit"] for call in results["calls"] if call["commit"]), "unknown")
    for name, step in results["steps"].items():
        if step["state"] != DONE:
            print(f"{name}: {step['state']}, exit code {step['exit_code']}")
        elif step["rows"]:
            rows = [row | {"commit": commit} if row["commit"] == "unknown" else row for row in step["rows"]]
            timing.save(arguments.into / f"{arguments.prefix}_{name}.json", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
