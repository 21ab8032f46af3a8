"""A checksum per file of a directory, so that damage is found before anything is read."""

import hashlib
import json
import pathlib

FILE_NAME = "checksums.json"
WRITTEN_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""What orbax changes while it gives a step its name: times and the names of its classes, nothing that is restored."""


def write(directory: pathlib.Path) -> None:
    """Writes `checksums.json` in a directory: {file: SHA-256} of every file below it. Costs a read of each."""
    sums = {str(path.relative_to(directory)): _sha256(path) for path in _files(directory)}
    (directory / FILE_NAME).write_text(json.dumps(sums, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def damage(directory: pathlib.Path) -> str | None:
    """Returns the first damage in a directory since `write`; None if it is sound.

    Costs a read of every file.
    """
    path = directory / FILE_NAME
    try:
        expected = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{FILE_NAME} is missing or damaged"
    if not isinstance(expected, dict) or not expected:
        return f"{FILE_NAME} is damaged"
    found = {str(path.relative_to(directory)) for path in _files(directory)}
    for name, checksum in expected.items():
        try:
            sum_found = _sha256(directory / name) if name in found else None
        except FileNotFoundError:
            sum_found = None
        if sum_found is None:
            return f"{name} is missing"
        if sum_found != checksum:
            return f"{name} is damaged: its SHA-256 is not the one in {FILE_NAME}"
    return None


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
    files = {path for path in directory.rglob("*") if path.is_file()}
    return sorted(files - {directory / name for name in (FILE_NAME, *WRITTEN_LATER)})


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
