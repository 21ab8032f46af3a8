"""Captions in all common forms: CSV, JSON lines, Flickr's token file, Karpathy's and COCO's JSON, SCAN's layout.

A file's format is recognised by its content, not its name; it may be gzipped.

    CSV          a line of column names, then one caption per row; separated by comma, semicolon, tab or bar
    JSON lines   {"file_name": ..., "caption": ...} on each line, or "captions": [...]
    tokens       NAME#NUMBER<tab>CAPTION on each line, as in Flickr8k.token.txt
    Karpathy     {"images": [{"filename", "imgid", "split", "sentences": [{"raw"}]}]}, as dataset_flickr30k.json
    COCO         {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
    SCAN         a directory with {split}_caps.txt and {split}_ids.txt

Columns, and keys of JSON lines, go by the names in `COLUMNS`. A row with an empty caption names a picture without one.
"""

import collections
import csv
import gzip
import io
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mhcvse_jax.data import coco_ids, scan_layout
from mhcvse_jax.data.lines import MAX_CAPTION, read_lines
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_no_web_page

COLUMNS = {
    "name": ("file_name", "filename", "image_name", "image", "file", "path", "name"),
    "caption": ("caption", "captions", "text", "sentence", "comment"),
    "split": ("split",),
    "image_id": ("image_id", "id", "imgid"),
}
SCAN_CAPTIONS = 5  # of a picture, where SCAN's layout does not say whose a caption is
_TOKEN = re.compile(r"(.+)#\d+\t(.*)")
_SPLITS = {"restval": "train", "val": "dev", "valid": "dev", "validation": "dev"}


class Captioned(NamedTuple):
    """A picture and what a source of captions says about it."""

    name: str  # of its file; its id where the source has no name
    image_id: str  # its name where the source has no id
    other_ids: tuple[str, ...]  # by which its features may be found, too: COCO's number in Karpathy's JSON
    split: str | None  # None: the source does not say
    captions: tuple[str, ...]
    caption_ids: tuple[str, ...] = ()  # of each caption, where the source has them: COCO's numbers


def read_captions(path: pathlib.Path, split: str | None = None) -> list[Captioned]:
    """Returns the pictures that a source names, in its order, and their captions.

    Args:
      path: a file, or a directory in SCAN's layout.
      split: the split of all its pictures; None: the source says it.

    Raises:
      InputError: the source is missing or damaged, not UTF-8, or of an unknown kind.
    """
    found: dict[str, Captioned] = {}
    try:
        for where, row in _rows(path):
            row = row._replace(split=split or split_name(f"{path}{where}", row.split))
            captions = tuple(_clean(f"{path}{where}", caption) for caption in row.captions)
            known = found.setdefault(row.name, row._replace(captions=(), caption_ids=()))
            if (known.split, known.image_id) != (row.split, row.image_id):
                raise InputError(
                    f"{path}{where}: {row.name} has split {row.split} and id {row.image_id}; expected "
                    f"{known.split} and {known.image_id}, as before"
                )
            found[row.name] = known._replace(
                captions=(*known.captions, *filter(None, captions)),
                caption_ids=(*known.caption_ids, *itertools.compress(row.caption_ids, captions)),
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged, or in an unknown format ({type(error).__name__}: {error})") from error
    if not found:
        raise InputError(f"{path}: no caption in it")
    return list(found.values())


def split_name(where: str, split: str | None) -> str | None:
    """Returns our name of a split: dev for what others call val; restval is a part of train.

    Raises:
      InputError: it cannot name a file.
    """
    if not split:
        return None
    name = _SPLITS.get(split.strip().lower(), split.strip())
    if not re.fullmatch(r"\w+", name) or name == "all":
        raise InputError(f"{where}: split {split!r}; expected train, dev, test, or another word of letters and digits")
    return name


_Rows = Iterator[tuple[str, Captioned]]  # where in the source, and what is there


def _rows(path: pathlib.Path) -> _Rows:
    if path.is_dir():
        return _scan(path)
    text = _text(path)
    return _json(path, text) if text.lstrip()[:1] in ("{", "[") else _lines(path, text)


def _text(path: pathlib.Path) -> str:
    check_no_web_page(path)
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if b"\0" in content:
        raise InputError(f"{path}: not a text in UTF-8; expected captions as --help lists them")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} line {line}: not UTF-8 ({error.reason}); expected UTF-8, as iconv -f LATIN1 -t UTF-8 makes it"
        ) from error


def _clean(where: str, caption: Any) -> str:
    if not isinstance(caption, str):
        raise InputError(f"{where}: a caption {caption!r}; expected text")
    caption = " ".join(caption.split())
    if len(caption) > MAX_CAPTION:
        raise InputError(f"{where}: {len(caption):,} characters; expected {MAX_CAPTION:,} at most")
    return caption


def _lines(path: pathlib.Path, text: str) -> _Rows:
    first = text.lstrip().partition("\n")[0]
    if _TOKEN.fullmatch(first.rstrip("\r")):
        return _tokens(path, text)
    return _csv(path, text, first)


def _tokens(path: pathlib.Path, text: str) -> _Rows:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            found = _TOKEN.fullmatch(line)
            if not found:
                raise InputError(f"{path} line {number}: {line[:60]!r}; expected NAME#NUMBER, a tab and the caption")
            yield f" line {number}", Captioned(found[1], found[1], (), None, (found[2],))


def _csv(path: pathlib.Path, text: str, header: str) -> _Rows:
    delimiter = max(",;\t|", key=header.count)
    reader = csv.DictReader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            where = f" line {reader.line_num}"
            if None in row:
                raise InputError(
                    f"{path}{where}: more cells than the {len(row) - 1} columns; expected a caption in quotes where it "
                    f"holds {delimiter!r}"
                )
            yield where, _row(f"{path}{where}", row)
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: not CSV ({error})") from error


def _row(where: str, row: dict[str, Any]) -> Captioned:
    """Returns what a row of CSV or a line of JSON says."""
    cells = {str(key).strip().lower(): value for key, value in row.items()}
    found = {part: next((cells[name] for name in names if name in cells), None) for part, names in COLUMNS.items()}
    if found["name"] is None or not str(found["name"]).strip():
        raise InputError(
            f"{where}: columns {', '.join(map(str, row))}; expected one of {', '.join(COLUMNS['name'])}, and one of "
            f"{', '.join(COLUMNS['caption'])}"
        )
    name = str(found["name"]).strip()
    captions = found["caption"] if isinstance(found["caption"], list) else [found["caption"] or ""]
    image_id = name if found["image_id"] is None else str(found["image_id"]).strip()
    return Captioned(name, image_id or name, (), found["split"], tuple(captions))


def _json(path: pathlib.Path, text: str) -> _Rows:
    lines = text.splitlines()
    try:
        whole = json.loads(text) if len(lines) == 1 or not _is_json(lines[0]) else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged JSON ({error})") from error
    if isinstance(whole, dict) and "annotations" in whole:
        return _coco(path, whole)
    if isinstance(whole, dict) and "images" in whole:
        return _karpathy(whole)
    return _json_lines(path, lines if whole is None else [whole] if isinstance(whole, dict) else whole)


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(path: pathlib.Path, lines: Iterable[Any]) -> _Rows:
    for number, line in enumerate(lines, start=1):
        if isinstance(line, str) and not line.strip():
            continue
        try:
            row = json.loads(line) if isinstance(line, str) else line
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} line {number}: not JSON ({error})") from error
        yield f" line {number}", _row(f"{path} line {number}", row)


def _karpathy(whole: dict[str, Any]) -> _Rows:
    for image in whole["images"]:
        name = str(pathlib.PurePosixPath(image.get("filepath", ""), image["filename"]))
        others = tuple(str(image[key]) for key in ("cocoid",) if key in image)
        captions = tuple(sentence["raw"] for sentence in image["sentences"])
        ids = tuple(str(sentence["sentid"]) for sentence in image["sentences"] if "sentid" in sentence)
        yield f", {name}", Captioned(name, str(image.get("imgid", name)), others, image.get("split"), captions, ids)


def _coco(path: pathlib.Path, whole: dict[str, Any]) -> _Rows:
    images = {image["id"]: str(image["file_name"]) for image in whole["images"]}
    for image_id, name in images.items():
        yield f", {name}", Captioned(name, str(image_id), (), None, ())
    for number, annotation in enumerate(whole["annotations"]):
        image_id = annotation["image_id"]
        if image_id not in images:
            raise InputError(f"{path}: annotation {number} is of image {image_id}; expected one of its images")
        caption, ids = annotation["caption"], (str(annotation["id"]),) if "id" in annotation else ()
        yield f", annotation {number}", Captioned(images[image_id], str(image_id), (), None, (caption,), ids)


def _scan(directory: pathlib.Path) -> _Rows:
    for path in sorted(directory.glob("*_caps.txt")):
        split = path.name.removesuffix("_caps.txt")
        ids_path = directory / f"{split}_ids.txt"
        num_images = len(read_lines(ids_path)) if scan_layout.owners_path(directory, split).exists() else 0
        texts = scan_layout.read_texts(directory, split, SCAN_CAPTIONS, num_images)
        captions: dict[int, list[str]] = collections.defaultdict(list)
        caption_ids: dict[int, list[str]] = collections.defaultdict(list)
        for image, caption in zip(texts.image_of_caption, texts.captions, strict=True):
            captions[image].append(caption)
        ids_there = coco_ids.read_file(directory, split, len(texts.captions))
        for image, caption_id in zip(texts.image_of_caption, [] if ids_there is None else ids_there, strict=False):
            caption_ids[image].append(str(caption_id))
        for image, (image_id, name) in enumerate(
            zip(texts.image_ids, texts.image_names or texts.image_ids, strict=True)
        ):
            texts_of_image = tuple(captions[image]), tuple(caption_ids[image])
            yield f", {split} picture {image}", Captioned(name, image_id, (), split, *texts_of_image)
