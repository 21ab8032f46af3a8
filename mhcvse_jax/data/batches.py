"""Batches for training and encoding: fixed shapes, a reproducible order, read ahead of the device."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.read_ahead import read_ahead
from mhcvse_jax.data.regions import count_regions
from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.captions import Captions

RARE_LENGTH = 0.01  # of the batches of an epoch


class Batch(NamedTuple):
    """Pairs of a picture and one of its captions."""

    regions: np.ndarray  # <float32>[batch, regions, features]
    captions: Captions
    image_index: np.ndarray  # <int32>[batch] the picture of each pair within its split
    num_regions: np.ndarray | None = None  # <int32>[batch], the first of `regions`, which alone count; None: all


def padded_length(longest: int, caption_lengths: Sequence[int]) -> int:
    """Returns the first of the increasing lengths that fits `longest` tokens; past the last, its next multiple.

    Each length is one shape, so one compilation; a caption is never cut.
    """
    for length in caption_lengths:
        if longest <= length:
            return length
    last = caption_lengths[-1]
    return -(-longest // last) * last


def epoch_order(num_captions: int, *, seed: int, epoch: int) -> np.ndarray:
    """Returns <int64>[num_captions], the order of an epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(num_captions)


def captions_of_step(num_captions: int, step: int, *, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns <int64>[batch_size], the captions of a step, counted within the epoch from 0."""
    order = epoch_order(num_captions, seed=seed, epoch=epoch)
    return order[step * batch_size : (step + 1) * batch_size]


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Returns the number of full batches in an epoch; an incomplete last batch is dropped."""
    return len(split.lengths) // batch_size


def training_lengths(split: Split, caption_lengths: Sequence[int], *, batch_size: int, seed: int) -> tuple[int, ...]:
    """Returns those of `caption_lengths` that batches are padded to in training.

    A length that less than `RARE_LENGTH` of the first epoch's batches have is not worth its compilation: these are
    padded to the next. The longest that the captions need is always there.
    """
    _, lengths = epoch_plan(split, caption_lengths, batch_size=batch_size, seed=seed, epoch=0)
    found, counts = np.unique(lengths, return_counts=True)
    most = padded_length(split.lengths.max(), caption_lengths)
    kept = [int(length) for length, count in zip(found, counts, strict=True) if count >= RARE_LENGTH * len(lengths)]
    return tuple(sorted({*kept, most}))


def epoch_plan(
    split: Split, caption_lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns <int64>[steps, batch], the captions of an epoch's steps, and <int64>[steps], what each is padded to."""
    steps = steps_per_epoch(split, batch_size)
    order = epoch_order(split.num_captions, seed=seed, epoch=epoch)
    captions = order[: steps * batch_size].reshape(steps, batch_size)
    longest = split.lengths[captions].max(axis=1)
    return captions, np.array([padded_length(length, caption_lengths) for length in longest])


def read_batch(
    split: Split,
    captions: np.ndarray,
    caption_lengths: Sequence[int],
    *,
    training_label: str,
    rows: slice = slice(None),
) -> Batch:
    """Returns the pairs for these caption indices; reads their pictures' features from the file.

    Args:
      split: the split that they come from.
      captions: <int>[batch] indices of captions.
      caption_lengths: see `padded_length`.
      training_label: "image": a caption has its picture's label; "caption": the label of its own words.
      rows: the rows of the batch to read, this process's share; all are padded to one length.
    """
    longest = split.lengths[captions].max()
    captions = captions[rows]
    image_index = split.image_of_caption[captions]
    regions, num_regions = read_regions(split, image_index)
    return Batch(
        regions=regions,
        captions=Captions(
            tokens=split.tokens.padded(captions, padded_length(longest, caption_lengths)),
            lengths=split.lengths[captions],
            labels=split.image_labels[image_index] if training_label == "image" else split.caption_labels[captions],
        ),
        image_index=image_index,
        num_regions=num_regions,
    )


def read_regions(split: Split, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns <float32>[images, regions, features] of the pictures with these indices, zero at padding.

    And <int32>[images], how many regions each has; None where all have all.

    Raises:
      InputError: a feature is not finite, or the file is damaged there.
    """
    regions, num_regions = split.regions.read(images), None
    if split.num_regions is not None:
        num_regions = split.num_regions[images]
        regions[np.arange(regions.shape[1]) >= num_regions[:, None]] = 0.0
    elif split.zero_regions_are_padding:
        num_regions = count_regions(regions)
    check_finite(regions, images, split)
    return regions, num_regions


def check_finite(regions: np.ndarray, images: np.ndarray, split: Split) -> None:
    """Raises InputError for the first feature that is not finite, naming its picture and region.

    Args:
      regions: <float32>[images, regions, features].
      images: <int>[images] which pictures of the split these are.
      split: the split that they come from.
    """
    flat = regions.reshape(-1)
    if np.isfinite(np.vdot(flat, flat)):  # a NaN or infinity makes the sum non-finite; one pass, no copy
        return
    wrong = np.argwhere(~np.isfinite(regions))  # empty if only the squares overflowed
    if len(wrong):
        place, region, feature = wrong[0]
        image = int(images[place])
        path, row = split.regions.place(image)
        raise InputError(
            f"{path or f'the features of {split.name}'}: picture {split.image_ids[image]} (row {row}), "
            f"region {region} holds {regions[place, region, feature]} at {feature}; expected finite features"
        )


def training_batches(
    split: Split,
    *,
    batch_size: int,
    caption_lengths: Sequence[int],
    training_label: str,
    seed: int,
    epoch: int,
    first_step: int,
    threads: int,
    prefetch: int,
    rows: slice = slice(None),
) -> Iterator[Batch]:
    """Yields the batches of an epoch from `first_step` (within the epoch) on, read ahead by threads.

    Each batch is a function of (seed, epoch, step), so a resumed epoch goes on exactly where it was. Of each,
    the `rows` alone are read.
    """
    order = epoch_order(len(split.lengths), seed=seed, epoch=epoch)

    def read(step: int) -> Batch:
        captions = order[step * batch_size : (step + 1) * batch_size]
        return read_batch(split, captions, caption_lengths, training_label=training_label, rows=rows)

    steps = steps_per_epoch(split, batch_size)
    yield from read_ahead(read, steps, start=first_step, threads=threads, prefetch=prefetch)
