"""Makes a data directory from region features that others extracted, and captions.

    mhcvse import-features --format butd_tsv --features trainval_36.tsv --captions dataset_coco.json --out data/coco
    mhcvse train --config f30k --config.data.dir=data/coco

The files are read once to index them and once for the features, and never held in memory; nothing in them is unpickled.
Features and captions are matched by file name or id; those without a match are counted. If the command is stopped, run
it again and it resumes; if you start it several times at once, the processes share the pictures.

Formats, and what --features names:

"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Iterator, Sequence

from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.errors import InputError
from mhcvse_jax.importers import IMPORTERS
from mhcvse_jax.importers.importer import Entry, Importer
from mhcvse_jax.precompute import directory, options
from mhcvse_jax.precompute.directory import Made, Maker, Target
from mhcvse_jax.precompute.plan import Picture, Plan
from mhcvse_jax.run import command_line
from mhcvse_jax.terminal.progress import counted

NAMED_AT_MOST = 10  # lines about what cannot be indexed
TRIED = 5  # pictures, by which features are told that are of another width


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.import_features") -> int:
    """Returns the exit code: 0 finished, 2 bad input, 3 it could not be written, 75 stopped."""
    which = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    which.add_argument(
        "--format", choices=IMPORTERS, default="butd_tsv", help="format of the features (default %(default)s)"
    )
    importer = IMPORTERS[which.parse_known_args(argv)[0].format]
    own = argparse.ArgumentParser(add_help=False)
    importer.add_options(own.add_argument_group(f"options of {importer.name}"))
    width = max(map(len, IMPORTERS))
    formats = "\n".join(f"  {name:{width}}  {known.summary}" for name, known in IMPORTERS.items())
    parser = command_line.parser(prog, f"{__doc__}{formats}", parents=[which, own])
    parser.add_argument(
        "--features", type=pathlib.Path, nargs="+", required=True, metavar="PATH", help="file, files or folder"
    )
    options.add(parser)
    arguments = command_line.parse(parser, argv)
    own_options = {name: getattr(arguments, name) for name in vars(own.parse_args([]))}
    return command_line.run(lambda: import_features(arguments, own_options))


def import_features(arguments: argparse.Namespace, own_options: dict) -> None:
    """Makes the directory and prints progress.

    Raises:
      InputError: features or captions cannot be used, or the directory holds something else.
    """
    names = options.names(arguments)
    importer = IMPORTERS[arguments.format](arguments.features, **own_options)
    print(f"indexing  {', '.join(map(str, arguments.features))}", flush=True)
    entries = read_index(importer, strict=arguments.strict)
    names = importer.names() | names
    plan = options.plan(arguments, entries, items_are_files=False)
    pictures = [picture for split in plan.values() for picture in split]
    width = features_width(importer, pictures)
    row_shape = max(picture.item.num_regions for picture in pictures), width
    target = Target(arguments.out, plan, FeatureSource(importer.name, None, {"width": width}), row_shape, names=names)
    directory.write(target, read_with(importer, width), strict=arguments.strict, order=in_reading_order(plan))


def read_index(importer: Importer, *, strict: bool) -> dict[str, Entry]:
    """Returns all pictures of a source by id, the first if an id appears twice; prints what cannot be used."""
    entries: dict[str, Entry] = {}
    damaged, twice = [], []
    with counted(*importer.size()) as done:
        for found in importer.index(done):
            if isinstance(found, InputError):
                if strict:
                    raise found
                damaged.append(found)
            elif entries.setdefault(found[0], found[1]) is not found[1]:
                twice.append(found[0])
    if not entries:
        raise damaged[0] if damaged else InputError("no picture in the features; expected one or more")
    for error in damaged[:NAMED_AT_MOST]:
        print(f"left out  {error}")
    if len(damaged) > NAMED_AT_MOST:
        print(f"left out  {len(damaged) - NAMED_AT_MOST:,} more such")
    if twice:
        print(f"left out  {len(twice):,} more of an id that was there before, such as {twice[0]}: the first is taken")
    return entries


def features_width(importer: Importer, pictures: Sequence[Picture]) -> int:
    """Returns the number of features per region that most of the first pictures have.

    Raises:
      InputError: none of these can be read.
    """
    widths, errors = [], []
    for picture in pictures[:TRIED]:
        try:
            widths.append(importer.read(picture.item).regions.features.shape[1])
        except InputError as error:
            errors.append(error)
    if not widths:
        raise errors[0]
    return statistics.mode(widths)


def in_reading_order(plan: Plan) -> list[tuple[str, int]]:
    """Returns split and place of all pictures, in the order of the source."""
    places = [(split, place) for split, pictures in plan.items() for place in range(len(pictures))]
    return sorted(places, key=lambda key: plan[key[0]][key[1]].item.place)


def read_with(importer: Importer, width: int) -> Maker:
    """Returns a function that reads the regions of pictures, all of one width."""

    def read(picture: Picture) -> Made | InputError:
        try:
            made = importer.read(picture.item)
        except InputError as error:
            return error
        shape, expected = made.regions.features.shape, (picture.item.num_regions, width)
        if shape != expected:
            return InputError(f"{picture.name}: features {shape}; expected {expected}, as others have them")
        return made

    def make(pictures: Sequence[Picture]) -> Iterator[Made | InputError]:
        return map(read, pictures)

    return make


if __name__ == "__main__":
    sys.exit(main())
