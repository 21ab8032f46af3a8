"""Every format shows all that is known."""

import html.parser

from compared import evaluation, make_workdir, table

from mhcvse_jax.comparison import formats


class Cells(html.parser.HTMLParser):
    """The text of each cell by rows, and that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.rows, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


def test_every_format_shows_all_and_cuts_nothing_off(tmp_path, run):
    name = "a system with quite a long name & <odd> letters, ∞"
    workdirs = [
        f"{name}={make_workdir(tmp_path / 'one', evaluation(0))}",
        make_workdir(tmp_path / "two", evaluation(1), batch_size=3),
    ]
    arguments = (*workdirs, "--baseline", "two", "--draws", 100)
    outputs = {form: run(*arguments, "--format", form)[1] for form in formats.FORMATS}
    lines = outputs["terminal"].splitlines()
    assert len({len(line) for line in lines[2:5]}) == 1
    parser = Cells()
    parser.feed(outputs["html"])
    assert parser.open == []
    assert [len(row) for row in parser.rows[1:]] == [len(parser.rows[1])] * 3
    assert "http" not in outputs["html"]
    body = [line.split(" | ") for line in outputs["markdown"].splitlines() if line.startswith("|")]
    assert [len(row) for row in body] == [len(parser.rows[1])] * 4
    for row in parser.rows[2:]:
        shown = next(line for line in lines if line.startswith(row[0]))
        assert all(cell in shown for cell in row)
    assert name in outputs["terminal"]
    assert {row[0] for row in parser.rows[2:]} == {name, "two"}
    assert set(table(outputs["csv"])) == {name, "two"}
    for form, suffix in (("markdown", "md"), ("html", "html"), ("csv", "csv"), ("terminal", "txt")):
        code, out, _ = run(*arguments, "--output", tmp_path / f"out.{suffix}")
        assert (code, out) == (0, f"2 rows in {tmp_path}/out.{suffix}\n")
        assert (tmp_path / f"out.{suffix}").read_text() == outputs[form]
    assert not list(tmp_path.glob("*.partial"))
