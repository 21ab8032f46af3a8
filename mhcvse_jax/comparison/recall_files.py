"""Recalls in CSV or JSON files: your own tables, other programs', and the published ones that come with the package.

A CSV file has a header; a JSON file is a list of objects with these keys, or one such object:

    name                               of the row
    i2t_r1, i2t_r5, i2t_r10            recalls in percent, image to text; empty or "-" where not known
    t2i_r1, t2i_r5, t2i_r10            text to image
    protocol, split, folds,            optional: what they are of; `standard` or `label_completion`, `test`, 1, 1000
      num_images, num_captions
    label_neighbours                   optional: the rule of label completion, `f30k` or `coco`
    setting                            optional: of a protocol against hubs, `10 neighbours`
    num_seeds, i2t_r1_sd, ..., rsum_sd, mean_recall_sd    optional: the recalls are means over so many seeds
    printed_mean_recall                optional: mR as a publication prints it
    note, source                       optional: become footnotes

Other columns are ignored, so a table that `compare --format csv` wrote can be read again.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from mhcvse_jax.comparison.entry import FIGURES, RECALLS, Entry, Facts, figures_of
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_unpacked

REQUIRED = ("name", *RECALLS)


def read_csv(path: pathlib.Path) -> list[Entry]:
    """Returns the rows of a CSV file.

    Raises:
      InputError: it cannot be read, a column is missing, or a value is not what it should be.
    """
    check_unpacked(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: no column {missing[0]}; expected {', '.join(REQUIRED)}")
            entries = []
            for row in reader:
                where = f"{path} line {reader.line_num}"
                if None in row or None in row.values():  # what DictReader makes of a cell too many, and too few
                    raise InputError(f"{where}: expected {len(reader.fieldnames or ())} cells, as the header has")
                entries.append(_entry(row, where))
            if not entries:
                raise InputError(f"{path}: no row below the header; expected one or more")
            return entries
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not CSV in UTF-8 ({error})") from error


def entries_of_json(content: Any, path: pathlib.Path) -> list[Entry]:
    """Returns the rows of a JSON file's content.

    Raises:
      InputError: it is of another kind, a key is missing, or a value is not what it should be.
    """
    rows = [content] if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{path}: JSON of another kind; expected results of a run, or objects with {', '.join(REQUIRED)}"
        )
    for number, row in enumerate(rows, start=1):
        missing = [name for name in REQUIRED if name not in row]
        if missing:
            raise InputError(f"{path}: object {number} has no {missing[0]}; expected {', '.join(REQUIRED)}")
    return [_entry(row, f"{path} object {number}") for number, row in enumerate(rows, start=1)]


def published() -> list[Entry]:
    """Returns the published recalls on Flickr30k's test set that come with the program, each with its source."""
    note = "on Flickr30k's test pictures; that the rows beside it are of these pictures is not checked"
    rows = read_csv(pathlib.Path(__file__).with_name("published_flickr30k.csv"))
    return [dataclasses.replace(row, notes=(note, *row.notes)) for row in rows]


def _entry(row: Mapping[str, Any], where: str) -> Entry:
    name = " ".join(str(row["name"] or "").split())
    if not name:
        raise InputError(f"{where}: no name; expected one")
    recalls = {key: _number(row, key, where) for key in RECALLS}
    deviations = {key: _number(row, f"{key}_sd", where) for key in FIGURES}
    facts = Facts(
        protocol=_text(row, "protocol"),
        label_neighbours=_text(row, "label_neighbours") or _no_rule(_text(row, "protocol")),
        split=_text(row, "split"),
        **{key: _whole(row, key, where) for key in ("folds", "num_images", "num_captions")},
        setting=_text(row, "setting") or "",
    )
    _check_recalls(recalls, facts.num_images, where)
    return Entry(
        name=name,
        figures=figures_of(recalls),
        facts=facts,
        deviations={key: value for key, value in deviations.items() if value is not None},
        num_seeds=_whole(row, "num_seeds", where),
        printed_mean_recall=_number(row, "printed_mean_recall", where),
        notes=tuple(filter(None, (_text(row, "source"), _text(row, "note")))),
    )


def _no_rule(protocol: str | None) -> str | None:
    """Returns the rule of label completion that need not be stated: none, if labels are not completed."""
    return None if protocol == "label_completion" else ""


def check_percent(recalls: Mapping[str, float | None], where: str) -> None:
    """Raises InputError for a recall that is no percentage."""
    for value in recalls.values():
        if value is not None and not 0 <= value <= 100:
            raise InputError(f"{where}: a recall of {value:g}; expected percent, 0 to 100")


def _check_recalls(recalls: Mapping[str, float | None], num_images: int | None, where: str) -> None:
    check_percent(recalls, where)
    known = [value for value in recalls.values() if value is not None]
    if known and 0 < max(known) <= 1 and num_images is None:  # among thousands of pictures, chance is below 1
        raise InputError(
            f"{where}: no recall above {max(known):g}; expected percent, not fractions (if they are so low, give "
            "num_images)"
        )
    for way in ("i2t", "t2i"):
        rising = [value for value in (recalls[f"{way}_r{k}"] for k in (1, 5, 10)) if value is not None]
        if rising != sorted(rising):
            raise InputError(f"{where}: {way} recalls {rising}; expected R@1, R@5, R@10 to rise")


def _text(row: Mapping[str, Any], key: str) -> str | None:
    text = str(row.get(key) if row.get(key) is not None else "").strip()
    return None if text in ("", "-") else text


def _number(row: Mapping[str, Any], key: str, where: str) -> float | None:
    text = _text(row, key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {key} is {text!r}; expected a number, or - where it is not known")
    return value


def _whole(row: Mapping[str, Any], key: str, where: str) -> int | None:
    value = _number(row, key, where)
    if value is not None and (value != int(value) or value < 1):
        raise InputError(f"{where}: {key} is {value:g}; expected a whole number of 1 or more")
    return None if value is None else int(value)
