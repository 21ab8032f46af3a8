import numpy as np
import pytest

from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split

IMAGES, PER_IMAGE, REGIONS, FEATURES, CONCEPTS, LONGEST = 11, 5, 2, 3, 7, 29


@pytest.fixture(scope="module")
def split():
    """Features, tokens and labels all say whose they are; the rows of the pictures are five apart."""
    captions = IMAGES * PER_IMAGE
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, LONGEST + 1, captions).astype(np.int32)
    tokens = np.where(np.arange(LONGEST) < lengths[:, None], np.arange(1, captions + 1)[:, None], 0)
    owner = np.repeat(np.arange(IMAGES), PER_IMAGE)
    return Split(
        name="train",
        regions=np.broadcast_to(np.arange(captions)[:, None, None], (captions, REGIONS, FEATURES)).astype(np.float64),
        rows=np.arange(IMAGES) * PER_IMAGE,
        captions=[""] * captions,
        tokens=tokens.astype(np.int32),
        lengths=lengths,
        image_of_caption=owner.astype(np.int32),
        image_labels=np.arange(IMAGES)[:, None] % 8 == np.arange(CONCEPTS),
        caption_labels=np.arange(captions)[:, None] % 9 == np.arange(CONCEPTS),
        image_ids=[""] * IMAGES,
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
        captions = batch.tokens[:, 0] - 1
        np.testing.assert_array_equal(batch.image_index, captions // PER_IMAGE)
        np.testing.assert_array_equal(batch.regions[:, 1, 2], batch.image_index * PER_IMAGE)
        np.testing.assert_array_equal(batch.lengths, (batch.tokens > 0).sum(axis=1))
        labels = split.image_labels[batch.image_index] if training_label == "image" else split.caption_labels[captions]
        np.testing.assert_array_equal(batch.labels, labels)
        assert batch.regions.dtype == np.float32
        assert batch.tokens.dtype == np.int32


def test_an_epoch_shows_a_caption_once_and_leaves_less_than_a_batch(split):
    seen = np.concatenate([batch.tokens[:, 0] for batch in epoch(split)])
    assert len(seen) == len(set(seen.tolist())) == 48
    assert len(epoch(split)) == batches.steps_per_epoch(split, 8) == 6


def test_the_order_is_a_function_of_seed_and_epoch(split):
    orders = {
        key: tuple(np.concatenate([b.tokens[:, 0] for b in epoch(split, seed=key[0], number=key[1])]).tolist())
        for key in [(0, 0), (0, 1), (1, 0)]
    }
    assert len(set(orders.values())) == 3
    assert orders[0, 1] == tuple(np.concatenate([b.tokens[:, 0] for b in epoch(split, number=1)]).tolist())


def test_an_epoch_goes_on_from_any_step(split):
    whole, rest = epoch(split), epoch(split, first_step=4)
    assert len(rest) == 2
    for expected, found in zip(whole[4:], rest, strict=True):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_batch_has_the_first_length_that_fits_and_none_is_cut(split):
    for batch in epoch(split):
        longest = batch.lengths.max()
        assert batch.tokens.shape[1] == (16 if longest <= 16 else 24 if longest <= 24 else 48)


@pytest.mark.parametrize(("longest", "length"), [(2, 16), (16, 16), (17, 24), (24, 24), (25, 48), (49, 72)])
def test_padded_length(longest, length):
    assert batches.padded_length(longest, (16, 24)) == length
