"""Where a model looks, made into light; what a similarity comes from."""

import numpy as np
import pytest

from mhcvse_jax.models.fragments import AttentionMaps
from mhcvse_jax.reporting import attention

PAIRS, REGIONS, WORDS, HEADS, DIM = 2, 7, 5, 3, 11
NUM_REGIONS, NUM_WORDS = 4, 3


def padded_maps(**kinds):
    """Returns random maps of these rows and columns, zero at the padding of the second pair."""
    rng = np.random.default_rng(0)
    sizes = {"regions": (REGIONS, NUM_REGIONS), "words": (WORDS, NUM_WORDS), "one": (1, 1)}

    def one(heads, rows, columns):
        weights = np.zeros((PAIRS, heads, sizes[rows][0], sizes[columns][0]), np.float32)
        inner = rng.random((PAIRS, heads, sizes[rows][1], sizes[columns][1]))
        weights[:, :, : sizes[rows][1], : sizes[columns][1]] = inner / inner.sum(axis=-1, keepdims=True)
        return weights

    vectors = [np.zeros((PAIRS, size, DIM), np.float32) for size in (REGIONS, WORDS)]
    for array, number in zip(vectors, (NUM_REGIONS, NUM_WORDS), strict=True):
        array[:, :number] = rng.normal(size=(PAIRS, number, DIM))
        array[:, :number] /= np.linalg.norm(array[:, :number], axis=-1, keepdims=True)
    return AttentionMaps(*vectors, **{name: one(*kind) for name, kind in kinds.items()})


def test_heads_are_what_rows_attend_to_on_average():
    maps = padded_maps(image=(HEADS, "regions", "regions"), text=(HEADS, "words", "words"))
    looks = attention.looks(maps, 1, NUM_REGIONS, NUM_WORDS)
    assert [head.name for head in looks.heads] == ["head 1", "head 2", "head 3"]
    for number, head in enumerate(looks.heads):
        expected = [sum(maps.image[1, number, row, r] for row in range(NUM_REGIONS)) / NUM_REGIONS for r in range(4)]
        np.testing.assert_allclose(head.regions, expected, rtol=1e-6)
        assert head.regions.sum() == pytest.approx(1)
        assert head.words.sum() == pytest.approx(1)
        entropy = -sum(p * np.log(p) for p in head.words) / np.log(NUM_WORDS)
        assert head.evenness[1] == pytest.approx(entropy)
    cosines = [[maps.words[1, w] @ maps.regions[1, r] for r in range(NUM_REGIONS)] for w in range(NUM_WORDS)]
    np.testing.assert_allclose(looks.word_regions, cosines, rtol=1e-5)
    assert not looks.is_attention


def test_attention_across_stands_for_the_cosines():
    maps = padded_maps(text_to_image=(HEADS, "words", "regions"), image_to_text=(HEADS, "regions", "words"))
    looks = attention.looks(maps, 0, NUM_REGIONS, NUM_WORDS)
    np.testing.assert_allclose(looks.word_regions, maps.text_to_image[0].mean(axis=0)[:NUM_WORDS, :NUM_REGIONS])
    assert looks.is_attention
    expected = maps.image_to_text[0, 2, :NUM_REGIONS, :NUM_WORDS].mean(axis=0)
    np.testing.assert_allclose(looks.heads[2].words, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("kinds", "names", "has"),
    [
        ({}, [], None),
        ({"text_to_image": (1, "words", "regions")}, ["head"], (True, False)),
        ({"image_pooling": (1, "one", "regions"), "text_pooling": (1, "one", "words")}, ["pooling"], (True, True)),
    ],
)
def test_what_a_model_lacks_is_left_out(kinds, names, has):
    looks = attention.looks(padded_maps(**kinds), 0, NUM_REGIONS, NUM_WORDS)
    assert [head.name for head in looks.heads] == names
    assert [(head.regions is not None, head.words is not None) for head in looks.heads] == [has] * len(names)


def test_light_is_from_the_median_to_the_highest():
    np.testing.assert_allclose(attention.lit(np.array([1.0, 5.0, 3.0, 2.0, 4.0])), [0, 1, 0, 0, 0.5])
    np.testing.assert_array_equal(attention.lit(np.full(4, 0.25)), np.full(4, 0.5))
    np.testing.assert_array_equal(attention.lit(np.array([3.0])), [0.5])
    together = attention.lit_together(np.array([[0.0, 0.0, 0.0], [0.0, 0.2, 0.4]]))
    np.testing.assert_allclose(together, [[0, 0, 0], [0, 0.5, 1]])
    np.testing.assert_allclose(attention.signed(np.array([0.0, -4.0, 1.0])), [0, -1, 0.25])
    np.testing.assert_array_equal(attention.signed(np.zeros(3)), np.zeros(3))
