"""Which pictures go into which split, with which captions."""

import collections
import hashlib
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mhcvse_jax.data.lines import read_text_lines
from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.captions import Captioned, split_name
from mhcvse_jax.precompute.pictures import is_name

SEARCH = "search"
"""The split of pictures without captions, where there are no captions at all."""
NAMED_AT_MOST = 3


class Picture(NamedTuple):
    """A picture that gets a row."""

    name: str  # of its file, relative to the folder of all pictures
    image_id: str  # unique over all splits
    captions: tuple[str, ...]
    item: Any  # what its features are made from
    caption_ids: tuple[str, ...] = ()  # one per caption, where the source of captions has them


Plan = dict[str, list[Picture]]
"""By split."""


class Items:
    """The items that features can be made from, found by the names that sources of captions use."""

    def __init__(self, names: Mapping[str, Any]):
        """Makes the index; `names` has each item by its whole name or id."""
        self._items = names
        self._places: dict[str, list[str]] = collections.defaultdict(list)
        for name in names:
            path = pathlib.PurePosixPath(name)
            for key in {path.name, path.stem, _number(path.stem)} - {name, ""}:
                self._places[key].append(name)

    def find(self, wanted: Captioned) -> str | None:
        """Returns the whole name of the picture's item; None where there is none.

        It is looked for by the name of its file, then by that without folder or suffix, by COCO's number, and by its
        id where the source has no number of COCO's. Where both names have folders, these are the same.

        Raises:
          InputError: two items go by that name.
        """
        path = pathlib.PurePosixPath(wanted.name)
        ids = wanted.other_ids or (wanted.image_id,)
        for key in (wanted.name, path.name, path.stem, _number(path.stem), *ids):
            if key in self._items:
                return key
            places = [place for place in self._places.get(key, ()) if _same_folders(path, place)]
            if len(places) > 1:
                raise InputError(f"{wanted.name} is {places[0]} or {places[1]}; expected captions that name the folder")
            if places:
                return places[0]
        return None


def _same_folders(path: pathlib.PurePosixPath, other: str) -> bool:
    """Returns whether the folders of two paths do not contradict each other: the longer path ends as the shorter."""
    ours, theirs = path.parts[-2::-1], pathlib.PurePosixPath(other).parts[-2::-1]
    return all(a == b for a, b in zip(ours, theirs, strict=False))


def make_plan(
    items: Mapping[str, Any],
    captioned: Sequence[Captioned],
    *,
    lists: Mapping[str, Sequence[str]],
    shares: Mapping[str, float],
    seed: int,
    uncaptioned: str | None,
    items_are_files: bool,
) -> tuple[Plan, list[str]]:
    """Returns the pictures of each split, and lines that say what was left out.

    Args:
      items: what features can be made from, by name.
      captioned: the pictures that captions name.
      lists: names of the pictures of each split; others are left out. They override what `captioned` says.
      shares: the shares of dev and test, in [0, 1), if neither names splits.
      seed: the seed of the random splits: a picture's split depends on it, its name, and the number of pictures.
      uncaptioned: the split of pictures without captions; None leaves them out.
      items_are_files: whether an item's name is that of the picture's file; else it is the name that captions give.

    Raises:
      InputError: no picture has captions, a name fits two items, or an item two names; or a split cannot be made.
    """
    index, said = Items(items), []
    found: dict[str, Captioned] = {}
    missing = []
    for picture in captioned:
        name = index.find(picture)
        if name is None:
            missing.append(picture.name)
        elif name in found:
            raise InputError(f"captions of {found[name].name} and {picture.name} fit one picture, {name}; expected one")
        else:
            found[name] = picture
    if missing:
        said.append(f"{_count(len(missing), 'picture')} that captions name and are not there: {_some(missing)}")
    if captioned and not found:
        raise InputError(f"captions name no picture that is there; expected such as {_some(items)}, found {missing[0]}")
    silent = [name for name, picture in found.items() if not picture.captions]
    silent += [name for name in items if name not in found]
    found = {name: picture for name, picture in found.items() if picture.captions}
    places = _listed(index, lists, found) if lists else _given(found) or _shared(list(found), shares, seed)
    unlisted = [name for name in found if name not in places]
    if unlisted:
        said.append(f"{_count(len(unlisted), 'picture')} that no list of a split names: {_some(unlisted)}")
    if silent and uncaptioned is None:
        said.append(
            f"{_count(len(silent), 'picture')} without captions: {_some(silent)}; --uncaptioned SPLIT keeps them"
        )
    elif uncaptioned is not None:
        places |= dict.fromkeys(silent, uncaptioned)
    plan: Plan = collections.defaultdict(list)
    for name, split in places.items():
        known = found.get(name)
        if known:
            file_name = name if items_are_files else known.name
            picture = Picture(file_name, known.image_id, known.captions, items[name], known.caption_ids)
        else:
            picture = Picture(name, name, (), items[name])
        _check_texts(picture)
        plan[split].append(picture)
    ids = collections.Counter(picture.image_id for pictures in plan.values() for picture in pictures)
    twice = [image_id for image_id, count in ids.items() if count > 1]
    if twice:
        raise InputError(f"id {twice[0]} is that of {ids[twice[0]]} pictures; expected one each")
    return dict(plan), said


def read_list(path: pathlib.Path) -> list[str]:
    """Returns the names in a list of file names, one per line.

    Raises:
      InputError: the list is missing, empty, or not UTF-8.
    """
    names = [name for name in read_text_lines(path) if name]
    if not names:
        raise InputError(f"{path}: no name in it; expected file names of pictures, one per line")
    return names


def _listed(index: Items, lists: Mapping[str, Sequence[str]], found: Mapping[str, Captioned]) -> dict[str, str]:
    """Returns the split of each picture that has captions and is in a list, in the lists' order."""
    places: dict[str, str] = {}
    for split, names in lists.items():
        for listed in names:
            name = index.find(Captioned(listed, listed, (), None, ()))
            if name in places:
                raise InputError(
                    f"{listed} is listed twice, for {places[name]} and {split}; expected each picture once"
                )
            if name is not None and name in found:
                places[name] = split
        if split not in places.values():
            raise InputError(f"the list of {split} names no picture that is there and has captions")
    return places


def _given(found: Mapping[str, Captioned]) -> dict[str, str]:
    """Returns the split that the captions' source gives each picture; empty where it gives none."""
    places = {name: picture.split for name, picture in found.items() if picture.split}
    if places and len(places) < len(found):
        without = [picture.name for name, picture in found.items() if name not in places]
        raise InputError(f"{_count(len(without), 'picture')} without a split: {_some(without)}; expected all or none")
    return places


def _shared(names: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Returns a split for each picture: those whose names have the smallest digests are dev's and test's."""
    numbers = {split: max(1, round(share * len(names))) for split, share in shares.items() if share}
    if names and sum(numbers.values()) >= len(names):
        raise InputError(
            f"{_count(len(names), 'picture')} cannot be shared among {', '.join(numbers)} and train; expected more, or "
            "smaller shares"
        )
    left = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode(errors="replace")).digest())
    chosen: dict[str, str] = {}
    for split, number in numbers.items():
        chosen |= dict.fromkeys(left[:number], split)
        left = left[number:]
    return {name: chosen.get(name, "train") for name in names}


def _check_texts(picture: Picture) -> None:
    for text in (picture.name, picture.image_id):
        if not is_name(text):
            raise InputError(f"picture {text!r}: expected a name in UTF-8, of one line, without blanks at its ends")


def _number(stem: str) -> str:
    """Returns the number of a picture of COCO, without its zeros; empty where a name is not like its names."""
    found = re.fullmatch(r"(?:COCO_\w+_)?0*(\d+)", stem)
    return found[1] if found else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED_AT_MOST]) + (", ..." if len(names) > NAMED_AT_MOST else "")


def named_split(argument: str) -> tuple[str, pathlib.Path]:
    """Returns split and file of SPLIT=FILE.

    Raises:
      InputError: it is not of that form.
    """
    split, equals, path = argument.partition("=")
    name = split_name(argument, split) if equals else None
    if not name or not path:
        raise InputError(f"{argument}: expected SPLIT=FILE, such as train=train_names.txt")
    return name, pathlib.Path(path)
