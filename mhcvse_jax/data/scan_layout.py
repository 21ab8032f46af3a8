"""A directory in SCAN's layout, memory-mapped: the common data format of this field.

    {split}_ims.npy   float32 [rows, regions, features], one row per picture or each picture five times over; features
                      of whole pictures, [rows, features], are one region each
    {split}_caps.txt  one caption per line, UTF-8, five lines per picture, in picture order
    {split}_ids.txt   Karpathy image ids, one per picture or one per caption

and optionally file names: {split}_image_names.txt (one per picture or one per caption) or Karpathy's dataset_*.json,
matched by image id, split and captions. Text files may have Windows line endings and a byte order mark.

If the number of captions varies, there is one more file, and one row of features per picture:

    {split}_caption_images.txt   one line per caption: the id of its picture. The ids are then unique, one per picture;
                                 without a file of ids a picture's id is its place, from 0

If the number of regions varies, pictures are padded at their end, and one more file says how many they have:

    {split}_num_regions.npy      whole numbers [pictures], 1 or more, the regions of each; the rest is ignored

SCAN (Lee et al., "Stacked Cross Attention for Image-Text Matching", ECCV 2018; repository kuanghuei/SCAN) published
f30k_precomp and coco_precomp. Their features are those of "Bottom-Up and Top-Down Attention" (Anderson et al., CVPR
2018; repository peteanderson80/bottom-up-attention): the 36 surest regions of a Faster R-CNN, 2,048 numbers each.
"""

import contextlib
import pathlib
import textwrap
import warnings
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data import karpathy
from mhcvse_jax.data.lines import read_captions, read_lines, read_text_lines
from mhcvse_jax.data.numbers import read_whole_numbers
from mhcvse_jax.data.regions import MappedRegions, RegionFeatures
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_no_web_page, check_unpacked

CAPTIONS_KEY = "config.data.num_captions_per_image (check and build-tfds: --captions_per_image)"


class ScanSplit(NamedTuple):
    """One split of a directory; features are read only when asked for."""

    regions: RegionFeatures
    captions: list[str]  # [captions]
    image_of_caption: np.ndarray  # <int32>[captions]
    image_ids: list[str]  # [images] Karpathy ids
    image_names: list[str] | None  # [images] file names, where known
    num_regions: np.ndarray | None = None  # <int32>[images]; None: every picture has all

    @property
    def num_images(self) -> int:
        """Pictures, each counted once."""
        return len(self.image_ids)


class Texts(NamedTuple):
    """What is known about a split's pictures besides their features; the fields are those of `ScanSplit`."""

    captions: list[str]
    image_of_caption: np.ndarray
    image_ids: list[str]
    image_names: list[str] | None


def read_split(directory: pathlib.Path, split: str, captions_per_image: int) -> ScanSplit:
    """Returns a split, with its counts checked against each other.

    Raises:
      InputError: a file is missing, damaged or of another kind, or the counts of two files do not match.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected SCAN's layout with {split}_ims.npy in it")
    regions_path = directory / f"{split}_ims.npy"
    regions = map_features(regions_path)
    texts = read_texts(directory, split, captions_per_image, len(regions))
    repeats = 1 if owners_path(directory, split).exists() else captions_per_image
    rows = image_rows(regions, len(texts.image_ids), repeats, regions_path)
    num_regions = read_num_regions(directory, split, len(rows), regions.shape[1])
    return ScanSplit(MappedRegions(regions, rows, len(regions) // len(rows)), *texts, num_regions)


def read_texts(directory: pathlib.Path, split: str, captions_per_image: int, num_rows: int) -> Texts:
    """Returns the captions, ids and file names of a split, with their counts checked against each other.

    Args:
      directory: where they are.
      split: the name of the split.
      captions_per_image: used only if no file says which picture a caption belongs to.
      num_rows: how many rows of features there are; used only if such a file exists.

    Raises:
      InputError: a file is missing or damaged, or the counts of two files do not match.
    """
    captions_path, ids_path = directory / f"{split}_caps.txt", directory / f"{split}_ids.txt"
    captions = read_captions(captions_path)
    if not captions and not owners_path(directory, split).exists():
        raise InputError(f"{captions_path} has no captions; expected one or more")
    if owners_path(directory, split).exists():
        image_ids = read_image_ids(ids_path, num_rows)
        image_of_caption = read_owners(owners_path(directory, split), image_ids, len(captions))
        captions_per_image = 1  # of the file of names, which is one per picture then
    else:
        num_images = count_images(len(captions), captions_path, captions_per_image)
        image_ids = read_per_image(ids_path, num_images, captions_per_image)
        image_of_caption = equal_owners(num_images, captions_per_image)
    names = read_names(directory, split, image_ids, captions, image_of_caption, captions_per_image)
    return Texts(captions, image_of_caption, image_ids, names)


def find_splits(directory: pathlib.Path) -> list[str]:
    """Returns the splits of a directory that have features; those of training, validation and test first.

    Raises:
      InputError: there are none.
    """
    names = {path.name.removesuffix("_ims.npy") for path in directory.glob("?*_ims.npy")}
    if not names:
        raise InputError(f"{directory}: no features in it; expected SCAN's layout, with train_ims.npy for example")
    first = [name for name in ("train", "dev", "test") if name in names]
    return [*first, *sorted(names.difference(first))]


def owners_path(directory: pathlib.Path, split: str) -> pathlib.Path:
    """Returns the path of the file that names the picture of each caption."""
    return directory / f"{split}_caption_images.txt"


def equal_owners(num_images: int, captions_per_image: int) -> np.ndarray:
    """Returns <int32>[captions], the picture of each caption, if all pictures have equally many, side by side."""
    return np.repeat(np.arange(num_images, dtype=np.int32), captions_per_image)


def read_image_ids(path: pathlib.Path, num_rows: int) -> list[str]:
    """Returns the ids of the pictures, each unique: those of the file, or 0, 1, 2, ... where there is none.

    Raises:
      InputError: a line is empty or not UTF-8, an id occurs twice, or there are not as many ids as rows of features.
    """
    if not path.exists():
        return [str(image) for image in range(num_rows)]
    image_ids = read_per_image(path, num_rows, 1)
    place = {image_id: number for number, image_id in enumerate(image_ids)}
    if len(place) < num_rows:
        line = next(number for number, image_id in enumerate(image_ids) if place[image_id] != number)
        raise InputError(
            f"{path}: {image_ids[line]!r} in line {line + 1} is also the id of another picture; expected unique ids, "
            f"as {owners_path(path.parent, path.name.removesuffix('_ids.txt')).name} names pictures by them"
        )
    return image_ids


def read_owners(path: pathlib.Path, image_ids: list[str], num_captions: int) -> np.ndarray:
    """Returns <int32>[captions], the picture of each caption.

    Raises:
      InputError: the file is not UTF-8, has another number of lines, or names a picture that does not exist.
    """
    lines = read_text_lines(path)
    if len(lines) != num_captions:
        raise InputError(f"{path} has {len(lines)} lines; expected one per caption ({num_captions})")
    place = {image_id: number for number, image_id in enumerate(image_ids)}
    for number, line in enumerate(lines, start=1):
        if line not in place:
            raise InputError(
                f"{path} line {number}: no picture has the id {line[:80]!r}; expected one of "
                f"{', '.join(image_ids[:3])}, ..."
            )
    return np.array([place[line] for line in lines], np.int32)


def is_tfds(directory: pathlib.Path) -> bool:
    """Whether the directory holds a finished tensorflow-datasets data set, of this or another kind."""
    return (directory / "dataset_info.json").is_file()


def map_features(path: pathlib.Path) -> np.ndarray:
    """Returns <float16, 32 or 64>[rows, regions, features], memory-mapped; of the file only its header is read.

    Features of whole pictures, [rows, features], are one region each.

    Raises:
      InputError: the file is missing, cut short, or holds anything else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected region features")
    check_no_web_page(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # that Python 2 wrote the header, which is no harm
            features = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header fails in almost any way
        check_unpacked(path)
        reason = textwrap.shorten(str(error) or type(error).__name__, 200)
        raise InputError(f"{path}: not a whole .npy array of numbers ({reason})") from error
    if not isinstance(features, np.ndarray):
        features.close()
        raise InputError(f"{path} holds an archive; expected one array, [pictures, regions, features]")
    found = f"{features.dtype} {features.shape}"
    if features.ndim == 2:
        features = features[:, None]
    if features.ndim != 3 or features.dtype.kind != "f" or features.dtype.itemsize > 8:
        raise InputError(
            f"{path} holds {found}; expected float32 [pictures, regions, features] or [pictures, features]"
        )
    if not features.size:
        raise InputError(f"{path} holds {found}; expected one picture, one region and one feature or more")
    if not features.flags.c_contiguous:
        raise InputError(
            f"{path} holds {found} in Fortran order, which scatters each picture over the whole file; "
            "expected C order, which numpy.ascontiguousarray produces"
        )
    return features


def num_regions_path(directory: pathlib.Path, split: str) -> pathlib.Path:
    """Returns the path of the file that says how many regions the pictures of a split have."""
    return directory / f"{split}_num_regions.npy"


def read_num_regions(directory: pathlib.Path, split: str, num_images: int, most: int) -> np.ndarray | None:
    """Returns <int32>[images], how many regions each picture has, 1 to `most`; None where no file says it.

    Raises:
      InputError: the file is damaged, or holds anything else.
    """
    path = num_regions_path(directory, split)
    if not path.exists():
        return None
    numbers = read_whole_numbers(path, num_images, "picture")
    wrong = np.flatnonzero((numbers < 1) | (numbers > most))
    if len(wrong):
        raise InputError(
            f"{path}: picture {wrong[0]} (counted from 0) has {numbers[wrong[0]]} regions; expected 1 to {most}"
        )
    return numbers.astype(np.int32)


def check_widths(path: pathlib.Path, shape: tuple[int, ...], train_shape: tuple[int, ...]) -> None:
    """Raises InputError where the features of a split have another shape than those of train."""
    if shape[1:] != train_shape[1:]:
        raise InputError(
            f"{path}: regions and features are {shape[1:]}; expected those of train_ims.npy, {train_shape[1:]}"
        )


def count_images(num_captions: int, path: pathlib.Path, captions_per_image: int) -> int:
    """Returns how many pictures the captions of a file belong to.

    Raises:
      InputError: there are none, or they do not divide evenly.
    """
    num_images, left_over = divmod(num_captions, captions_per_image)
    if left_over or not num_captions:
        raise InputError(
            f"{path} has {num_captions} captions; expected a multiple of {captions_per_image}, "
            f"the number of captions per picture{advice(path, num_captions, captions_per_image)}"
        )
    return num_images


def advice(captions_path: pathlib.Path, num_captions: int, captions_per_image: int) -> str:
    """Returns what to do about a number of captions that does not fit."""
    varying = owners_path(captions_path.parent, captions_path.name.removesuffix("_caps.txt")).name
    return suggestion(captions_path, num_captions, captions_per_image) or (
        f"; set {CAPTIONS_KEY} to the right number; if it varies, add {varying}, with the picture of each caption"
    )


def suggestion(captions_path: pathlib.Path, num_captions: int, captions_per_image: int) -> str:
    """Returns the number of captions per picture that the rows of features or the ids suggest; "" for none."""
    split = captions_path.name.removesuffix("_caps.txt")
    counts: dict[str, int] = {}
    with contextlib.suppress(InputError):
        counts["rows of features"] = len(map_features(captions_path.with_name(f"{split}_ims.npy")))
    with contextlib.suppress(InputError):
        counts["ids"] = len(read_lines(captions_path.with_name(f"{split}_ids.txt")))
    for what, count in counts.items():
        if count and num_captions % count == 0 and num_captions // count not in (1, captions_per_image):
            return f"; {count} {what} suggest {num_captions // count}: set {CAPTIONS_KEY}"
    return ""


def image_rows(regions: np.ndarray, num_images: int, captions_per_image: int, path: pathlib.Path) -> np.ndarray:
    """Returns <int64>[images], the row of each picture: one row is a picture, or a picture for each of its captions.

    Raises:
      InputError: the file has the wrong number of rows, or one row per caption and a picture's rows differ.
    """
    num_captions = num_images * captions_per_image
    if len(regions) == num_images:
        return np.arange(num_images)
    if captions_per_image == 1:
        raise InputError(f"{path} has {len(regions)} rows; expected one per picture ({num_images})")
    if len(regions) != num_captions:
        captions_name = path.name.replace("_ims.npy", "_caps.txt")
        raise InputError(
            f"{path} has {len(regions)} rows and {captions_name} {num_captions} captions; "
            f"expected one row per picture ({num_images}) or one per caption ({num_captions})"
            f"{advice(path.with_name(captions_name), num_captions, captions_per_image)}"
        )
    rows = np.arange(num_images) * captions_per_image
    for start in {0, int(rows[-1])}:  # the first and the last picture tell whether a row is a picture over again
        repeats = regions[start : start + captions_per_image]
        if not np.array_equal(repeats, np.broadcast_to(repeats[0], repeats.shape), equal_nan=True):
            raise InputError(
                f"{path} has one row per caption, but rows {start} to {start + captions_per_image - 1} differ; "
                "expected one picture, repeated for each of its captions"
            )
    return rows


def read_per_image(path: pathlib.Path, num_images: int, captions_per_image: int) -> list[str]:
    """Returns one line per picture from a file with one per picture or one per caption.

    Raises:
      InputError: the file is missing or not UTF-8, has another number of lines, an empty one, or lines that differ
        within a picture.
    """
    lines = read_text_lines(path)
    num_captions = num_images * captions_per_image
    if "" in lines:
        raise InputError(f"{path} line {lines.index('') + 1} is empty; expected one per picture or one per caption")
    if len(lines) not in (num_images, num_captions):
        a_caption = hint = ""
        if captions_per_image > 1:
            a_caption = f" or one per caption ({num_captions})"
            captions_path = path.with_name(f"{path.name.rsplit('_ids.txt')[0].rsplit('_image_names.txt')[0]}_caps.txt")
            hint = suggestion(captions_path, num_captions, captions_per_image)
        raise InputError(f"{path} has {len(lines)} lines; expected one per picture ({num_images}){a_caption}{hint}")
    if len(lines) == num_images:
        return lines
    firsts = lines[::captions_per_image]
    repeated = [line for line in firsts for _ in range(captions_per_image)]
    if repeated != lines:
        wrong = next(i for i, (a, b) in enumerate(zip(lines, repeated, strict=True)) if a != b)
        found, expected = lines[wrong][:80], repeated[wrong][:80]
        raise InputError(f"{path} line {wrong + 1}: {found!r}; expected {expected!r}, as before")
    return firsts


def read_names(
    directory: pathlib.Path,
    split: str,
    image_ids: list[str],
    captions: list[str],
    image_of_caption: np.ndarray,
    captions_per_image: int,
) -> list[str] | None:
    """Returns the file names of pictures, from a list or from Karpathy's JSON; None where unknown.

    Raises:
      InputError: a file is damaged, or several of Karpathy's files match.
    """
    path = directory / f"{split}_image_names.txt"
    if path.exists():
        return read_per_image(path, len(image_ids), captions_per_image)
    return karpathy.image_names(directory, split, image_ids, captions, image_of_caption)
