"""The table of all results in `benchmarks/results/`, put into `benchmarks/README.md` between its two marks.

python -m benchmarks.table
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from mhcvse_jax.errors import InputError
from mhcvse_jax.run import command_line

HERE = pathlib.Path(__file__).parent
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
FIGURES = ("measure", "ours", "theirs", "ratio", "unit", "spread", "device", "versions", "commit", "date")


def read_rows(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of all files, by file name.

    Raises:
      InputError: a file is not a list of rows.
    """
    rows = []
    for path in sorted(directory.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            missing = {name for row in found for name in FIGURES if name not in row}
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: not a list of results ({error})") from error
        if missing:
            raise InputError(f"{path}: a row has no {min(missing)!r}; expected {', '.join(FIGURES)}")
        rows += found
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows in Markdown."""
    lines = ["| measure | ours | theirs | ratio | unit | fastest to slowest | device | versions | commit | date |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        versions = f"jax {row['versions']['jax']}" + (f", torch {row['torch']}" if "torch" in row else "")
        cells = [row[name] for name in FIGURES]
        cells[FIGURES.index("versions")] = versions
        commit = row["commit"]
        cells[FIGURES.index("commit")] = commit[:9] + ("-dirty" if commit.endswith("-dirty") else "")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("--readme", type=pathlib.Path, default=HERE / "README.md")
    options = parser.parse_args(arguments)
    text = options.readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(f"{options.readme}: expected one line {BEGIN} and one line {END}")
    rows = read_rows(options.results)
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    options.readme.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")
    print(f"{options.readme}: {len(rows)} rows")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
