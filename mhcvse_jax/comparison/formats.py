"""The comparison as text: for a terminal, Markdown, CSV or HTML. No format cuts anything off."""

import csv
import html
import io
import itertools
import re
from collections.abc import Callable

from mhcvse_jax.comparison.table import Comparison, Table, build, records

SUFFIXES = {".txt": "terminal", ".md": "markdown", ".csv": "csv", ".html": "html"}
"""The format that a file's name asks for."""


def render(comparison: Comparison, form: str) -> str:
    """Returns the comparison in one of `FORMATS`, ended by a newline."""
    return FORMATS[form](comparison)


def terminal(comparison: Comparison) -> str:
    """Returns aligned columns, numbers to the right, with the notes below."""
    table = build(comparison)
    cells = [[column.title for column in table.columns], *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    # A heading wider than its columns widens the last of them.
    for group, first, last in _groups(table):
        missing = len(group) - (sum(widths[first : last + 1]) + 2 * (last - first))
        widths[last] += max(missing, 0)
    head = "  ".join(
        f"{group:^{sum(widths[first : last + 1]) + 2 * (last - first)}}" for group, first, last in _groups(table)
    )
    lines = [head.rstrip()]
    for number, row in enumerate(cells):
        pairs = zip(row, widths, table.columns, strict=True)
        lines.append(
            "  ".join(f"{cell:>{w}}" if column.is_number else f"{cell:<{w}}" for cell, w, column in pairs).rstrip()
        )
        if number == 0:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*lines, "", *table.notes, ""])


def markdown(comparison: Comparison) -> str:
    """Returns a GitHub table, aligned as plain text too."""
    table = build(comparison)
    titles = [_short(column.group) + column.title for column in table.columns]
    cells = [[_escaped(cell) for cell in row] for row in [titles, *table.rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(titles))]
    rule = ["-" * (w - 1) + ":" if c.is_number else "-" * w for w, c in zip(widths, table.columns, strict=True)]
    lines = [
        "| "
        + " | ".join(
            f"{cell:>{w}}" if column.is_number else f"{cell:<{w}}"
            for cell, w, column in zip(row, widths, table.columns, strict=True)
        )
        + " |"
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join([*lines, "", *(f"- {_escaped(note)}" for note in table.notes), ""])


def _escaped(text: str) -> str:
    """Returns text escaped so that Markdown shows it unchanged."""
    return re.sub(r"([\\|`*_<])", r"\\\1", text)


def as_csv(comparison: Comparison) -> str:
    """Returns every figure at full precision, one row per system; a missing figure is empty."""
    rows = records(comparison)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Image-text retrieval: {title}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; }}
  .table {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  th, td {{ padding: .3rem .7rem; text-align: left; white-space: nowrap; }}
  th.number, td.number {{ text-align: right; }}
  thead th {{ border-bottom: 1px solid #8888; vertical-align: bottom; }}
  th.group {{ text-align: center; }}
  tbody tr:nth-child(even) {{ background: #8881; }}
  tbody tr.baseline {{ font-weight: 600; }}
  tbody th {{ font-weight: inherit; }}
  .notes {{ max-width: 60rem; padding-left: 1.2rem; }}
  .warning {{ color: #c30; font-weight: 600; }}
</style>
</head>
<body>
<h1>Image-text retrieval</h1>
<div class="table">
<table>
<thead>
{head}
</thead>
<tbody>
{body}
</tbody>
</table>
</div>
<ul class="notes">
{notes}
</ul>
</body>
</html>
"""


def page(comparison: Comparison) -> str:
    """Returns a self-contained HTML page."""
    table = build(comparison)
    groups = "".join(
        f'<th class="group" colspan="{last - first + 1}">{html.escape(group)}</th>'
        for group, first, last in _groups(table)
    )
    titles = "".join(
        f'<th class="number">{html.escape(column.title)}</th>'
        if column.is_number
        else f"<th>{html.escape(column.title)}</th>"
        for column in table.columns
    )
    body = []
    for entry, row in zip(comparison.entries, table.rows, strict=True):
        cells = [f'<th scope="row">{html.escape(row[0])}</th>']
        cells += [
            f'<td class="number">{html.escape(cell)}</td>' if column.is_number else f"<td>{html.escape(cell)}</td>"
            for cell, column in zip(row[1:], table.columns[1:], strict=True)
        ]
        mark = ' class="baseline"' if entry is comparison.baseline else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    notes = "\n".join(
        f'<li class="warning">{html.escape(note)}</li>'
        if note.startswith("WARNING")
        else f"<li>{html.escape(note)}</li>"
        for note in table.notes
    )
    names = html.escape(", ".join(entry.name for entry in comparison.entries))
    head = f"<tr>{groups}</tr>\n<tr>{titles}</tr>"
    return _PAGE.format(title=names, head=head, body="\n".join(body), notes=notes)


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": as_csv,
    "html": page,
}


def _groups(table: Table) -> list[tuple[str, int, int]]:
    """Returns each heading with its first and last column."""
    found, first = [], 0
    for group, columns in itertools.groupby(table.columns, key=lambda column: column.group):
        last = first + len(list(columns)) - 1
        found.append((group, first, last))
        first = last + 1
    return found


def _short(group: str) -> str:
    """Returns what comes before a title when headings have one line."""
    if group.startswith("difference"):
        return f"{group.removesuffix(' [95% interval]')}, "
    return {"image to text": "i2t ", "text to image": "t2i "}.get(group, "")
