"""What an evaluation leaves in files: `results.json`, recalls and what they were computed with, and its companions."""

import importlib.metadata
import json
import pathlib
import platform
import subprocess
from typing import Any

import jax

from mhcvse_jax.retrieval import protocols
from mhcvse_jax.retrieval.evaluation import Evaluation
from mhcvse_jax.workdir import whole_file

PACKAGES = ("mhcvse_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jraph", "numpy")


def save_results(path: pathlib.Path, rows: list[dict[str, Any]], *, seed: int, seconds: float, **more: Any) -> None:
    """Writes the rows with versions, device, seed, git revision and seconds (of the training, or evaluation)."""
    content = {
        "results": rows,
        **more,
        "versions": versions(),
        "device": device_name(),
        "seed": seed,
        "git_revision": git_revision(),
        "seconds": round(seconds, 1),
    }
    _write_json(path, content)


def ranks_path(path: pathlib.Path) -> pathlib.Path:
    """Returns where the ranks lie that belong to a file of results."""
    return path.with_name("ranks.npz" if path.name == "results.json" else f"{path.stem}_ranks.npz")


def similarity_facts_path(path: pathlib.Path) -> pathlib.Path:
    """Returns where it is written what a saved similarity matrix is of."""
    return path.with_name(path.name + ".json")


def save_similarity_facts(path: pathlib.Path, tested: Evaluation) -> None:
    """Writes what the similarity matrix in `path` is of: split, protocol, folds, pictures."""
    content = {
        "split": tested.split,
        "protocol": tested.protocol,
        "transductive": protocols.is_transductive(tested.protocol),
        "label_neighbours": tested.label_neighbours,
        "folds": list(tested.ranks),
        "num_images": tested.num_images,
        "num_captions": tested.num_captions,
        "image_ids": tested.image_ids,
    }
    _write_json(similarity_facts_path(path), content)


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_results(path: pathlib.Path) -> dict[str, Any]:
    """Returns what `save_results` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


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
    """Returns number and kind of the devices, `8 x NVIDIA H200` for example."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def git_revision() -> str:
    """Returns the commit of the program's source, `-dirty` where it was changed since; "unknown" outside git."""
    root = pathlib.Path(__file__).resolve().parent.parent
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
