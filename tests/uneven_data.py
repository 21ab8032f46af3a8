"""A directory whose pictures have any number of captions, and the options of a short run on it."""

import numpy as np
from PIL import Image

TEXT = "man woman dog boy ball bright blue brown baby bicycle runs jumps sits holds red green hat tree snow field"
WORDS = TEXT.split()
IMAGES = {"train": 29, "dev": 11, "test": 14}
REGIONS, FEATURES = 5, 7


def write(directory):
    """A directory whose pictures have 0 to 7 captions, in any order, and ids that are no numbers."""
    (directory / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, num_images in IMAGES.items():
        counts = rng.permutation(np.arange(num_images) % 8)
        owner = rng.permutation(np.repeat(np.arange(num_images), counts))
        captions = [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in owner]
        np.save(directory / f"{split}_ims.npy", rng.random((num_images, REGIONS, FEATURES), np.float32))
        names = [f"{split}-{i}" for i in range(num_images)]
        for kind, lines in {
            "caps": captions,
            "ids": names,
            "caption_images": [names[i] for i in owner],
            "image_names": [f"{name}.png" for name in names],
        }.items():
            (directory / f"{split}_{kind}.txt").write_text("".join(f"{line}\n" for line in lines))
        for name in names:
            Image.new("RGB", (9, 5)).save(directory / "images" / f"{name}.png")
    return directory


def options(directory, workdir, *more):
    values = (
        *(
            "num_epochs=1",
            "batch_size=16",
            "eval.batch_size=8",
            "concepts.num=7",
            "concepts.shares=(1, 0, 0)",
            "concepts.vector_dim=5",
        ),
        *("model.embedding_dim=10", "model.word_dim=5", "model.num_heads=2", "data.caption_lengths=(16,)"),
        *("text.min_count=2", "log.matches=3", "eval.folds=(1, 2)", f"data.dir={directory}", *more),
    )
    return ("--config", "configs/f30k_small.py", "--workdir", workdir, *(f"--config.{value}" for value in values))
