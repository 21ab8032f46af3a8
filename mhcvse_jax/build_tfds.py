"""Builds a tensorflow-datasets data set from a directory in SCAN's layout.

    mhcvse build-tfds data/f30k_precomp data/f30k_tfds
    mhcvse train --config f30k --config.data.format=tfds --config.data.dir=data/f30k_tfds

Builds every split that the directory has, as ArrayRecord shards with one record per picture. Training on the data set
sees the same batches as training on the directory: to the bit with float32, rounded with float16. Nothing is
downloaded, and TensorFlow is not needed. The data set appears when it is complete; an interrupted build leaves nothing
under its name.
"""

import contextlib
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tqdm

from mhcvse_jax.data import feature_source, scan_layout, tfds
from mhcvse_jax.data.scan_layout import ScanSplit
from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.run import command_line
from mhcvse_jax.terminal.progress import counted

_KNOWN_ORDER = ("train", "dev", "test", "testall")


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.build_tfds") -> int:
    """Returns the exit code: 0 built, 2 bad input, 3 it could not be written, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    parser.add_argument("source", type=path, help="a directory in SCAN's layout, or the built-in scenes")
    parser.add_argument("output", type=path, help="the directory to make; a run reads it with --config.data.dir")
    parser.add_argument(
        "--dtype",
        choices=tfds.DTYPES,
        default="float32",
        help="type of the features; float16 takes half the disk space (default float32)",
    )
    parser.add_argument(
        "--captions_per_image", type=int, default=5, metavar="N", help="captions per picture (default 5)"
    )
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: build(**vars(arguments)))


def build(source: pathlib.Path, output: pathlib.Path, dtype: str, captions_per_image: int) -> None:
    """Builds the data set, saying what it does.

    Raises:
      InputError: the source cannot be used, the output is not empty, or the disk has too little space.
      RunFailedError: a file cannot be written.
    """
    stored = np.dtype(dtype)
    if captions_per_image < 1:
        raise InputError(f"--captions_per_image is {captions_per_image}; expected 1 or more")
    check_output(output)
    print(f"reading   {source}", flush=True)
    splits = read_splits(source, captions_per_image)
    needed, free = bytes_needed(splits, stored), free_bytes(output)
    counts = ", ".join(f"{name} {split.num_images:,}" for name, split in splits.items())
    regions, width = next(iter(splits.values())).regions.shape[1:]
    print(f"pictures  {counts}; {regions} regions of {width}")
    print(f"building  {output}, {dtype}: {needed / 1e9:,.2f} GB; {free / 1e9:,.2f} GB are free", flush=True)
    if needed > free:
        raise InputError(f"{output}: the disk has {free / 1e9:,.2f} GB free; expected {needed / 1e9:,.2f} GB or more")
    started = time.monotonic()
    total = sum(split.num_images for split in splits.values())
    with partial_directory(output) as partial, counted(total, "picture") as done:
        try:
            built = tfds.write(
                splits,
                partial,
                dtype=stored,
                captions_per_image=captions_per_image,
                picture_done=lambda: done(1),
            )
            for name in splits:
                twins = source / f"{name}_twins.npz"  # the built-in data set's
                if twins.exists():
                    shutil.copyfile(twins, built / twins.name)
            feature_source.keep(source, built)
            built.rename(output)
        except OSError as error:
            raise RunFailedError(f"{output}: cannot be written ({error})") from error
    print(f"built     in {tqdm.tqdm.format_interval(time.monotonic() - started)}; train with")
    print(f"          --config.data.format=tfds --config.data.dir={output}")


def check_output(output: pathlib.Path) -> None:
    """Raises InputError where the output is there already, or something else is."""
    if scan_layout.is_tfds(output):
        raise InputError(f"{output} is a finished data set; delete it to build it again, or name another directory")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output} exists and is not empty; expected a new directory")


def read_splits(source: pathlib.Path, captions_per_image: int) -> dict[str, ScanSplit]:
    """Returns all splits of a directory in SCAN's layout, by name.

    Raises:
      InputError: there is none, a file of one is missing or damaged, or two splits' features differ in shape.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such directory; expected SCAN's layout")
    found = {path.name.rpartition("_")[0] for kind in ("ims.npy", "caps.txt") for path in source.glob(f"*_{kind}")}
    if not found:
        raise InputError(f"{source}: no train_ims.npy in it, nor one of another split; expected SCAN's layout")
    known = [name for name in _KNOWN_ORDER if name in found]
    splits = {}
    for name in (*known, *sorted(found.difference(known))):
        if not re.fullmatch(r"\w+", name) or name == "all":
            raise InputError(f"{source / name}_ims.npy: {name!r} cannot name a split; expected letters, and not 'all'")
        splits[name] = split = scan_layout.read_split(source, name, captions_per_image)
        first, expected = next(iter(splits.items()))
        if split.regions.shape[1:] != expected.regions.shape[1:]:
            raise InputError(
                f"{source / name}_ims.npy: regions and features are {split.regions.shape[1:]}; "
                f"expected those of {first}_ims.npy, {expected.regions.shape[1:]}"
            )
    return splits


def bytes_needed(splits: Mapping[str, ScanSplit], dtype: np.dtype) -> int:
    """Returns the most that a data set takes on disk."""
    total = 1 << 20
    for split in splits.values():
        texts = [*split.captions, *split.image_ids, *(split.image_names or [])]
        size = np.prod(split.regions.shape, dtype=np.int64) * dtype.itemsize
        size += 2 * sum(len(text.encode()) + 16 for text in texts)  # in the records and beside them
        size += 256 * split.num_images  # what surrounds a record and a feature in it
        total += int(size * 1.002) + (len(tfds.shards(split, dtype)) << 18)  # blocks of 64 KiB
    return total


def free_bytes(output: pathlib.Path) -> int:
    """Returns the free space of the disk that a directory is to be made on."""
    there = next(parent for parent in output.absolute().parents if parent.exists())
    return shutil.disk_usage(there).free


@contextlib.contextmanager
def partial_directory(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Context with a new directory beside the output, deleted at its end; a killed build leaves it.

    Raises:
      InputError: it is there already, or cannot be made.
    """
    partial = output.absolute().with_name(f".{output.name}.partial")
    try:
        partial.mkdir(parents=True)
    except FileExistsError as error:
        raise InputError(
            f"{partial} is there: a build of {output} is running, or was killed; if none is running, delete it "
            "and start again"
        ) from error
    except OSError as error:
        raise InputError(f"{output}: cannot be made ({error.strerror})") from error
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
