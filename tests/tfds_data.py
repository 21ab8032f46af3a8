"""A small directory in SCAN's layout, and the tensorflow-datasets data set built of it."""

import pathlib
import shutil

import numpy as np
import pytest
from numpy.lib.format import open_memmap

from mhcvse_jax import build_tfds
from mhcvse_jax.data import tfds
from mhcvse_jax.scenes.build import write_scenes

ROOT = pathlib.Path(__file__).parents[1]
TRAIN, DEV, TEST, REGIONS, WIDTH, PER_IMAGE = 37, 11, 7, 5, 13, 5
SIZES = {"train": TRAIN, "dev": DEV, "testall": TEST}


def write_source(directory):
    """Scenes as SCAN's copies are: dev five times over, ids a caption each there, COCO's name for the test split."""
    sizes = {"num_train": TRAIN, "num_dev": DEV, "num_test": TEST}
    write_scenes(directory, **sizes, num_regions=REGIONS, feature_dim=WIDTH, image_size=32, twin_share=0.5, seed=0)
    shutil.rmtree(directory / "images")
    for path in directory.glob("test_*"):
        path.rename(path.with_name(path.name.replace("test_", "testall_")))
    np.save(directory / "dev_ims.npy", np.repeat(np.load(directory / "dev_ims.npy"), PER_IMAGE, axis=0))
    ids = (directory / "dev_ids.txt").read_text().splitlines()
    (directory / "dev_ids.txt").write_text("".join(f"{name}\n" * PER_IMAGE for name in ids))
    (directory / "dev_image_names.txt").unlink()
    return directory


def build(source, output, dtype="float32"):
    """A data set of several shards a split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds, "SHARD_BYTES", 11 * REGIONS * WIDTH * np.dtype(dtype).itemsize)
        build_tfds.build(source, output, dtype, PER_IMAGE)
    return output


def write_zeros(directory, pictures):
    """A directory of the size that Flickr30k's has a picture; its sparse file takes no disk."""
    directory.mkdir()
    open_memmap(directory / "train_ims.npy", "w+", np.float32, (pictures, 36, 512))
    (directory / "train_caps.txt").write_text("a dog runs\n" * pictures * PER_IMAGE)
    (directory / "train_ids.txt").write_text("".join(f"{i}\n" for i in range(pictures)))
    return directory
