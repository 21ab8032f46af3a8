"""The files of an evaluation: `results.json`, recalls and what computed them, and the files beside it."""

import json
import pathlib
from typing import Any

from mhcvse_jax.evaluation import provenance, result_rows
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.files.whole import whole_file


def save_results(path: pathlib.Path, rows: list[dict[str, Any]], *, seed: int, seconds: float, **more: Any) -> None:
    """Writes the rows with versions, device, seed, git revision and seconds (of training or evaluation)."""
    content = {
        "results": rows,
        **more,
        "versions": provenance.versions(),
        "device": provenance.device_name(),
        "seed": seed,
        "git_revision": provenance.git_revision(),  # ends in -dirty where the program was changed since
        "seconds": round(seconds, 1),
    }
    _write_json(path, content)


def ranks_path(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the ranks that belong to a results file."""
    return path.with_name("ranks.npz" if path.name == "results.json" else f"{path.stem}_ranks.npz")


def similarity_facts_path(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the file that describes a saved similarity matrix."""
    return path.with_name(path.name + ".json")


def save_similarity_facts(path: pathlib.Path, tested: Evaluation) -> None:
    """Writes what the similarity matrix in `path` measures: split, protocol, folds, pictures."""
    content = {
        "split": tested.split,
        "protocol": tested.protocol,
        "transductive": result_rows.is_transductive(tested.protocol),
        "label_neighbours": tested.label_neighbours,
        "folds": list(tested.ranks),
        "num_images": tested.num_images,
        "num_captions": tested.num_captions,
        "image_ids": tested.image_ids,
        "image_of_caption": tested.image_of_caption.tolist(),
    }
    _write_json(similarity_facts_path(path), content)


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_results(path: pathlib.Path) -> dict[str, Any]:
    """Returns what `save_results` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
