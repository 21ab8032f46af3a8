"""Reads every feature of a data directory: mean, range, and features that are not finite, all zero or duplicated."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.terminal.progress import counted, say

BLOCK_BYTES = 1 << 25  # read at once
LISTED_AT_MOST = 10  # of the lines or pictures that have the same problem


class Findings:
    """The problems, in the order found."""

    def __init__(self):
        self.problems: list[str] = []  # a run refuses these
        self.warnings: list[str] = []

    def attempt(self, function: Callable, *arguments: Any) -> Any:
        """Returns the function's result; None if it raises InputError, which becomes a problem."""
        try:
            return function(*arguments)
        except InputError as error:
            self.problems.append(str(error))
            return None

    def describe(self) -> str:
        """Returns all of it, one per line."""
        lines = [f"problem   {problem}" for problem in self.problems]
        return "\n".join(lines + [f"warning   {warning}" for warning in self.warnings])


@dataclasses.dataclass(frozen=True, eq=False)
class FoundSplit:
    """What could be read of a split; None for what could not."""

    name: str
    path: pathlib.Path  # of the features
    regions: np.ndarray | None  # <float>[rows, regions, features], memory-mapped
    rows: np.ndarray | None  # <int64>[images]
    image_ids: list[str] | None  # [images]

    @property
    def repeats(self) -> int:
        """Rows of each picture; 1 where that is not known."""
        return 1 if self.regions is None or self.rows is None else len(self.regions) // len(self.rows)

    def picture(self, image: int) -> str:
        """Returns a name for a picture: its id, or its row if the id is unknown."""
        if self.image_ids is None or self.rows is None:
            return f"row {image * self.repeats}"
        return self.image_ids[image]


def some(names: Sequence[str]) -> str:
    """Returns the first few of them."""
    more = f", and {len(names) - LISTED_AT_MOST:,} more" if len(names) > LISTED_AT_MOST else ""
    return ", ".join(names[:LISTED_AT_MOST]) + more


def same_features(one: FoundSplit, image: int, other: FoundSplit, other_image: int) -> bool:
    """Whether two pictures have identical features; False if these cannot be read."""
    if one.regions is None or other.regions is None:
        return False
    return np.array_equal(one.regions[image * one.repeats], other.regions[other_image * other.repeats])


def read_features(splits: Sequence[FoundSplit], findings: Findings) -> None:
    """Reads all features of all splits, prints their mean and range, and finds what is wrong with them."""
    readable = [(split, split.regions) for split in splits if split.regions is not None]
    first_with: dict[int, tuple[FoundSplit, int]] = {}  # pictures, by the hash of their first region
    twice = collections.defaultdict(list)
    with counted(sum(len(regions) for _, regions in readable), "row") as done:
        for split, regions in readable:
            scan = FeatureScan(split)
            for start, block in _blocks(regions, split.repeats):
                scan.add(start, block)
                done(len(block))
                for image, digest in scan.digests(start, block):
                    earlier, place = first_with.setdefault(digest, (split, image))
                    if earlier is not split or place != image:
                        twice[earlier, split].append((place, image))
            say(f"{'':<10}{scan.describe()}")
            scan.report(findings)
    for (one, other), pictures in twice.items():
        _report_twins(one, other, pictures, findings)


def _blocks(regions: np.ndarray, repeats: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the first row and <float32>[rows, regions, features] of blocks of whole pictures."""
    step = max(1, BLOCK_BYTES // (regions[0].nbytes * repeats)) * repeats
    for start in range(0, len(regions), step):
        with np.errstate(over="ignore"):  # of float64: infinite, as a run finds it
            yield start, np.asarray(regions[start : start + step], np.float32)


def _report_twins(one: FoundSplit, other: FoundSplit, pictures: list[tuple[int, int]], findings: Findings) -> None:
    """Adds the pictures whose features are those of another; in two splits, where their ids do not tell already."""
    if (one.name, other.name) == ("test", "testall"):
        return
    found = [
        f"{other.picture(j)} as {one.picture(i)}"
        for i, j in pictures
        if (one is other or one.picture(i) != other.picture(j)) and same_features(one, i, other, j)
    ]
    if found:
        where, judged = ("", "") if one is other else (f" of {one.name}", ": a leak")
        findings.warnings.append(
            f"{other.path}: {len(found):,} pictures have exactly the features of another{where}{judged} ({some(found)})"
        )


class FeatureScan:
    """Mean and range of a split's features, and which pictures have something wrong."""

    def __init__(self, split: FoundSplit):
        self._split = split
        self._least, self._most, self._total, self._count = np.inf, -np.inf, 0.0, 0
        self._zero_regions = 0
        self._not_finite: list[str] = []
        self._zero: list[str] = []
        self._differing: list[str] = []

    def add(self, start: int, block: np.ndarray) -> None:
        """Takes <float32>[rows, regions, features] of whole pictures, from the row `start` on."""
        repeats = self._split.repeats
        values = block
        if not np.isfinite([block.min(), block.max()]).all():
            finite = np.isfinite(block)
            values = block[finite]
            for row, region in np.argwhere(np.logical_not(finite.all(axis=2))).tolist():
                if row % repeats == 0:  # a run reads no other; if these are not the same, that is said below
                    image = self._split.picture((start + row) // repeats)
                    self._not_finite.append(f"{image} (row {start + row}, region {region})")
        if values.size:
            self._least, self._most = min(self._least, values.min()), max(self._most, values.max())
            self._total += float(values.sum())
            self._count += values.size
        zero = block[:, :, 0] == 0  # few pass this, which is cheap
        zero[zero] = np.logical_not(block[zero].any(axis=1))
        self._zero_regions += int(zero.sum())
        first = start // repeats
        self._zero += [self._split.picture(first + i) for i in np.flatnonzero(zero[::repeats].all(axis=1)).tolist()]
        if repeats > 1:
            bits = block.view(np.uint32).reshape(-1, repeats, block[0].size)  # of which NaN equals itself
            differing = (bits[:, 1:] != bits[:, :1]).any(axis=(1, 2))
            self._differing += [self._split.picture(first + i) for i in np.flatnonzero(differing).tolist()]

    def digests(self, start: int, block: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yields each picture of a block that is not all zero, with a hash of its first region."""
        repeats = self._split.repeats
        for image, picture in enumerate(block[::repeats], start // repeats):
            if picture.any():
                yield image, hash(picture[0].tobytes())

    def describe(self) -> str:
        """Returns mean and range as a line."""
        return (
            f"{self._split.path.name}: mean {self._total / max(self._count, 1):.4g}, "
            f"from {self._least:.4g} to {self._most:.4g}; regions that are all zero: {self._zero_regions:,}"
        )

    def report(self, findings: Findings) -> None:
        """Adds what is wrong."""
        path = self._split.path
        if self._not_finite:
            regions = f"{len(self._not_finite):,} regions"
            findings.problems.append(f"{path}: NaN or infinity in {regions}, in the pictures {some(self._not_finite)}")
        if self._zero:
            findings.warnings.append(f"{path}: {len(self._zero):,} pictures are all zero: {some(self._zero)}")
        if self._differing:
            findings.problems.append(
                f"{path}: the rows of {len(self._differing):,} pictures differ: {some(self._differing)}; expected one "
                "picture, repeated for each of its captions"
            )
