"""File names of pictures, and numbers of captions, from Karpathy's archive.

The archive has dataset_coco.json, dataset_flickr8k.json and dataset_flickr30k.json side by side. Each numbers its
pictures from 0, so an id alone does not tell which data set it is from: the split and the captions do.
"""

import functools
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_unpacked

SPLITS = {"train": ("train", "restval"), "dev": ("val", "dev"), "test": ("test",), "testall": ("test",)}
"""What Karpathy calls the splits of SCAN's layout."""


class _Sentence(NamedTuple):
    letters: int  # a hash
    number: int | None  # COCO's, in COCO's file


class _Image(NamedTuple):
    name: str  # with its folder, which COCO's have
    split: str | None
    sentences: tuple[_Sentence, ...]


def image_names(
    directory: pathlib.Path,
    split: str,
    image_ids: Sequence[str],
    captions: Sequence[str],
    image_of_caption: np.ndarray,
) -> list[str] | None:
    """Returns the file names of a split's pictures; None if no file of the directory describes them.

    A file describes them if it has all ids, in this split if it names splits. If several do, the captions decide.

    Raises:
      InputError: a file is damaged, or several give different names and the captions do not tell which is meant.
    """
    found: dict[pathlib.Path, list[str]] = {}
    confirmed = {}
    for path in sorted(set(directory.glob("dataset_*.json")) - {directory / "dataset_info.json"}):  # not tfds' own
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        stat = path.stat()
        images = _read(path, stat.st_size, stat.st_mtime_ns)
        own = [images.get(image_id) for image_id in image_ids]
        if any(image is None or image.split not in (None, *SPLITS.get(split, (image.split,))) for image in own):
            continue
        found[path] = [image.name for image in own if image is not None]
        pairs = zip(captions, image_of_caption.tolist(), strict=True)
        spoken = [{sentence.letters for sentence in image.sentences} for image in own if image is not None]
        same = [_letters(caption) in spoken[i] for caption, i in pairs]
        if 2 * sum(same) > len(same):
            confirmed[path] = found[path]
    fitting = confirmed or found
    if len({tuple(names) for names in fitting.values()}) > 1:
        raise InputError(
            f"{' and '.join(map(str, fitting))} both have the ids of {split}, and the captions do not tell which one "
            f"is meant; remove one, or add {split}_image_names.txt"
        )
    return next(iter(fitting.values()), None)


def caption_ids(
    path: pathlib.Path, image_ids: Sequence[str], captions: Sequence[str], image_of_caption: np.ndarray
) -> list[int] | None:
    """Returns the number that a file gives each caption; None where it lacks a picture or a caption, or a number.

    A picture's captions are told apart by their letters and digits; of equal ones the first in the file is the first.

    Raises:
      InputError: the file is damaged.
    """
    stat = path.stat()
    images = _read(path, stat.st_size, stat.st_mtime_ns)
    if any(image_id not in images for image_id in image_ids):
        return None
    left = [list(images[image_id].sentences) for image_id in image_ids]
    found = []
    for caption, image in zip(captions, image_of_caption.tolist(), strict=True):
        letters = _letters(caption)
        sentence = next((one for one in left[image] if one.letters == letters), None)
        if sentence is None or sentence.number is None:
            return None
        left[image].remove(sentence)
        found.append(sentence.number)
    return found


@functools.lru_cache(3)  # each split asks
def _read(path: pathlib.Path, *_version: int) -> dict[str, _Image]:
    """Returns the pictures by id; `_version` changes when the file does."""
    check_unpacked(path)
    images = {}

    def keep(node: dict) -> dict | _Sentence:
        # What is kept is small; all else, tokens say, is dropped at once.
        if "filename" in node:
            path = str(pathlib.PurePosixPath(node.get("filepath", ""), node["filename"]))
            own = tuple(one for one in node.get("sentences", ()) if isinstance(one, _Sentence))
            images[str(node["imgid"])] = _Image(path, node.get("split"), own)
        elif "raw" in node:
            return _Sentence(_letters(node["raw"]), node.get("sentid"))
        return {key: None for key in node if key == "images"}

    try:
        json.loads(path.read_text(encoding="utf-8"), object_hook=keep)["images"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not Karpathy's JSON with images, imgid, filename ({error!r})") from error
    return images


def _letters(caption: str) -> int:
    """Returns a hash of a caption that is the same with other punctuation and spaces, as copies have it."""
    return hash("".join(filter(str.isalnum, caption.lower())))
