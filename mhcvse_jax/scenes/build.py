"""Writes the built-in data set to disk in SCAN's layout, with its pictures.

python -m mhcvse_jax.scenes.build OUT --train 3000 --dev 200 --test 500
"""

import argparse
import json
import os
import random
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from mhcvse_jax.errors import InputError
from mhcvse_jax.scenes.describe import NUM_CAPTIONS, describe, is_true
from mhcvse_jax.scenes.draw import draw
from mhcvse_jax.scenes.featurise import featurise, propose_boxes
from mhcvse_jax.scenes.scene import SPLITS, Scene, sample_pair

VERSION = 1  # of the generator; raise it with every change to what it writes
MANIFEST = "scenes.json"


class _Picture(NamedTuple):
    """A scene and its number within its split; its twin and the twin's number (None and -1 for most)."""

    number: int
    scene: Scene
    twin_number: int
    twin: Scene | None


def write_scenes(
    directory: str | os.PathLike[str],
    *,
    num_train: int,
    num_dev: int,
    num_test: int,
    num_regions: int,
    feature_dim: int,
    image_size: int,
    twin_share: float,
    seed: int,
    picture_done: Callable[[], object] = lambda: None,
) -> bool:
    """Writes the data set; returns whether it did, False if the directory holds it already.

    For each split of N pictures, `train`, `dev` and `test`:

    - `{split}_ims.npy`: <float32>[N, num_regions, feature_dim] region features.
    - `{split}_boxes.npy`: <float32>[N, num_regions, 4] the regions' x0, y0, x1, y1 in pixels.
    - `{split}_caps.txt`: five captions per picture, one per line, in picture order.
    - `{split}_ids.txt`: one picture id per line, unique over the splits.
    - `{split}_image_names.txt`: its file's name in `images/`, one per line.
    - `{split}_twins.npz`: `twin` <int64>[N], the number within the split of the picture with the same objects
      in other relations, or -1; `tells_apart` <bool>[5 N], whether a caption is false of the twin.

    `images/` holds the pictures as PNG, `scenes.json` the arguments. No two splits share a picture's objects.
    A picture, its captions and its features depend only on `seed`, its split and its number, so that a larger
    split begins with the pictures of a smaller one. (If a split's size is odd, the twin of its last picture may
    be missing.) The directory appears in one step, when everything in it is complete.

    Args:
      directory: created if missing; otherwise it must be empty or hold exactly this data set.
      num_train: pictures in the split; at least 1, as `num_dev` and `num_test`.
      num_dev: see `num_train`.
      num_test: see `num_train`.
      num_regions: at least 4.
      feature_dim: features per region, at least 1.
      image_size: pixels per side, at least 32.
      twin_share: the share of pictures that have a twin, in [0, 1].
      seed: any integer.
      picture_done: called after each picture.

    Raises:
      InputError: an argument is out of its range, or the directory holds anything else.
    """
    sizes = dict(zip(SPLITS, (num_train, num_dev, num_test), strict=True))
    arguments = {f"num_{split}": size for split, size in sizes.items()} | {
        "num_regions": num_regions,
        "feature_dim": feature_dim,
        "image_size": image_size,
        "twin_share": twin_share,
        "seed": seed,
    }
    least = {f"num_{split}": 1 for split in SPLITS} | {"num_regions": 4, "feature_dim": 1, "image_size": 32}
    for name, bound in least.items():
        if arguments[name] < bound:
            raise InputError(f"scenes: {name} is {arguments[name]}, expected at least {bound}")
    if not 0 <= twin_share <= 1:
        raise InputError(f"scenes: twin_share is {twin_share}, expected a number from 0 to 1")

    manifest = {"format": "mhcvse_jax scenes", "version": VERSION, "arguments": arguments}
    target = Path(directory).resolve()
    if _holds_already(target, manifest):
        return False
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        (partial / "images").mkdir(parents=True)
        for split, size in sizes.items():
            for _ in _write_split(partial, split, size, arguments):
                picture_done()
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return _publish(partial, target, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _holds_already(directory: Path, manifest: dict[str, Any]) -> bool:
    """Returns whether the directory holds the data set; False if it is missing or empty.

    Raises:
      InputError: it holds anything else.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        found = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        arguments = {"version": found["version"], **found["arguments"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{directory}: holds no {MANIFEST} that can be read, expected a data set of scenes or nothing"
        ) from None
    expected = {"version": manifest["version"], **manifest["arguments"]}
    differing = [key for key in expected if arguments.get(key) != expected[key]]
    if differing:
        there = ", ".join(f"{key}={arguments.get(key)}" for key in differing)
        asked = ", ".join(f"{key}={expected[key]}" for key in differing)
        raise InputError(f"{directory}: holds scenes made with {there}, expected {asked}")
    return True


def _publish(partial: Path, target: Path, manifest: dict[str, Any]) -> bool:
    """Moves the finished directory to its place; returns False if another process has put the same there before."""
    try:
        if target.is_dir():
            target.rmdir()
        partial.rename(target)
    except OSError:
        if _holds_already(target, manifest):
            return False
        raise
    return True


def _pictures(split: str, size: int, seed: int, twin_share: float) -> Iterator[_Picture]:
    for first in range(0, size, 2):
        pair = sample_pair(seed, split, first // 2, twin_share)
        scenes = (pair.first, pair.second)
        for number in range(first, min(first + 2, size)):
            other = 2 * first + 1 - number
            yield _Picture(
                number,
                scenes[number - first],
                other if pair.twins and other < size else -1,
                scenes[other - first] if pair.twins else None,
            )


def _write_split(directory: Path, split: str, size: int, arguments: dict[str, Any]) -> Iterator[int]:
    """Writes the files of one split; yields the number of each picture that is done."""
    num_regions, image_size, seed = (arguments[key] for key in ("num_regions", "image_size", "seed"))
    features = open_memmap(
        directory / f"{split}_ims.npy", "w+", np.float32, (size, num_regions, arguments["feature_dim"])
    )
    boxes = np.zeros((size, num_regions, 4), np.float32)
    twins = np.full(size, -1, np.int64)
    tells_apart = np.zeros((size, NUM_CAPTIONS), bool)
    lines: dict[str, list[str]] = {"caps": [], "ids": [], "image_names": []}
    for number, scene, twin_number, twin in _pictures(split, size, seed, arguments["twin_share"]):
        name = f"{split}_{number:05d}.png"
        image = draw(scene, image_size)
        image.save(directory / "images" / name, compress_level=1)
        boxes[number] = propose_boxes(scene, random.Random(f"{seed}/{split}/{number}/boxes"), num_regions, image_size)
        features[number] = featurise(image, boxes[number], arguments["feature_dim"])
        captions = describe(scene, random.Random(f"{seed}/{split}/{number}/captions"), twin)
        if twin is not None and twin_number >= 0:
            twins[number] = twin_number
            tells_apart[number] = [not is_true(caption, twin, loosely=True) for caption in captions]
        lines["caps"] += [caption.text for caption in captions]
        lines["ids"].append(str(number * len(SPLITS) + SPLITS.index(split)))
        lines["image_names"].append(name)
        yield number
    features.flush()
    np.save(directory / f"{split}_boxes.npy", boxes)
    np.savez(directory / f"{split}_twins.npz", twin=twins, tells_apart=tells_apart.reshape(-1))
    for kind, texts in lines.items():
        (directory / f"{split}_{kind}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8", newline="\n")


def main(argv: list[str] | None = None) -> int:
    """Writes the data set that the command line asks for; returns 0, or 2 if the arguments cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m mhcvse_jax.scenes.build",
        description="Draws and describes a data set of scenes, in SCAN's layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("directory", help="where to write it; left as it is if it holds this data set")
    for split, size in zip(SPLITS, (3000, 200, 500), strict=True):
        parser.add_argument(
            f"--{split}", dest=f"num_{split}", type=int, default=size, help=f"{split} pictures", metavar="N"
        )
    parser.add_argument("--num-regions", type=int, default=12, help="regions per picture", metavar="N")
    parser.add_argument("--feature-dim", type=int, default=256, help="features per region", metavar="N")
    parser.add_argument("--image-size", type=int, default=112, help="pixels per side", metavar="N")
    parser.add_argument("--twin-share", type=float, default=0.2, help="chance that two pictures are twins", metavar="X")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another data set", metavar="N")
    arguments = vars(parser.parse_args(argv))
    try:
        written = write_scenes(**arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments['directory']}: {'written' if written else 'is there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
