"""A directory in SCAN's layout, memory-mapped: what every user of this field has on disk.

    {split}_ims.npy   float32 [rows, regions, features], one row a picture or each picture five times over
    {split}_caps.txt  one caption a line, UTF-8, five lines a picture, in picture order
    {split}_ids.txt   Karpathy image ids, one a picture or one a caption

and, where the user has them, file names: {split}_image_names.txt (one a picture or one a caption) or Karpathy's
dataset_*.json, found by image id.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError


class ScanSplit(NamedTuple):
    """One split of a directory; nothing of the features is read before it is asked for."""

    regions: np.ndarray  # <float>[rows, regions, features], memory-mapped
    rows: np.ndarray  # <int64>[images] the row of each picture
    captions: list[str]  # [images * captions_per_image]
    image_ids: list[str]  # [images] Karpathy ids
    image_names: list[str] | None  # [images] file names, where known

    @property
    def num_images(self) -> int:
        """Pictures, each counted once."""
        return len(self.rows)


def read_split(directory: pathlib.Path, split: str, captions_per_image: int) -> ScanSplit:
    """Returns a split, its counts checked against each other.

    Raises:
      InputError: a file is missing, damaged or of another kind, or two files' counts do not fit.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected SCAN's layout with {split}_ims.npy in it")
    regions_path = directory / f"{split}_ims.npy"
    captions_path = directory / f"{split}_caps.txt"
    regions = _map_features(regions_path)
    captions = read_captions(captions_path)
    num_images, left_over = divmod(len(captions), captions_per_image)
    if left_over or not captions:
        raise InputError(
            f"{captions_path} has {len(captions)} captions; expected a multiple of {captions_per_image}, "
            "the captions of a picture"
        )
    if len(regions) == num_images:
        rows = np.arange(num_images)
    elif len(regions) == len(captions):
        rows = np.arange(num_images) * captions_per_image
        _check_repeats(regions, captions_per_image, regions_path)
    else:
        raise InputError(
            f"{regions_path} has {len(regions)} rows and {captions_path.name} {len(captions)} captions; "
            f"expected one row a picture ({num_images}) or one a caption ({len(captions)})"
        )
    counts = (num_images, captions_per_image)
    image_ids = _per_image(directory / f"{split}_ids.txt", *counts)
    names_path = directory / f"{split}_image_names.txt"
    image_names = _per_image(names_path, *counts) if names_path.exists() else _karpathy_names(directory, image_ids)
    return ScanSplit(regions, rows, captions, image_ids, image_names)


def read_captions(path: pathlib.Path) -> list[str]:
    """Returns the captions of a file, one a line.

    Raises:
      InputError: the file is missing, a line is empty or not UTF-8.
    """
    captions = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            caption = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"{path} line {number}: not UTF-8 ({error.reason} at byte {error.start})") from error
        if not caption:
            raise InputError(f"{path} line {number}: an empty caption")
        captions.append(caption)
    return captions


def _lines(path: pathlib.Path) -> list[bytes]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    lines = path.read_bytes().split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def _map_features(path: pathlib.Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected region features")
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy array of numbers ({error})") from error
    if not isinstance(features, np.ndarray) or features.ndim != 3 or features.dtype.kind != "f":
        found = f"{features.dtype} {features.shape}" if isinstance(features, np.ndarray) else "an archive"
        raise InputError(f"{path} holds {found}; expected floating-point [pictures, regions, features]")
    return features


def _check_repeats(regions: np.ndarray, repeats: int, path: pathlib.Path) -> None:
    """Raises where the first or the last picture's rows differ: then a row is not a picture over again."""
    for start in (0, len(regions) - repeats):
        if any(not np.array_equal(regions[start], regions[row]) for row in range(start, start + repeats)):
            raise InputError(
                f"{path} has one row a caption, but rows {start} to {start + repeats - 1} differ; "
                "expected one picture, repeated for each of its captions"
            )


def _per_image(path: pathlib.Path, num_images: int, captions_per_image: int) -> list[str]:
    """Returns one line a picture from a file with one a picture or one a caption."""
    lines = [line.decode("utf-8", errors="replace").strip() for line in _lines(path)]
    if len(lines) == num_images:
        return lines
    if len(lines) == num_images * captions_per_image:
        firsts = lines[::captions_per_image]
        repeated = [line for line in firsts for _ in range(captions_per_image)]
        if repeated != lines:
            wrong = next(i for i, (a, b) in enumerate(zip(lines, repeated, strict=True)) if a != b)
            raise InputError(f"{path} line {wrong + 1}: {lines[wrong]!r}; expected {repeated[wrong]!r}, as before")
        return firsts
    raise InputError(
        f"{path} has {len(lines)} lines; expected one a picture ({num_images}) "
        f"or one a caption ({num_images * captions_per_image})"
    )


def _karpathy_names(directory: pathlib.Path, image_ids: list[str]) -> list[str] | None:
    """Returns file names by image id from Karpathy's JSON; None where there is none, or ids it does not know."""
    for path in sorted(directory.glob("dataset_*.json")):
        try:
            images = json.loads(path.read_text(encoding="utf-8"))["images"]
            # COCO's pictures lie in folders, Flickr30k's in one.
            names = {str(i["imgid"]): str(pathlib.PurePosixPath(i.get("filepath", ""), i["filename"])) for i in images}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not Karpathy's JSON with images, imgid, filename ({error!r})") from error
        if all(image_id in names for image_id in image_ids):
            return [names[image_id] for image_id in image_ids]
    return None
