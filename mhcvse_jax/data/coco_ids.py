"""COCO's number of each caption of a split, which annotations beyond COCO's own five captions refer to.

The numbers come from one of these files of a data directory, the first that exists:

    {split}_capids.txt     one line per caption, as `mhcvse extract` and `import-features` write it
    coco_test_ids.npy      whole numbers, one per caption of COCO's 5,000 test pictures, in their order
    dataset_coco.json      Karpathy's: `sentid` of each sentence, found by the picture's id and the caption's letters
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from mhcvse_jax.data import karpathy
from mhcvse_jax.data.lines import read_text_lines
from mhcvse_jax.data.numbers import read_whole_numbers
from mhcvse_jax.errors import InputError

TEST_IDS, KARPATHY = "coco_test_ids.npy", "dataset_coco.json"


def read(
    directory: pathlib.Path,
    split: str,
    image_ids: Sequence[str],
    captions: Sequence[str],
    image_of_caption: np.ndarray,
) -> np.ndarray:
    """Returns <int64>[captions], COCO's number of each caption of a split, each once.

    Raises:
      InputError: no file of the directory gives them, or one is damaged or belongs to another split.
    """
    found = read_file(directory, split, len(captions))
    where = directory / f"{split}_capids.txt"
    if found is None and (directory / TEST_IDS).exists():
        where = directory / TEST_IDS
        found = read_whole_numbers(where, len(captions), "caption").astype(np.int64)
    if found is None and (directory / KARPATHY).exists():
        where = directory / KARPATHY
        numbers = karpathy.caption_ids(where, image_ids, captions, image_of_caption)
        if numbers is None:
            raise InputError(
                f"{where}: not of the pictures and captions of {split}; expected each picture by its imgid in "
                f"{split}_ids.txt, and each caption as it stands there"
            )
        found = np.array(numbers, np.int64)
    if found is None:
        raise InputError(
            f"{directory} does not say which of COCO's captions those of {split} are; expected {split}_capids.txt, "
            f"one number per caption, {TEST_IDS} or {KARPATHY}"
        )
    if len(np.unique(found)) < len(found):
        raise InputError(f"{where}: two captions have the same number of COCO's; expected one each")
    return found


def read_file(directory: pathlib.Path, split: str, num_captions: int) -> np.ndarray | None:
    """Returns <int64>[captions] of {split}_capids.txt; None where there is none.

    Raises:
      InputError: the file has the wrong number of lines, or a line is not a whole number.
    """
    path = directory / f"{split}_capids.txt"
    if not path.exists():
        return None
    lines = read_text_lines(path)
    if len(lines) != num_captions:
        raise InputError(f"{path} has {len(lines)} lines; expected one per caption ({num_captions})")
    for number, line in enumerate(lines, start=1):
        if not (line.isascii() and line.isdigit()):
            raise InputError(f"{path} line {number}: {line[:80]!r}; expected a whole number, COCO's of the caption")
    return np.array(lines, np.int64)
