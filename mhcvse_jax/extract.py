"""Makes a data directory from a folder of pictures and their captions.

    mhcvse extract --images photos --captions captions.csv --out data/mine
    mhcvse train --config pictures --config.data.dir=data/mine

Captions may be CSV or JSON lines (file name, caption, split if known), Flickr's token file, Karpathy's or COCO's JSON,
or a directory in SCAN's layout; a picture may have any number of them. Splits come from the captions or --split_list;
otherwise pictures are assigned at random by --seed. Without captions, all pictures become one split,
named search.

If the command is stopped, run it again and it resumes. If you start it several times at once, the processes share the
pictures. A picture that cannot be read is named and left out. features.json in the directory says what made the
features.
"""

import argparse
import concurrent.futures
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.encoders import ENCODERS
from mhcvse_jax.encoders.encoder import Encoder
from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute import directory, options
from mhcvse_jax.precompute.directory import Made, Maker, Target
from mhcvse_jax.precompute.pictures import find_pictures, num_pixels, read_picture
from mhcvse_jax.precompute.plan import Picture
from mhcvse_jax.run import command_line

BATCH = 8  # pictures that are decoded while as many are encoded
BATCH_PIXELS = 32_000_000  # at most in a batch of more than one picture


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.extract") -> int:
    """Returns the exit code: 0 finished, 2 bad input, 3 it could not be written, 75 stopped."""
    which = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    which.add_argument(
        "--encoder", choices=ENCODERS, default="efficientnet_lite2", help="its options are below (default %(default)s)"
    )
    encoder = ENCODERS[which.parse_known_args(argv)[0].encoder]
    own = argparse.ArgumentParser(add_help=False)
    encoder.add_options(own.add_argument_group(f"options of {encoder.name}"))
    parser = command_line.parser(prog, __doc__, parents=[which, own])
    parser.add_argument(
        "--weights", type=pathlib.Path, metavar="FILE", help="weights of the encoder (default: those in its package)"
    )
    parser.add_argument(
        "--images", type=pathlib.Path, required=True, metavar="DIR", help="folder of pictures, with its subfolders"
    )
    options.add(parser)
    arguments = command_line.parse(parser, argv)
    encoder_options = {name: getattr(arguments, name) for name in vars(own.parse_args([]))}
    return command_line.run(lambda: extract(arguments, encoder_options))


def extract(arguments: argparse.Namespace, encoder_options: dict) -> None:
    """Makes the directory and prints progress.

    Raises:
      InputError: pictures, captions or weights cannot be used, or the directory holds something else.
    """
    images, names = arguments.images, options.names(arguments)
    found = find_pictures(images)
    print(f"reading   {images}: {len(found.names):,} picture{'s' if found.names[1:] else ''}", flush=True)
    if found.odd and arguments.strict:
        raise InputError(f"{images}: {found.odd[0]}")
    for line in found.odd:
        print(f"left out  {line}")
    items = {name: images / name for name in found.names}
    plan = options.plan(arguments, items, items_are_files=True)
    from mhcvse_jax.devices.compilation import keep_compiled  # here, so that --help does not wait for JAX

    keep_compiled()
    encoder = ENCODERS[arguments.encoder](arguments.weights, **encoder_options)
    source = FeatureSource(encoder.name, encoder.weights_sha256, encoder.settings())
    row_shape = encoder.max_regions, encoder.regions_width
    target = Target(arguments.out, plan, source, row_shape, images, encoder.part_size, names)
    directory.write(target, encode_with(encoder), strict=arguments.strict)


def encode_with(encoder: Encoder) -> Maker:
    """Returns a function that makes regions of pictures: it decodes one batch while it encodes the one before."""
    threads = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="decode")

    def make(pictures: Sequence[Picture]) -> Iterator[Made | InputError]:
        batches = _batches([picture.item for picture in pictures])
        ahead = [threads.submit(_attempt, path) for path in next(batches)]
        while ahead:
            batch = [future.result() for future in ahead]
            ahead = [threads.submit(_attempt, path) for path in next(batches, ())]
            regions = iter(encoder.encode([read for read in batch if isinstance(read, np.ndarray)]))
            for read in batch:
                yield Made(next(regions), read.shape[1::-1]) if isinstance(read, np.ndarray) else read

    return make


def _batches(paths: Sequence[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    """Yields the files in batches of limited pixels, so that pictures decoded together fit into memory."""
    batch, pixels = [], 0
    for path in paths:
        its_pixels = num_pixels(path)
        if batch and (len(batch) == BATCH or pixels + its_pixels > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(path)
        pixels += its_pixels
    yield batch


def _attempt(path: pathlib.Path) -> np.ndarray | InputError:
    try:
        return read_picture(path)
    except InputError as error:
        return error


if __name__ == "__main__":
    sys.exit(main())
