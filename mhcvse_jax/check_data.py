"""Checks a data directory: what is missing or damaged, and what it holds.

    mhcvse check data/f30k_precomp

SCAN's layout, in which Flickr30k and MS-COCO are usually shared, has these files for each of the splits train, dev and
test (for COCO also testall):

    {split}_ims.npy    float32 [rows, 36, 2048] region features, one row per picture, or each picture five times over
    {split}_caps.txt   captions, UTF-8, one per line, five per picture, in the order of the pictures
    {split}_ids.txt    Karpathy's image ids, one per picture or one per caption
    {split}_image_names.txt or dataset_*.json   optional: file names of the pictures
    {split}_caption_images.txt   if the number of captions varies: one line per caption, the id of its picture; ids and
                       rows of features are then one per picture
    {split}_num_regions.npy   if the number of regions varies: whole numbers, how many rows of each picture are regions;
                       without it, config.data.zero_regions_are_padding leaves out trailing rows of zeros

f30k_precomp has 29,000 / 1,014 / 1,000 pictures, coco_precomp 113,287 for training and 5,000 in testall. Both were
published with SCAN (Lee et al., "Stacked Cross Attention for Image-Text Matching", ECCV 2018; GitHub repository
kuanghuei/SCAN); their features are those of "Bottom-Up and Top-Down Attention" (Anderson et al., CVPR 2018;
repository peteanderson80/bottom-up-attention). Your own features need the same three files per split.

Every feature is read, unless you give --quick. Exit codes: 0, the data are sound, though there may be warnings; 2, some
command would refuse them; 75, stopped.
"""

import collections
import itertools
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from mhcvse_jax.data import feature_source, lines, region_boxes, region_names, scan_layout, text
from mhcvse_jax.data.check_features import LISTED_AT_MOST, Findings, FoundSplit, read_features, same_features, some
from mhcvse_jax.errors import InputError
from mhcvse_jax.run import command_line

SPLITS = ("train", "dev", "test", "testall")
COMMON = 5  # classes and attributes of regions that are told
COMPARED_AT_MOST = 100  # pictures whose features are compared, of those with the same id


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.check_data") -> int:
    """Returns the exit code: 0 sound, 2 a command would refuse something, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    parser.add_argument("directory", type=pathlib.Path, metavar="DIR", help="the data directory, as in config.data.dir")
    parser.add_argument(
        "--captions_per_image", type=int, default=5, metavar="N", help="config.data.num_captions_per_image (default 5)"
    )
    parser.add_argument("--quick", action="store_true", help="do not read every feature")
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: check(arguments.directory, arguments.captions_per_image, quick=arguments.quick))


def check(directory: pathlib.Path, captions_per_image: int, *, quick: bool) -> None:
    """Prints what a directory in SCAN's layout holds, and everything that is wrong with it.

    Raises:
      InputError: a command would refuse something.
    """
    if captions_per_image < 1:
        raise InputError(f"--captions_per_image is {captions_per_image}; expected 1 or more")
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected SCAN's layout (--help says what that is)")
    source = feature_source.read(directory)
    print(f"{directory}, SCAN's layout{f', features of {source}' if source else ''}")
    findings = Findings()
    names = present_splits(directory, findings)
    splits = [check_split(directory, name, captions_per_image, findings) for name in names]
    compare_widths(splits, findings)
    compare_ids(splits, findings)
    if not quick:
        read_features(splits, findings)
    if findings.describe():
        print(findings.describe())
    if any("no such file" in problem or "is missing" in problem for problem in findings.problems):
        print("What the files are and where they come from: python -m mhcvse_jax.check_data --help")
    if findings.problems:
        raise InputError(f"{directory}: not sound; problems found: {len(findings.problems)}")
    print(f"sound{', as far as --quick looks' if quick else ''}; warnings: {len(findings.warnings) or 'none'}")


def present_splits(directory: pathlib.Path, findings: Findings) -> list[str]:
    """Returns the splits of which any file is there; those that are missing become problems."""
    files = {path.name for path in directory.iterdir()}
    expected = {name: [f"{name}_{rest}" for rest in ("ims.npy", "caps.txt", "ids.txt")] for name in SPLITS}
    present = [name for name in SPLITS if files.intersection(expected[name])]
    others = sorted(name.removesuffix("_ims.npy") for name in files if name.endswith("_ims.npy"))
    others = [name for name in others if name not in SPLITS]
    if others and not present:
        print("no train, dev or test: pictures to search in, not to train on")
        return others
    needed = ["train", "dev", *(["test"] if "testall" not in present else [])]
    for name in needed:
        if name not in present:
            instead = ", or those of testall" if name == "test" else ""
            findings.problems.append(f"{directory}: {name} is missing; expected {', '.join(expected[name])}{instead}")
    for absent in sorted(set(SPLITS) - set(present) - set(needed)):
        print(f"{absent:<10}absent, and not needed")
    findings.warnings += [
        f"{directory}/{name}_ims.npy: a split of another name than {', '.join(SPLITS)}" for name in others
    ]
    return present


def check_split(directory: pathlib.Path, name: str, captions_per_image: int, findings: Findings) -> FoundSplit:
    """Prints what the files of a split hold; of the features only the header and a few rows are read."""
    path, captions_path, ids_path = (directory / f"{name}_{rest}" for rest in ("ims.npy", "caps.txt", "ids.txt"))
    regions = findings.attempt(scan_layout.map_features, path)
    captions, wrong_lines = findings.attempt(lines.decode_captions, captions_path) or (None, [])
    findings.problems += wrong_lines[:LISTED_AT_MOST]
    if len(wrong_lines) > LISTED_AT_MOST:
        findings.problems.append(f"{captions_path}: {len(wrong_lines) - LISTED_AT_MOST:,} more such lines")
    rows = image_ids = num_images = owner = None
    owners_path = scan_layout.owners_path(directory, name)
    has_owners = owners_path.exists()
    if has_owners:
        captions_per_image = 1  # rows, ids and names are one per picture
        num_images = None if regions is None else len(regions)
    elif captions is not None:
        num_images = findings.attempt(scan_layout.count_images, len(captions), captions_path, captions_per_image)
    num_captions = None if captions is None else len(captions)
    print(f"{name:<10}{_number(num_images)} pictures, {_number(num_captions)} captions")
    if num_images:
        if regions is not None:
            rows = findings.attempt(scan_layout.image_rows, regions, num_images, captions_per_image, path)
        if has_owners:
            image_ids = findings.attempt(scan_layout.read_image_ids, ids_path, num_images)
        else:
            image_ids = findings.attempt(scan_layout.read_per_image, ids_path, num_images, captions_per_image)
    elif not ids_path.is_file():
        findings.problems.append(f"{ids_path}: no such file")
    if regions is not None:
        if regions.shape[1] == 1:
            _line("features of whole pictures: one region each")
        a_picture = "" if rows is None else f", rows per picture: {len(regions) // len(rows)}"
        _line(f"{path.name} {regions.dtype} {regions.shape}, {regions.nbytes / 1e9:.2f} GB{a_picture}")
        if regions.dtype != np.float32:
            findings.warnings.append(f"{path} holds {regions.dtype}; it is converted to float32 when it is read")
    if regions is not None and rows is not None:
        numbers = findings.attempt(scan_layout.read_num_regions, directory, name, len(rows), regions.shape[1])
        if numbers is not None:
            _line(f"regions per picture: {numbers.min()} to {numbers.max()}, {numbers.mean():.1f} on average")
        findings.attempt(region_boxes.read, directory, name, len(rows), regions.shape[1])
        told = findings.attempt(region_names.read, directory, name, len(rows), regions.shape[1])
        if told is not None and told.classes is not None:
            describe_classes(told, np.full(len(rows), regions.shape[1]) if numbers is None else numbers)
    if image_ids is not None and ids_path.exists():
        describe_ids(ids_path, image_ids, findings)
    if captions and has_owners:
        owner = image_ids and findings.attempt(scan_layout.read_owners, owners_path, image_ids, len(captions))
    elif captions:
        owner = np.arange(len(captions)) // captions_per_image
    if captions and image_ids is not None and owner is not None:
        known = image_ids, captions, owner
        names = findings.attempt(scan_layout.read_names, directory, name, *known, captions_per_image)
        _line(f"file names of the pictures: {'not known' if names is None else f'{names[0]}, ...'}")
    if captions and owner is not None:
        describe_captions(captions, owner, image_ids)
        if has_owners:
            describe_owners(owners_path, owner, num_images or 0)
    if name == "testall" and num_images and num_images % 5:
        findings.warnings.append(
            f"{captions_path}: {num_images:,} pictures, not the five equal folds of configs/coco.py"
        )
    return FoundSplit(name, path, regions, rows, image_ids)


def describe_ids(path: pathlib.Path, image_ids: list[str], findings: Findings) -> None:
    """Prints how many ids a file has, a picture or a caption, and their range; an id of two pictures is a warning."""
    for_each = "picture" if len(lines.read_lines(path)) == len(image_ids) else "caption"
    numbers = [int(image_id) for image_id in image_ids if image_id.isdecimal() and len(image_id) < 20]
    span = f", {min(numbers)} to {max(numbers)}" if len(numbers) == len(image_ids) else ", not all whole numbers"
    _line(f"{path.name} one per {for_each}{span}")
    twice = [image_id for image_id, count in collections.Counter(image_ids).items() if count > 1]
    if twice:
        findings.warnings.append(f"{path}: {len(twice):,} ids belong to more than one picture: {some(twice)}")


def describe_classes(told: region_names.RegionNames, num_regions: np.ndarray) -> None:
    """Prints what most regions show, of all that are regions."""
    for kind, numbers in (("classes", told.classes), ("attributes", told.attributes)):
        if numbers is not None:
            is_region = np.arange(numbers.shape[1]) < num_regions[:, None]
            counts = np.bincount(numbers[is_region])
            most = np.argsort(-counts, kind="stable")[: min(COMMON, np.count_nonzero(counts))].tolist()
            shares = ", ".join(f"{told.name(kind, number)} {counts[number] / counts.sum():.1%}" for number in most)
            _line(f"{kind} of regions: {np.count_nonzero(counts):,}; the most common: {shares}")


def describe_captions(captions: list[str], owner: np.ndarray, image_ids: list[str] | None) -> None:
    """Prints the lengths of the captions in tokens, and the captions of a few pictures with their ids."""
    lengths = np.array([len(text.tokenize(caption)) for caption in captions])
    _line(f"tokens per caption: {lengths.mean():.1f}, median {np.median(lengths):.0f}, longest {lengths.max()}")
    described, firsts = np.unique(owner, return_index=True)
    for place in sorted({0, len(described) // 2, len(described) - 1}):
        image_id = "without id" if image_ids is None else image_ids[described[place]]
        _line(f"picture {image_id}: {captions[firsts[place]]}")


def describe_owners(path: pathlib.Path, owner: np.ndarray, num_images: int) -> None:
    """Prints how many captions pictures have."""
    counts = np.bincount(owner, minlength=num_images)
    without = f"; {np.sum(counts == 0):,} pictures without captions" if not counts.all() else ""
    _line(
        f"{path.name}: {counts.min()} to {counts.max()} captions per picture, {counts.mean():.1f} on average{without}"
    )


def compare_widths(splits: Sequence[FoundSplit], findings: Findings) -> None:
    """Finds features of another shape than those of train."""
    train = next((split for split in splits if split.name == "train" and split.regions is not None), None)
    for split in splits:
        if train is not None and train.regions is not None and split.regions is not None:
            findings.attempt(scan_layout.check_widths, split.path, split.regions.shape, train.regions.shape)


def compare_ids(splits: Sequence[FoundSplit], findings: Findings) -> None:
    """Finds pictures that are in two splits by their ids."""
    known = [(split, split.image_ids) for split in splits if split.image_ids is not None]
    for (one, one_ids), (other, other_ids) in itertools.combinations(known, 2):
        places = {image_id: i for i, image_id in enumerate(one_ids)}
        shared = [(places[image_id], i) for i, image_id in enumerate(other_ids) if image_id in places]
        if not shared:
            continue
        ids = some([one_ids[i] for i, _ in shared])
        if (one.name, other.name) == ("test", "testall"):
            print(f"{len(shared):,} pictures of test are also in testall, as expected if test is a part of it: {ids}")
            continue
        comparable = shared[:COMPARED_AT_MOST] if one.rows is not None and other.rows is not None else []
        compared = [same_features(one, i, other, j) for i, j in comparable]
        if any(compared):
            judged = f"a leak: {sum(compared)} of the first {len(compared)} have the same features there"
        elif not compared:
            judged = "a leak, unless each split numbers its pictures from 0"
        else:
            judged = "their features differ, so each split may number its pictures from 0; if not, a leak"
        findings.warnings.append(
            f"{other.path.parent}: {len(shared):,} pictures of {other.name} are also in {one.name}, by their ids "
            f"({ids}): {judged}"
        )


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _line(fact: str) -> None:
    print(f"{'':<10}{fact}")


if __name__ == "__main__":
    sys.exit(main())
