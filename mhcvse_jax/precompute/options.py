"""The options that both commands share: captions, splits, output."""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

from mhcvse_jax.data import region_names
from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.captions import read_captions, split_name
from mhcvse_jax.precompute.plan import SEARCH, Plan, make_plan, named_split, read_list

NAMES = {"classes": "--class_names", "attributes": "--attribute_names"}
EXAMPLES = {"classes": "objects_vocab.txt", "attributes": "attributes_vocab.txt"}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="the data directory to make")
    parser.add_argument(
        "--captions",
        action="append",
        default=[],
        metavar="[SPLIT=]FILE",
        help="captions of all splits, or of one; may be repeated",
    )
    parser.add_argument(
        "--split_list",
        action="append",
        default=[],
        metavar="SPLIT=FILE",
        help="file names of a split's pictures, one per line; repeat it for each split",
    )
    for split in ("dev", "test"):
        parser.add_argument(
            f"--{split}_share",
            type=_share,
            default=0.1,
            metavar="X",
            help=f"share of the pictures for {split}, if nothing names splits (default %(default)s)",
        )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random splits (default %(default)s)")
    parser.add_argument(
        "--uncaptioned",
        metavar="SPLIT",
        help=f"split for pictures without captions (default: they are left out; {SEARCH} if no picture has captions)",
    )
    for kind, option in NAMES.items():
        parser.add_argument(
            option,
            type=pathlib.Path,
            metavar="FILE",
            help=f"names of the {kind} of regions, one per line, such as {EXAMPLES[kind]}; results then show names",
        )
    parser.add_argument("--strict", action="store_true", help="stop at the first picture that cannot be used")


def plan(arguments: argparse.Namespace, items: Mapping[str, Any], *, items_are_files: bool) -> Plan:
    """Returns the pictures of each split; prints what was left out.

    Args:
      arguments: what `add` added.
      items: what features can be made from, by name.
      items_are_files: whether that name is the picture's file name.

    Raises:
      InputError: an option or the captions cannot be used.
    """
    captioned = []
    for argument in arguments.captions:
        split, path = (None, pathlib.Path(argument)) if "=" not in argument else named_split(argument)
        captioned += read_captions(path, split)
    lists = {split: read_list(path) for split, path in map(named_split, arguments.split_list)}
    if lists and not captioned:
        raise InputError("--split_list without --captions; expected both, or neither")
    made, said = make_plan(
        items,
        captioned,
        lists=lists,
        shares={"dev": arguments.dev_share, "test": arguments.test_share},
        seed=arguments.seed,
        uncaptioned=split_name("--uncaptioned", arguments.uncaptioned) or (None if captioned else SEARCH),
        items_are_files=items_are_files,
    )
    for line in said:
        print(f"left out  {line}")
    counts = ", ".join(
        f"{split} {len(pictures):,} with {sum(len(picture.captions) for picture in pictures):,} captions"
        for split, pictures in made.items()
    )
    print(f"pictures  {counts}", flush=True)
    return made


def names(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the names of "classes" and of "attributes", those that are given.

    Raises:
      InputError: a file of names cannot be used.
    """
    paths = {"classes": arguments.class_names, "attributes": arguments.attribute_names}
    return {kind: region_names.read_names(path) for kind, path in paths.items() if path is not None}


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected a number from 0 to below 1")
    return share
