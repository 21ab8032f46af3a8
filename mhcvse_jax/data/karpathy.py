"""File names of pictures from Karpathy's archive: dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json.

The archive has all three side by side, and each counts its pictures from 0, so that an id alone does not tell whose it
is: the split and the captions do.
"""

import functools
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError

SPLITS = {"train": ("train", "restval"), "dev": ("val", "dev"), "test": ("test",), "testall": ("test",)}
"""What Karpathy calls the splits of SCAN's layout."""


class _Image(NamedTuple):
    name: str  # with its folder, which COCO's have
    split: str | None
    captions: frozenset[int]  # hashes of their letters and digits


def image_names(
    directory: pathlib.Path,
    split: str,
    image_ids: Sequence[str],
    captions: Sequence[str],
    image_of_caption: np.ndarray,
) -> list[str] | None:
    """Returns the file names of a split's pictures; None where no file of the directory is of them.

    A file is of them if it has all ids, in this split where it says so. Of several the captions decide.

    Raises:
      InputError: a file is damaged, or several give other names and the captions do not tell which is meant.
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
        same = [_letters(caption) in image.captions for caption, i in pairs if (image := own[i]) is not None]
        if 2 * sum(same) > len(same):
            confirmed[path] = found[path]
    fitting = confirmed or found
    if len({tuple(names) for names in fitting.values()}) > 1:
        raise InputError(
            f"{' and '.join(map(str, fitting))} both have the ids of {split}, and the captions do not tell which is "
            f"meant; expected one of them alone, or {split}_image_names.txt"
        )
    return next(iter(fitting.values()), None)


@functools.lru_cache(3)  # each split asks
def _read(path: pathlib.Path, *_version: int) -> dict[str, _Image]:
    """Returns the pictures by id; `_version` changes when the file does."""
    images = {}

    def keep(node: dict) -> dict | int:
        # What is kept is small; all else, tokens say, is dropped at once.
        if "filename" in node:
            path = str(pathlib.PurePosixPath(node.get("filepath", ""), node["filename"]))
            own = frozenset(one for one in node.get("sentences", ()) if isinstance(one, int))
            images[str(node["imgid"])] = _Image(path, node.get("split"), own)
        elif "raw" in node:
            return _letters(node["raw"])
        return {key: None for key in node if key == "images"}

    try:
        json.loads(path.read_text(encoding="utf-8"), object_hook=keep)["images"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not Karpathy's JSON with images, imgid, filename ({error!r})") from error
    return images


def _letters(caption: str) -> int:
    """Returns a hash of a caption that is the same with other punctuation and spaces, as copies have it."""
    return hash("".join(filter(str.isalnum, caption.lower())))
