"""What a SOURCE of `compare` can be: a workdir, a file of ranks, results or recalls, or a similarity matrix."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax import config as config_lib
from mhcvse_jax.comparison.entry import RECALLS, Entry, Facts, Run, figures_of, hits_of, recalls_of, recalls_of_dict
from mhcvse_jax.comparison.recall_files import check_percent, entries_of_json, read_csv
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import results
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.files.downloads import check_unpacked
from mhcvse_jax.retrieval import similarity


class Wanted(NamedTuple):
    """Which of a source's evaluations is wanted; None: the source's own."""

    protocol: str = "standard"
    split: str | None = None
    folds: int | None = None
    embedding: str = "fused"
    captions_per_image: int = 5


def read(source: str, wanted: Wanted) -> list[Run]:
    """Returns what a source holds: one run, or the rows of a table.

    Args:
      source: a path, or NAME=PATH.
      wanted: which evaluation, where a source holds several.

    Raises:
      InputError: the source cannot be read, or holds no such evaluation.
    """
    name, path = split_name(source)
    if path.is_dir():
        return [read_workdir(path, name, wanted)]
    if not path.is_file():
        raise InputError(f"{path}: no such file or directory; expected a workdir, .npz, .json, .csv or .npy")
    if path.suffix == ".npz":
        evaluation = Evaluation.load(path)
        return [Run(_measured(name or path.stem, evaluation, _folds(evaluation, wanted), wanted), path=path)]
    if path.suffix == ".npy":
        return [Run(read_matrix(path, name or path.stem, wanted), path=path)]
    if path.suffix == ".csv":
        return _named(read_csv(path), name, path)
    if path.suffix == ".json":
        return _read_json(path, name, wanted)
    raise InputError(f"{path}: unknown kind of source; expected a workdir, .npz, .json, .csv or .npy")


def split_name(source: str) -> tuple[str | None, pathlib.Path]:
    """Returns name and path of NAME=PATH; no name if there is none, or if the whole text is a path that exists."""
    name, equals, path = source.partition("=")
    if not equals or not name or "/" in name or pathlib.Path(source).exists():
        return None, pathlib.Path(source)
    return name, pathlib.Path(path)


def read_workdir(path: pathlib.Path, name: str | None, wanted: Wanted) -> Run:
    """Returns the evaluation of a run's workdir: with ranks if they are kept, otherwise from its results alone.

    The ranks of the run's own test take precedence over those of a later `evaluate`.

    Raises:
      InputError: it is no workdir, or has no such evaluation.
    """
    config_path = path / "config.json"
    if not config_path.is_file():
        raise InputError(f"{path}: no config.json in it; expected a workdir that a run has written")
    config = _load_json(config_path)
    try:
        split = wanted.split or config["eval"]["test_split"]
        rule = config["eval"].get("label_neighbours", "")
        language = (path / "vocabulary.json", path / "concepts.npz")  # tell apart what was trained on other data
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in language if file.is_file())).hexdigest()
        key = f"{name}: {_configuration(config)} {digest}"
        seed = int(config["seed"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{config_path}: not the configuration of a run ({error!r})") from error
    wanted = wanted._replace(split=split)
    shown = name or path.resolve().name

    kept = [path / "ranks.npz"] if (path / "ranks.npz").exists() else []
    kept += sorted(path.glob("ranks_*.npz"), key=lambda file: -file.stat().st_mtime)
    fitting = [one for one in map(Evaluation.load, kept) if (one.split, one.protocol) == (split, wanted.protocol)]
    fitting = [one for one in fitting if not one.trained_on]  # other data than the run's have a file of their own
    fitting = [one for one in fitting if one.label_neighbours == rule] or fitting
    fitting = [one for one in fitting if wanted.folds is None or wanted.folds in one.ranks]
    if wanted.folds is None:
        fitting.sort(key=lambda one: 1 not in one.ranks)
    if fitting:
        entry = _measured(shown, fitting[0], _folds(fitting[0], wanted), wanted)
    else:
        entry = _from_results(path, shown, wanted)
    return Run(entry, f"{key} {entry.facts}", seed, path)


def read_matrix(path: pathlib.Path, name: str, wanted: Wanted) -> Entry:
    """Returns recalls and hits of a similarity matrix; the .json beside it, if there is one, says what it measures.

    Raises:
      InputError: it is missing, damaged or of another shape or type, or contradicts the .json beside it.
    """
    matrix, owner, facts, image_ids = read_similarity(path, wanted)
    ranks = similarity.ranks_of(matrix, owner, facts.folds or 1)
    kind = "fused"
    evaluation = Evaluation("", "", "", image_ids or [""] * matrix.num_images, owner, {facts.folds or 1: {kind: ranks}})
    notes = () if image_ids else ("its pictures are taken to be in the order of the others'",)
    return Entry(
        name=name,
        figures=figures_of(recalls_of(evaluation.retrieval(facts.folds or 1, kind))),
        facts=facts,
        image_ids=image_ids,
        hits=hits_of(ranks, owner),
        notes=notes,
    )


class SavedSimilarity(NamedTuple):
    """A similarity matrix and what it measures."""

    matrix: similarity.Similarity
    image_of_caption: np.ndarray  # <int>[captions]
    facts: Facts
    image_ids: list[str] | None  # where they are known


def read_similarity(path: pathlib.Path, wanted: Wanted) -> SavedSimilarity:
    """Returns a similarity matrix; the .json beside it, if any, says what it measures and whose each caption is.

    Raises:
      InputError: it is missing, damaged or of another shape or type, or contradicts the .json beside it.
    """
    beside = results.similarity_facts_path(path)
    content = _load_json(beside) if beside.exists() else None
    varying = isinstance(content, dict) and "image_of_caption" in content
    matrix = similarity.of_file(path, None if varying else wanted.captions_per_image)
    shape = matrix.num_images, matrix.num_captions
    facts = Facts(label_neighbours="", folds=wanted.folds or 1, num_images=shape[0], num_captions=shape[1])
    equal = np.arange(shape[1]) // wanted.captions_per_image
    if content is None:
        return SavedSimilarity(matrix, equal, facts, None)
    try:
        counts = (content["num_images"], content["num_captions"])
        image_ids = list(map(str, content["image_ids"]))
        owner = np.array(content["image_of_caption"], np.int64) if varying else equal
        if counts != shape or (len(image_ids), len(owner)) != shape:
            raise InputError(
                f"{beside} is of {counts[0]} pictures and {counts[1]} captions; expected those of {path.name}, "
                f"{shape[0]} and {shape[1]}"
            )
        if owner.min() < 0 or owner.max() >= shape[0]:
            raise ValueError(f"image_of_caption from {owner.min()} to {owner.max()}")
        rule = str(content["label_neighbours"])
        folds = wanted.folds or (1 if 1 in content["folds"] else int(content["folds"][0]))
        if folds < 1:
            raise ValueError(f"{folds} folds")
        facts = facts._replace(
            protocol=str(content["protocol"]), label_neighbours=rule, split=str(content["split"]), folds=folds
        )
        return SavedSimilarity(matrix, owner, facts, image_ids)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{beside}: does not say what {path.name} is of ({error!r})") from error


def _measured(name: str, evaluation: Evaluation, folds: int, wanted: Wanted) -> Entry:
    if wanted.embedding not in evaluation.ranks[folds]:
        raise InputError(f"{name} has no {wanted.embedding} embedding; expected {', '.join(evaluation.ranks[folds])}")
    ranks = evaluation.ranks[folds][wanted.embedding]
    return Entry(
        name=name,
        figures=figures_of(recalls_of(evaluation.retrieval(folds, wanted.embedding))),
        facts=Facts(
            evaluation.protocol,
            evaluation.label_neighbours,
            evaluation.split,
            folds,
            evaluation.num_images,
            evaluation.num_captions,
            evaluation.setting,
        ),
        num_seeds=1,
        notes=_transfer(evaluation.trained_on),
        image_ids=evaluation.image_ids,
        hits=hits_of(ranks, evaluation.image_of_caption),
    )


def _transfer(trained_on: str) -> tuple[str, ...]:
    return (f"a transfer: trained on {trained_on}",) if trained_on else ()


def _folds(evaluation: Evaluation, wanted: Wanted) -> int:
    """Returns the wanted number of folds; if none is wanted, the whole split or the only number available."""
    if wanted.folds in evaluation.ranks:
        return wanted.folds or 1
    if wanted.folds is not None:
        found = ", ".join(map(str, evaluation.ranks))
        raise InputError(f"--folds {wanted.folds}: the ranks of {evaluation.split} are for {found} folds")
    return 1 if 1 in evaluation.ranks else next(iter(evaluation.ranks))


def _from_results(path: pathlib.Path, name: str, wanted: Wanted) -> Entry:
    """Returns the recalls of a workdir that has no ranks for them."""
    folds = "" if wanted.folds is None else f" --folds {wanted.folds}"
    makes = f"python -m mhcvse_jax.evaluate --workdir {path} --split {wanted.split} --protocol {wanted.protocol}{folds}"
    results_path = path / "results.json"
    rows = _rows(_load_json(results_path), results_path) if results_path.is_file() else []
    fitting = [row for row in rows if (row["split"], row["protocol"]) == (wanted.split, wanted.protocol)]
    row = _choose(fitting, wanted)
    if row is None:
        raise InputError(f"{path} has no results of {wanted.split} under {wanted.protocol}{folds}; {makes} makes them")
    return _reported(name, row, f"the rank of each query is not kept; {makes} keeps it")


def _reported(name: str, row: dict[str, Any], *notes: str) -> Entry:
    """Returns a row of `results.json` unchanged."""
    facts = Facts(
        row["protocol"],
        row.get("label_neighbours", ""),
        *(row[key] for key in ("split", "folds", "num_images", "num_captions")),
        setting=row.get("setting", ""),
    )
    notes = (*_transfer(row.get("trained_on", "")), *notes)
    figures = recalls_of_dict(row) | {key: float(row[key]) for key in ("rsum", "mean_recall")}
    return Entry(name=name, figures=figures, facts=facts, num_seeds=1, notes=notes)


def _choose(rows: list[dict[str, Any]], wanted: Wanted) -> dict[str, Any] | None:
    """Returns the row of the wanted embedding and folds; with several numbers of folds, the smallest."""
    rows = [row for row in rows if row["embedding"] == wanted.embedding and wanted.folds in (None, row["folds"])]
    return min(rows, key=lambda row: row["folds"], default=None)


def _read_json(path: pathlib.Path, name: str | None, wanted: Wanted) -> list[Run]:
    content = _load_json(path)
    if not isinstance(content, dict) or "results" not in content:
        return _named(entries_of_json(content, path), name, path)
    name = name or (path.resolve().parent.name if path.name == "results.json" else path.stem)
    rows = _rows(content, path)
    fitting = [row for row in rows if row["protocol"] == wanted.protocol and wanted.split in (None, row["split"])]
    row = _choose(fitting or rows, wanted)
    if row is None:
        raise InputError(f"{path} has no recalls of the {wanted.embedding} embedding for these folds")
    beside = results.ranks_path(path)
    if not beside.exists():
        return [Run(_reported(name, row, "the rank of each query is not kept"), path=path)]
    evaluation = Evaluation.load(beside)
    if row not in [{**one} for one in evaluation.rows()]:
        raise InputError(
            f"{beside} does not belong to {path.name}: its recalls differ; expected both from the same evaluation"
        )
    return [Run(_measured(name, evaluation, row["folds"], wanted), path=path)]


def _rows(content: Any, path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of `results.json`, known to have what is read of them."""
    try:
        rows = content["results"]
        for row in rows:
            figures = _reported("", row).figures
            check_percent({key: figures[key] for key in (*RECALLS, "mean_recall")}, str(path))
            if not 0 <= (figures["rsum"] or 0) <= 600:
                raise ValueError(f"rsum is {figures['rsum']}")
            for kind, names in (
                (str, ("embedding", "split", "protocol")),
                (int, ("folds", "num_images", "num_captions")),
            ):
                for name in names:
                    if not isinstance(row[name], kind) or (kind is int and row[name] < 1):
                        raise TypeError(f"{name} is {row[name]!r}")
        return rows
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: JSON of another kind; expected the results of a run ({error!r})") from error


def _named(entries: list[Entry], name: str | None, path: pathlib.Path) -> list[Run]:
    """Returns the rows of a table; NAME= precedes each row's own name, or replaces it if there is only one row."""
    if name is not None:
        names = [name] if len(entries) == 1 else [f"{name} {entry.name}" for entry in entries]
        entries = [dataclasses.replace(entry, name=one) for entry, one in zip(entries, names, strict=True)]
    return [Run(entry, path=path) for entry in entries]


def _configuration(saved: dict[str, Any]) -> str:
    """Returns what defines a run, as text: without its seed and any locations.

    A key that the run's version of the program did not have counts as its default.
    """
    values = _flat(config_lib.base().to_dict()) | _flat(saved)
    gathered = {key for key, one in config_lib.KEYS.items() if one.row == config_lib.FREE}
    if values["data.format"] != "scenes":
        gathered |= {key for key in values if key.startswith("data.scenes.")}
    kept = {key: value for key, value in values.items() if key not in gathered}
    for key, value in kept.items():
        if key.endswith("_path") and value:
            kept[key] = pathlib.PurePath(str(value)).name
    return json.dumps(kept, sort_keys=True)


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _load_json(path: pathlib.Path) -> Any:
    check_unpacked(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
