"""Data of Flickr30k's size and caption lengths on a machine that has nothing but this repository.

    python -m benchmarks.synthetic DIR                                       # SCAN's layout, full size: 9.1 GB
    python -m benchmarks.synthetic DIR --train 600 --dev 100 --test 100 --features 256

Captions are made-up words, features are noise: nothing can be learned from them. Real are the counts, the number of
tokens of the captions with stop words and without (from all 145,000 training captions, by this program's tokeniser),
and the number of words in the vocabulary.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from mhcvse_jax.data.batches import Batch, padded_length
from mhcvse_jax.data.text import SPECIAL_TOKENS
from mhcvse_jax.layers.captions import Captions

NUM_IMAGES = {"train": 29_000, "dev": 1_014, "test": 1_000}
CAPTIONS_PER_IMAGE = 5
VOCABULARY_SIZE = 8_369  # stop words removed
# Captions with 3, 4, 5, ... tokens, `<start>` and `<end>` included; stop words removed and kept.
LENGTHS_REMOVED = """3 55 678 4891 15059 22667 24334 21368 16654 11929 8323 5635 3795 2784 1924 1294 993 695 468 346
    303 170 124 117 98 60 53 44 26 26 14 19 5 11 9 8 6 1 0 4 1 2 1 1 0 1 0 0 0 0 0 1"""
LENGTHS_KEPT = """0 11 47 255 1005 3256 7174 10086 11989 13517 14054 13223 11756 10344 9097 7406 6073 4864 4024 3250
    2545 2173 1615 1299 1076 920 716 594 440 360 337 253 207 154 164 118 88 89 60 56 50 32 42 22 18 22 12 6 16 7 14 11
    9 3 7 6 5 2 4 2 1 0 0 2 1 1 2 0 2 1 1 1 1 0 0 0 0 0 1 0 0 1"""
FIRST_LENGTH = 3


def caption_lengths(quantiles: np.ndarray, *, remove_stop_words: bool) -> np.ndarray:
    """Returns <int32>[...] the number of tokens at these places, 0 to 1, among the captions sorted by length."""
    counts = np.array((LENGTHS_REMOVED if remove_stop_words else LENGTHS_KEPT).split(), np.int64)
    cumulative = np.cumsum(counts) / counts.sum()
    return (FIRST_LENGTH + np.searchsorted(cumulative, quantiles, side="right")).astype(np.int32)


def make_batch(
    rng: np.random.Generator,
    *,
    size: int,
    regions_shape: tuple[int, int],
    vocabulary_size: int,
    num_concepts: int,
    shapes: Sequence[int],
    remove_stop_words: bool = True,
) -> Batch:
    """Returns a training batch as it would come: captions of real lengths, padded to the first shape that fits."""
    lengths = caption_lengths(rng.random(size), remove_stop_words=remove_stop_words)
    longest = padded_length(int(lengths.max()), shapes)
    tokens = rng.integers(len(SPECIAL_TOKENS), vocabulary_size, (size, longest)).astype(np.int32)
    tokens[np.arange(longest) >= lengths[:, None]] = 0
    return Batch(
        regions=rng.standard_normal((size, *regions_shape), dtype=np.float32),
        captions=Captions(tokens, lengths, labels=rng.random((size, num_concepts)) < 6 / num_concepts),
        image_index=rng.choice(max(NUM_IMAGES["train"], size), size, replace=False).astype(np.int32),
    )


def make_captions(num: int, rng: np.random.Generator) -> list[str]:
    """Returns captions whose tokens, with stop words and without, are as many as Flickr30k's.

    A longer caption has more of both. Content words are as frequent as 1 / rank; every tenth is a verb ("is w9ing"),
    two of ten stand before a noun like adjectives.
    """
    quantiles = rng.random(num)
    num_all = caption_lengths(quantiles, remove_stop_words=False) - 2  # less <start> and <end>
    num_content = np.minimum(caption_lengths(quantiles, remove_stop_words=True) - 2, num_all)
    num_words = VOCABULARY_SIZE - len(SPECIAL_TOKENS)
    frequencies = 1 / np.arange(10, num_words + 10)
    drawn = iter(rng.choice(num_words, num_content.sum(), p=frequencies / frequencies.sum()))
    captions = []
    for length, content in zip(num_all, num_content, strict=True):
        words = [int(next(drawn)) for _ in range(content)]
        spare = int(length - content)
        tokens = []
        for i, word in enumerate(words):
            kind = word % 10  # 0: verb, 1 and 2: adjective, else noun
            follows_adjective = i > 0 and words[i - 1] % 10 in (1, 2)
            if spare and not follows_adjective:
                tokens.append("is" if kind == 0 else "the")
                spare -= 1
            tokens.append(f"w{word}ing" if kind == 0 else f"w{word}")
        captions.append(" ".join(tokens + ["with"] * spare))
    return captions


def write_directory(
    directory: pathlib.Path, num_images: dict[str, int], *, regions: int, features: int, seed: int
) -> None:
    """Writes splits in SCAN's layout, a row of features per picture; the same arguments give the same files."""
    directory.mkdir(parents=True, exist_ok=True)
    for place, (split, number) in enumerate(num_images.items()):
        rng = np.random.default_rng([seed, place])
        captions = make_captions(number * CAPTIONS_PER_IMAGE, rng)
        (directory / f"{split}_caps.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
        (directory / f"{split}_ids.txt").write_text("\n".join(map(str, range(number))) + "\n", encoding="utf-8")
        path = directory / f"{split}_ims.npy"
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(number, regions, features))
        for start in range(0, number, 256):  # a part at a time: the whole may not fit into memory
            part = rows[start : start + 256]
            part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        rows.flush()
        print(f"{path}: {number:,} pictures of {regions} x {features}, {len(captions):,} captions", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    for split, number in NUM_IMAGES.items():
        parser.add_argument(f"--{split}", type=int, default=number, help="pictures")
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    write_directory(
        options.directory,
        {split: getattr(options, split) for split in NUM_IMAGES},
        regions=options.regions,
        features=options.features,
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
