import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.regions import MappedRegions
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.errors import InputError

IMAGES, PER_IMAGE, REGIONS, FEATURES, CONCEPTS, LONGEST = 11, 5, 2, 3, 7, 29


@pytest.fixture(scope="module")
def split():
    """Features, tokens and labels all say whose they are; the rows of the pictures are five apart."""
    captions = IMAGES * PER_IMAGE
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, LONGEST + 1, captions).astype(np.int32)
    tokens = np.broadcast_to(np.arange(1, captions + 1, dtype=np.int32)[:, None], (captions, LONGEST))
    owner = np.repeat(np.arange(IMAGES), PER_IMAGE)
    rows = np.broadcast_to(np.arange(captions)[:, None, None], (captions, REGIONS, FEATURES)).astype(np.float64)
    return Split(
        name="train",
        regions=MappedRegions(rows, np.arange(IMAGES) * PER_IMAGE),
        captions=[""] * captions,
        tokens=EncodedCaptions.of_lengths(tokens[np.arange(LONGEST) < lengths[:, None]], lengths),
        image_of_caption=owner.astype(np.int32),
        image_labels=np.arange(IMAGES)[:, None] % 8 == np.arange(CONCEPTS),
        caption_labels=np.arange(captions)[:, None] % 9 == np.arange(CONCEPTS),
        image_ids=[f"id{i}" for i in range(IMAGES)],
        image_names=None,
    )


def epoch(split, *, first_step=0, seed=0, number=0, training_label="image"):
    return list(
        batches.training_batches(
            split,
            batch_size=8,
            caption_lengths=(16, 24),
            training_label=training_label,
            seed=seed,
            epoch=number,
            first_step=first_step,
            threads=3,
            prefetch=4,
        )
    )


@pytest.mark.parametrize("training_label", ["image", "caption"])
def test_a_batch_pairs_each_caption_with_its_picture(split, training_label):
    for batch in epoch(split, training_label=training_label):
        captions = batch.captions.tokens[:, 0] - 1
        np.testing.assert_array_equal(batch.image_index, captions // PER_IMAGE)
        np.testing.assert_array_equal(batch.regions[:, 1, 2], batch.image_index * PER_IMAGE)
        np.testing.assert_array_equal(batch.captions.lengths, (batch.captions.tokens > 0).sum(axis=1))
        labels = split.image_labels[batch.image_index] if training_label == "image" else split.caption_labels[captions]
        np.testing.assert_array_equal(batch.captions.labels, labels)
        assert batch.regions.dtype == np.float32
        assert batch.captions.tokens.dtype == np.int32


def test_an_epoch_shows_a_caption_once_and_leaves_less_than_a_batch(split):
    seen = np.concatenate([batch.captions.tokens[:, 0] for batch in epoch(split)])
    assert len(seen) == len(set(seen.tolist())) == 48
    assert len(epoch(split)) == batches.steps_per_epoch(split, 8) == 6


def test_the_order_is_a_function_of_seed_and_epoch(split):
    orders = {
        key: tuple(np.concatenate([b.captions.tokens[:, 0] for b in epoch(split, seed=key[0], number=key[1])]).tolist())
        for key in [(0, 0), (0, 1), (1, 0)]
    }
    assert len(set(orders.values())) == 3
    assert orders[0, 1] == tuple(np.concatenate([b.captions.tokens[:, 0] for b in epoch(split, number=1)]).tolist())


def test_an_epoch_goes_on_from_any_step(split):
    whole, rest = epoch(split), epoch(split, first_step=4)
    assert len(rest) == 2
    for expected, found in zip(whole[4:], rest, strict=True):
        jax.tree.map(np.testing.assert_array_equal, expected, found)


def test_a_batch_has_the_first_length_that_fits_and_none_is_cut(split):
    for batch in epoch(split):
        longest = batch.captions.lengths.max()
        assert batch.captions.tokens.shape[1] == (16 if longest <= 16 else 24 if longest <= 24 else 48)


@pytest.mark.parametrize(("longest", "length"), [(2, 16), (16, 16), (17, 24), (24, 24), (25, 48), (49, 72)])
def test_padded_length(longest, length):
    assert batches.padded_length(longest, (16, 24)) == length


RISING = st.lists(st.integers(2, 40), min_size=1, max_size=5, unique=True).map(sorted)


@settings(derandomize=True, deadline=None, database=None)
@given(st.integers(2, 200), RISING)
def test_a_padded_length_is_the_least_that_fits(longest, lengths):
    allowed = [*lengths, *range(lengths[-1], 10**4, lengths[-1])]
    assert batches.padded_length(longest, lengths) == min(length for length in allowed if length >= longest)


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.integers(2, 13), min_size=1, max_size=5), st.integers(0, 9))
def test_padding_neither_cuts_nor_adds_words(lengths, more):
    width = max(lengths)
    captions = EncodedCaptions.of_lengths(np.full(sum(lengths), 7, np.int32), np.array(lengths, np.int32))
    padded = captions.padded(slice(None), width + more)
    assert padded.shape == (len(lengths), width + more)
    assert padded.dtype == np.int32
    np.testing.assert_array_equal((padded == 7).sum(axis=1), lengths)


@settings(derandomize=True, deadline=None, database=None, max_examples=25)
@given(st.integers(1, 55), st.integers(0, 3), RISING, st.data())
def test_batches_of_any_size_are_whole_and_each_caption_stands_once(split, size, number, lengths, data):
    steps = batches.steps_per_epoch(split, size)
    first_step = data.draw(st.integers(0, steps))
    options = {"training_label": "caption", "seed": 3, "epoch": number, "threads": 2, "prefetch": 2}
    found = list(
        batches.training_batches(split, batch_size=size, caption_lengths=lengths, first_step=first_step, **options)
    )
    assert len(found) == steps - first_step
    seen = [int(token) - 1 for batch in found for token in batch.captions.tokens[:, 0]]
    assert seen == batches.epoch_order(55, seed=3, epoch=number)[first_step * size : steps * size].tolist()
    for batch in found:
        assert {len(part) for part in jax.tree.leaves(batch)} == {size}
        assert batch.captions.tokens.shape[1] == batches.padded_length(batch.captions.lengths.max(), lengths)


def with_features(split, array):
    return dataclasses.replace(split, regions=MappedRegions(array, split.regions.rows))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_features_of_any_width_and_byte_order_are_read_as_float32(split, dtype):
    regions, _ = batches.read_regions(with_features(split, split.regions.array.astype(dtype)), np.array([3, 0]))
    assert regions.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(regions[:, 0, 0], [3 * PER_IMAGE, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_feature_that_is_not_finite_is_named_where_it_is_read(split, tmp_path, value):
    regions = np.array(split.regions.array)
    regions[4 * PER_IMAGE, 1, 2] = value
    np.save(tmp_path / "train_ims.npy", regions)
    damaged = with_features(split, np.load(tmp_path / "train_ims.npy", mmap_mode="r"))
    with pytest.raises(
        InputError, match=r"train_ims\.npy: picture id4 \(row 20\), region 1 holds (nan|-?inf) at 2; exp"
    ):
        epoch(damaged)
    # Pictures beside it are read as they are.
    np.testing.assert_array_equal(batches.read_regions(damaged, np.array([3, 5]))[0][:, 0, 0], [15, 25])
    damaged = with_features(split, regions)  # of no file
    with pytest.raises(InputError, match=r"the features of train: picture id4 \(row 20\), region 1"):
        batches.read_regions(damaged, np.array([0, 4]))


def test_large_features_are_no_infinite_ones(split):
    large = with_features(split, np.full_like(split.regions.array, 3e38))
    assert (batches.read_regions(large, np.arange(IMAGES))[0] == np.float32(3e38)).all()
