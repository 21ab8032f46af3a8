"""What a match depends on: how much similarity a pair loses without each of its regions, and each of its words.

Each region and word is left out in turn and the pair is scored again (Zeiler and Fergus, Visualizing and
Understanding Convolutional Networks, section 4.2, do so with patches of a picture). This works for any model,
whatever lies between its regions and its similarity.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data import batches
from mhcvse_jax.data import concepts as concepts_lib
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.reporting.observed import Tested

WORDS = 64
"""Of a caption that are left out: each is a caption to encode, and there are captions of a thousand."""


class Losses(NamedTuple):
    """The similarity that a pair loses; below 0 where it gains. 0 for what is not left out: an only region."""

    regions: np.ndarray  # <float32>[regions]
    words: np.ndarray  # <float32>[tokens], 0 for <start> and <end> and those behind the first WORDS words


def losses(tested: Tested, pairs: Sequence[tuple[int, int]]) -> list[Losses]:
    """Returns, for each pair of a caption and a picture, what it loses without each region and word."""
    split, experiment = tested.split, tested.experiment
    captions, images = (np.array(side) for side in zip(*pairs, strict=True))
    regions, counts = batches.read_regions(split, images)
    counts = np.full(len(pairs), regions.shape[1], np.int32) if counts is None else counts
    lengths = split.lengths[captions]
    tokens = split.tokens.padded(captions, int(lengths.max()))
    texts = [  # of each pair the whole caption, then one without each word
        [row[:length], *(np.delete(row[:length], place) for place in range(1, min(length - 1, WORDS + 1)))]
        for row, length in zip(tokens, lengths, strict=True)
    ]
    pictures = [(pair, region) for pair, count in enumerate(counts) for region in range(-1, count if count > 1 else 0)]
    tried = _as_split(split, _WithoutOne(regions, pictures), counts, [*itertools.chain(*texts)], tested)
    encoded = experiment.encoder(tested.variables, tried)
    matrix = protocols.similarity_of(encoded, "fused", experiment.config.eval.consensus_weight)
    similarity = matrix.rows(0, matrix.num_images)
    found, first_text = [], 0
    pair_of = np.array([pair for pair, _ in pictures])
    for pair, variants in enumerate(texts):
        rows = np.flatnonzero(pair_of == pair)
        whole = similarity[rows[0], first_text]
        without_region = np.zeros(counts[pair], np.float32)
        without_region[: len(rows) - 1] = whole - similarity[rows[1:], first_text]
        without_word = np.zeros(lengths[pair], np.float32)
        without_word[1 : len(variants)] = whole - similarity[rows[0], first_text + 1 : first_text + len(variants)]
        found.append(Losses(without_region, without_word))
        first_text += len(variants)
    return found


class _WithoutOne:
    """Pictures of a few, each without one region; see `RegionFeatures`."""

    def __init__(self, regions: np.ndarray, pictures: Sequence[tuple[int, int]]):
        """Takes <float32>[few, regions, features], and of each picture which of these it is and what region it lacks.

        -1: none.
        """
        self._regions, self._pictures = regions, pictures

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self._pictures), *self._regions.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self._regions.dtype

    def read(self, images: np.ndarray) -> np.ndarray:
        found = np.zeros((len(images), *self._regions.shape[1:]), np.float32)
        for place, image in enumerate(images):
            which, lacking = self._pictures[image]
            kept = self._regions[which] if lacking < 0 else np.delete(self._regions[which], lacking, axis=0)
            found[place, : len(kept)] = kept
        return found

    def place(self, image: int) -> tuple[str, int]:
        return "", image

    def counts(self, whole: np.ndarray) -> np.ndarray:
        """Returns <int32>[pictures], how many regions each has, from those of the whole ones."""
        return np.array([whole[which] - (lacking >= 0) for which, lacking in self._pictures], np.int32)


def _as_split(
    split: Split, regions: _WithoutOne, counts: np.ndarray, texts: Sequence[np.ndarray], tested: Tested
) -> Split:
    """Returns the pictures and texts as a split that can be encoded; which caption is whose does not matter."""
    language = tested.experiment.language
    words = [[language.vocabulary.words[token] for token in text] for text in texts]
    return dataclasses.replace(
        split,
        regions=regions,
        captions=[" ".join(tokens) for tokens in words],
        tokens=EncodedCaptions.of_lengths(np.concatenate(texts), np.array(list(map(len, texts)), np.int32)),
        image_of_caption=np.zeros(len(texts), np.int32),
        image_labels=np.zeros((regions.shape[0], len(language.concepts.words)), bool),
        caption_labels=concepts_lib.caption_labels(words, language.concepts.words),
        image_ids=[str(place) for place in range(regions.shape[0])],
        image_names=None,
        num_regions=regions.counts(counts),
    )
