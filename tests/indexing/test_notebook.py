"""The notebook of the documentation, cell by cell."""

import json

import numpy as np
from front_door import ROOT

NOTEBOOK = ROOT / "docs" / "search.ipynb"


def test_the_notebook_runs(finished, index, capsys):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert 'RUN, INDEX = "runs/demo", "runs/demo_index"' in code[0]
    names = {}
    exec(code[0].replace("runs/demo_index", str(index.directory)).replace("runs/demo", str(finished[0])), names)
    for cell in code[1:]:
        exec(compile(cell, NOTEBOOK.name, "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == 2 * 4
    assert names["similarity"].shape == (40, 2)
    assert names["more"][0].place == names["place"] == names["similarity"][:, 0].argmax()
    np.testing.assert_allclose(names["again"], index.vectors([names["place"]]), atol=1e-5)
