"""What regions show, in words, if a data directory says so; it is shown to users, and no model reads it."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data.lines import read_text_lines
from mhcvse_jax.data.region_boxes import map_rows
from mhcvse_jax.errors import InputError

FILES = {"classes": "class_names.txt", "attributes": "attribute_names.txt"}
"""The names of the classes and attributes, in the order of their numbers, one per line: one file for all splits."""
NOUNS = {"classes": "class", "attributes": "attribute"}
SURE = 0.1  # score from which an attribute is told, as in the demonstrations of bottom-up attention


class RegionNames(NamedTuple):
    """Classes and attributes of a split's regions; None where the directory has none."""

    classes: np.ndarray | None  # <int>[images, regions]
    attributes: np.ndarray | None  # <int>[images, regions]
    attribute_scores: np.ndarray | None  # <float>[images, regions]
    names: dict[str, list[str]]  # of "classes" and of "attributes"; where one is not there, numbers stand for it

    def of(self, image: int) -> list[str]:
        """Returns what each region of a picture shows, such as "brown dog"; empty where there are no classes."""
        if self.classes is None:
            return []
        told = []
        for region, number in enumerate(self.classes[image].tolist()):
            words = [self.name("classes", number)]
            scores = self.attribute_scores
            if self.attributes is not None and (scores is None or scores[image, region] >= SURE):
                words.insert(0, self.name("attributes", int(self.attributes[image, region])))
            told.append(" ".join(words))
        return told

    def name(self, kind: str, number: int) -> str:
        """Returns the name of a class or of an attribute; `kind` is "classes" or "attributes"."""
        names = self.names.get(kind)
        return names[number] if names else f"{NOUNS[kind]} {number}"


def read(directory: pathlib.Path, split: str, num_images: int, num_regions: int) -> RegionNames:
    """Returns what `{split}_classes.npy`, `{split}_attributes.npy` and the files of names hold.

    Args:
      directory: the data.
      split: the name of the split.
      num_images: how many pictures are asked for, from the first of the split on.
      num_regions: rows of a picture's features; those that are not regions have number 0.

    Raises:
      InputError: a file is damaged or of another shape, or a number has no name.
    """
    arrays = {
        part: map_rows(directory / f"{split}_{part}.npy", num_images, (num_regions,))
        for part in ("classes", "attributes", "attribute_scores")
    }
    names = {kind: read_names(directory / file) for kind, file in FILES.items() if (directory / file).exists()}
    for kind, its_names in names.items():
        numbers = arrays[kind]
        if numbers is not None:
            check_names(directory / FILES[kind], its_names, numbers)
    return RegionNames(**arrays, names=names)


def read_names(path: pathlib.Path) -> list[str]:
    """Returns the names that a vocabulary holds, one per line: of several with commas between them, the first.

    A first line for the background, or for no attribute, is left out: numbers start after it.

    Raises:
      InputError: the file is missing, empty, not UTF-8, or has a blank line.
    """
    names = [line.split(",")[0].strip() for line in read_text_lines(path)]
    if names and names[0].strip("_").lower() in ("background", "no_attribute"):
        names = names[1:]
    if not names:
        raise InputError(f"{path}: no name in it; expected one per line, as in objects_vocab.txt")
    if "" in names:
        raise InputError(f"{path} line {names.index('') + 1}: no name; expected one per line, as in objects_vocab.txt")
    return names


def check_names(path: pathlib.Path, names: Sequence[str], numbers: np.ndarray) -> None:
    """Raises InputError where a number has no name."""
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(names):
        wrong = numbers.min() if numbers.min() < 0 else numbers.max()
        raise InputError(f"{path}: {len(names):,} names, and a region has number {wrong:,}; expected a name for each")
