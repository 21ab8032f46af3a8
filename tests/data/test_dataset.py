"""Captions as CVSE's program reads them, the first of a split, and a graph that was given."""

import dataclasses

import numpy as np
import pytest

from mhcvse_jax import config
from mhcvse_jax.data import dataset, text
from mhcvse_jax.data.concepts import Concepts, given_concepts
from mhcvse_jax.data.dataset import Language
from mhcvse_jax.data.scan_layout import read_split
from mhcvse_jax.data.text import SPECIAL_TOKENS, Vocabulary
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading

CONCEPTS = ("dog", "hat", "red", "man", "b")
CAPTIONS = ["Dog runs .", "the man's hat", "Red dogs", "A dog", "man's dog in red", *["Hat"] * 5, *["a dog"] * 5]


@pytest.fixture
def directory(tmp_path):
    np.save(tmp_path / "test_ims.npy", np.zeros((3, 2, 7), np.float32))
    (tmp_path / "test_caps.txt").write_text("\n".join(CAPTIONS) + "\n")
    (tmp_path / "test_ids.txt").write_text("0\n1\n2\n")
    return tmp_path


def language(**options):
    words = [*SPECIAL_TOKENS, "dog", "hat", "red", "man", "'s", "a", "the", "runs", "."]
    concepts = given_concepts(CONCEPTS, np.eye(5, dtype=np.float32))
    options = {"remove_stop_words": False, "bytes_literal": False} | options
    return Language(Vocabulary(words), concepts, np.zeros((5, 3), np.float32), **options)


def load(directory, **options):
    return reading.load_split(directory, "test", language(**options), config.base().data)


def named(labels):
    return [{word for word, is_on in zip(CONCEPTS, row, strict=True) if is_on} for row in labels]


def test_clean_captions_name_all_their_concepts(directory):
    split = load(directory)
    assert named(split.caption_labels[:5]) == [{"dog"}, {"hat", "man"}, {"red"}, {"dog"}, {"man", "dog", "red"}]
    assert split.tokens.padded([0], 5)[0].tolist() == [text.START, 4, 11, 12, text.END]


def test_the_literal_of_the_bytes_hides_the_first_word_where_no_apostrophe_saves_it(directory):
    split = load(directory, bytes_literal=True)
    assert named(split.caption_labels[:5]) == [set(), {"hat", "man"}, set(), {"dog"}, {"man", "dog", "red"}]
    assert split.tokens.padded([0], 6)[0].tolist() == [1, text.UNKNOWN, 11, 12, text.UNKNOWN, 2]  # b'dog runs . '
    assert split.tokens.padded([1], 4)[0, 3] == 10  # b"the man's hat": `b`, two marks and then `the`
    clean = load(directory)
    np.testing.assert_array_equal(split.image_labels, clean.image_labels)  # a picture's concepts are of clean captions
    assert split.captions == clean.captions


def test_stop_words_are_removed_from_either_reading(directory):
    for is_literal in (False, True):
        tokens = load(directory, remove_stop_words=True, bytes_literal=is_literal).tokens.ids
        assert not (tokens == 10).any()
        assert (load(directory, bytes_literal=is_literal).tokens.ids == 10).any()


@pytest.mark.parametrize(("number", "num_images"), [(0, 3), (5, 1), (9, 1), (10, 2), (15, 3), (5000, 3)])
def test_the_first_captions_are_of_whole_pictures(directory, number, num_images):
    whole = load(directory)
    first = dataset.first_captions(whole, number)
    assert (first.num_images, first.num_captions) == (num_images, 5 * num_images)
    for field in dataclasses.fields(whole):
        value, part = getattr(whole, field.name), getattr(first, field.name)
        if field.name == "regions":
            everything = np.arange(num_images)
            np.testing.assert_array_equal(part.read(everything), value.read(everything))
        elif field.name in ("name", "zero_regions_are_padding") or value is None:
            assert part is value
        elif field.name == "tokens":
            np.testing.assert_array_equal(part.padded(slice(None), 9), value.padded(slice(5 * num_images), 9))
        else:
            size = num_images if len(value) == 3 else 5 * num_images
            np.testing.assert_array_equal(part, value[:size])
    other = dataclasses.replace(whole, name="testall")
    assert dataset.first_captions(other, number) is other


@pytest.mark.parametrize(("number", "num_images"), [(4, 2), (5, 2), (6, 4), (14, 4), (15, 5), (99, 5)])
def test_the_first_captions_of_pictures_with_any_number(directory, number, num_images):
    owner = np.random.default_rng(0).permutation([0] * 4 + [2] * 2 + [4] * 9)
    (directory / "test_caption_images.txt").write_text("".join(f"{image}\n" for image in owner))
    (directory / "test_ids.txt").unlink()
    np.save(directory / "test_ims.npy", np.zeros((5, 2, 7), np.float32))
    whole = load(directory)
    for image in range(5):
        own = whole.caption_labels[owner == image]
        np.testing.assert_array_equal(whole.image_labels[image], own.any(axis=0))
    first = dataset.first_captions(whole, number)
    kept = np.flatnonzero(owner < num_images)
    assert first.image_ids == whole.image_ids[:num_images]
    assert first.captions == [whole.captions[i] for i in kept]
    np.testing.assert_array_equal(first.image_of_caption, owner[kept])
    np.testing.assert_array_equal(first.tokens.padded(slice(None), 9), whole.tokens.padded(kept, 9))
    with pytest.raises(InputError, match=r"eval\.max_captions is 3; expected 0 or at least the 4 of a picture"):
        dataset.first_captions(whole, 3)


def test_too_few_captions_are_an_error(directory):
    with pytest.raises(InputError, match=r"eval\.max_captions is 4; expected 0 or at least the 5 of a picture"):
        dataset.first_captions(load(directory), 4)


def test_a_given_graph_is_used_as_it_is_and_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    given = np.eye(5, dtype=np.float32) + 0.1 * (rng.random((5, 5)) < 0.4).astype(np.float32)
    given_concepts(CONCEPTS, given).save(tmp_path / "concepts.npz")
    concepts = Concepts.load(tmp_path / "concepts.npz")
    values = config.base().concepts
    np.testing.assert_array_equal(reading.adjacency(concepts, values), given)
    edges = reading.graph_edges(concepts, values)
    matrix = np.zeros((5, 5))
    matrix[edges.receivers, edges.senders] = edges.weights
    scale = np.diag(given.sum(axis=1) ** -0.5)
    np.testing.assert_allclose(matrix, (given @ scale).T @ scale, atol=1e-6)


def test_counted_concepts_have_no_given_graph(tmp_path):
    concepts = Concepts(CONCEPTS, ("",) * 5, np.full(5, 9), np.ones((5, 5), int) - np.eye(5, dtype=int))
    concepts.save(tmp_path / "concepts.npz")
    assert Concepts.load(tmp_path / "concepts.npz").adjacency is None
    assert reading.adjacency(concepts, config.base().concepts).dtype == np.float32


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        (np.eye(3, dtype=np.float32), r"adjacency is float32 \(3, 3\), expected float32 \(5, 5\)"),
        (np.eye(5), r"adjacency is float64"),
        (np.diag(np.float32([1, 1, 0, 1, 1])), "row 2 of the adjacency sums to 0"),
        (
            np.diag(np.float32([1, np.nan, 1, 1, 1])),
            "row 0 of the adjacency sums to|row 1 of the adjacency sums to nan",
        ),
    ],
)
def test_a_graph_that_cannot_be_is_refused(adjacency, message):
    with pytest.raises(InputError, match=message):
        given_concepts(CONCEPTS, adjacency)


def test_a_line_is_stripped_as_bytes_are(tmp_path, directory):
    (directory / "test_caps.txt").write_bytes("".join(f"  {line}\u00a0\t\r\n" for line in CAPTIONS).encode())
    captions = read_split(directory, "test", 5).captions
    assert captions == [f"{line}\u00a0" for line in CAPTIONS]
    assert text.tokenize(captions[0]) == ["dog", "runs", "."]


def test_words_that_the_vocabulary_lacks_are_counted():
    captions = ["Dog runs in in fog .", "a red hat", "the fog", "A dog"]
    assert language().unknown_words(captions) == (13, 4, 2, 2, ["in", "fog"])
    assert language(remove_stop_words=True).unknown_words(captions).most_frequent == ["fog"]
    line = language().unknown_words(captions).describe()
    assert line == "unknown   30.77% of 13 words (2 different, in, fog the most frequent), in 2 captions"


@pytest.mark.parametrize(("number", "kept"), [(0, [0, 1, 2]), (99, [0, 1, 2]), (11, [0, 2]), (1, [0])])
def test_some_captions_are_those_of_pictures_at_even_distances(directory, number, kept):
    np.save(directory / "test_ims.npy", np.arange(3 * 2 * 7, dtype=np.float32).reshape(3, 2, 7))
    whole = load(directory)
    some = dataset.some_captions(whole, number)
    assert some.image_ids == [str(image) for image in kept]
    assert some.captions == [caption for image in kept for caption in CAPTIONS[5 * image : 5 * image + 5]]
    assert some.image_of_caption.tolist() == [place for place in range(len(kept)) for _ in range(5)]
    everything = np.arange(len(kept))
    np.testing.assert_array_equal(some.regions.read(everything[::-1]), whole.regions.read(np.array(kept[::-1])))
    assert some.regions.shape == (len(kept), 2, 7)
    assert some.regions.place(len(kept) - 1) == whole.regions.place(kept[-1])
    np.testing.assert_array_equal(some.tokens.padded(np.array([-1]), 4), whole.tokens.padded([5 * kept[-1] + 4], 4))
