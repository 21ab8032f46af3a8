"""A split encoded in padded batches on one device and on eight, against the model applied item by item."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from mhcvse_jax import config, models
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.regions import MappedRegions
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols, twins
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.retrieval.encode import EncodedSplit, Encoder
from mhcvse_jax.training.step import init_variables

IMAGES, PER_IMAGE, REGIONS, FEATURES, CONCEPTS, WORDS, VOCABULARY = 11, 5, 3, 7, 5, 29, 17


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    captions = IMAGES * PER_IMAGE
    lengths = rng.integers(2, WORDS + 1, captions).astype(np.int32)
    tokens = rng.integers(1, VOCABULARY, (captions, WORDS)).astype(np.int32)
    return Split(
        name="test",
        regions=MappedRegions(
            rng.standard_normal((IMAGES, REGIONS, FEATURES)).astype(np.float32), rows=np.arange(IMAGES)
        ),
        captions=[""] * captions,
        tokens=EncodedCaptions.of_lengths(tokens[np.arange(WORDS) < lengths[:, None]], lengths),
        image_of_caption=np.repeat(np.arange(IMAGES, dtype=np.int32), PER_IMAGE),
        image_labels=rng.random((IMAGES, CONCEPTS)) < 0.5,
        caption_labels=rng.random((captions, CONCEPTS)) < 0.3,
        image_ids=[""] * IMAGES,
        image_names=None,
    )


@pytest.fixture(scope="module")
def system():
    rng = np.random.default_rng(1)
    values = config.base().model
    values.update({"embedding_dim": 8, "num_heads": 2, "word_dim": 5})
    model = models.build(values, vocabulary_size=VOCABULARY, dtype="float32")
    senders, receivers = rng.integers(0, CONCEPTS, (2, 11))
    vectors = rng.standard_normal((CONCEPTS, 3)).astype(np.float32)
    graph = concept_graph(vectors, senders, receivers, rng.random(11).astype(np.float32))
    return model, graph, init_variables(model, graph, (REGIONS, FEATURES), jax.random.key(0))


def encode(system, split, num_devices):
    model, graph, variables = system
    mesh = make_mesh(jax.devices()[:num_devices])
    settings = {"batch_size": 8, "caption_lengths": (16, 32), "threads": 2, "prefetch": 2, "precision": None}
    return Encoder(model, graph, mesh, **settings)(variables, split)


@pytest.fixture(scope="module")
def encoded(system, split):
    return {num_devices: encode(system, split, num_devices) for num_devices in (1, 8)}


def test_a_split_is_encoded_as_its_items_are_one_by_one(system, split, encoded):
    model, graph, variables = system
    encode_images, encode_texts = (
        jax.jit(functools.partial(model.apply, variables, graph=graph, method=f"encode_{side}"))
        for side in ("images", "texts")
    )
    for i in (0, 4, IMAGES - 1):
        image = encode_images(split.regions.read(np.array([i])))
        for expected, found in zip(image, encoded[1].image, strict=True):
            np.testing.assert_allclose(found[i], expected[0], atol=2e-6)
    for i in (0, 23, len(split.captions) - 1):
        own = slice(i, i + 1)
        tokens = split.tokens.padded(own, split.lengths[i])
        captions = Captions(tokens, split.lengths[own], split.caption_labels[own])
        text = encode_texts(captions)
        for expected, found in zip(text, encoded[1].text, strict=True):
            np.testing.assert_allclose(found[i], expected[0], atol=2e-6)


def test_features_that_are_not_finite_are_named_not_encoded(system, split):
    regions = split.regions.array.copy()
    regions[9, 2, 5] = np.nan
    with pytest.raises(InputError, match=r"the features of test: picture .* \(row 9\), region 2 holds nan at 5"):
        encode(system, dataclasses.replace(split, regions=MappedRegions(regions, split.regions.rows)), 1)


def test_eight_devices_find_what_one_finds(split, encoded):
    for one, eight in zip(jax.tree.leaves(encoded[1]), jax.tree.leaves(encoded[8]), strict=True):
        np.testing.assert_allclose(one, eight, atol=1e-6)
    recalls = [protocols.standard(encoded[n], split.image_of_caption, consensus_weight=0.05, folds=1) for n in (1, 8)]
    assert recalls[0] == recalls[1]


def test_order_accuracy_counts_captions_nearer_to_their_own_picture(encoded, split):
    """Embeddings by hand: pictures 0 and 1 are twins, of whose captions 0, 3 and 5 tell them apart."""
    image = np.zeros((IMAGES, 2), np.float32)
    image[0], image[1], image[2:] = (1, 0), (0, 1), (-1, -1)
    text = np.full((IMAGES * PER_IMAGE, 2), -1, np.float32)
    text[0], text[3], text[5] = (2, 1), (1, 1), (1, 0)  # nearer to its own; a tie; nearer to the twin
    pairs = twins.Twins(
        twin=np.array([1, 0] + [-1] * (IMAGES - 2)), tells_apart=np.isin(np.arange(IMAGES * PER_IMAGE), [0, 3, 5])
    )
    right = text.copy()
    right[3], right[5] = (2, 1), (0, 1)  # the consensus has all three nearer to their own
    image, text, right = map(jax.numpy.asarray, (image, text, right))
    by_hand = EncodedSplit(
        image=encoded[1].image._replace(fused=image, consensus=image),
        text=encoded[1].text._replace(fused=text, consensus=right),
    )
    by_consensus = twins.measure(by_hand, split, pairs, consensus_weight=1.0)
    assert (by_consensus["order_accuracy"], by_consensus["recall"]["t2i"]["r1"]) == (100, 100)
    measured = twins.measure(by_hand, split, pairs, consensus_weight=0.0)
    assert measured["order_accuracy"] == pytest.approx(100 / 3, abs=1e-3)
    assert (measured["num_images"], measured["num_captions"]) == (2, 3)
    # Of the three captions one finds its picture first; a tie counts against the second.
    assert measured["recall"]["t2i"]["r1"] == pytest.approx(100 / 3, abs=1e-3)
