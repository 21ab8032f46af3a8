"""What the concepts of a model say: which words are neighbours, and what a picture is about."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data.concepts import KINDS, Concepts

WORDS_OF_KIND = {"object": 6, "property": 3, "motion": 3}
NEIGHBOURS = 6


class Neighbour(NamedTuple):
    """A word and how close it is."""

    word: str
    value: float


class Neighbours(NamedTuple):
    """A concept and those next to it."""

    word: str
    kind: str
    in_graph: list[Neighbour]  # linked to it; the share of its captions that hold them too, or the link's weight
    learned: list[Neighbour]  # whose embeddings are nearest after the graph network; their cosine


class Said(NamedTuple):
    """A concept that a picture is said to be about."""

    word: str
    share: float  # of the model's distribution
    in_captions: bool  # whether the picture's label has it


def neighbours(concepts: Concepts, adjacency: np.ndarray, embeddings: np.ndarray) -> list[Neighbours]:
    """Returns the neighbours of the most frequent concepts of each kind, those with links first.

    Args:
      concepts: all concepts.
      adjacency: <float32>[concepts, concepts] the weights A; a row is what a concept is linked to.
      embeddings: <float32>[concepts, D] unit vectors, the graph network's.
    """
    has_counts = bool(concepts.occurrences.any())
    links = adjacency * (1 - np.eye(len(adjacency)))
    shares = concepts.cooccurrences / np.maximum(concepts.occurrences, 1)[:, None] if has_counts else links
    cosines = embeddings @ embeddings.T - 2 * np.eye(len(embeddings))
    found = []
    for place in _shown(concepts, links):
        linked = [int(other) for other in _falling(shares[place]) if links[place, other] > 0]
        nearest = _falling(cosines[place])[: min(NEIGHBOURS, len(cosines) - 1)]
        found.append(
            Neighbours(
                concepts.words[place],
                concepts.kinds[place],
                [Neighbour(concepts.words[other], float(shares[place, other])) for other in linked[:NEIGHBOURS]],
                [Neighbour(concepts.words[other], float(cosines[place, other])) for other in nearest],
            )
        )
    return found


def _shown(concepts: Concepts, links: np.ndarray) -> list[int]:
    """Returns the places of the concepts that are shown."""
    by_use = np.lexsort((-concepts.occurrences, ~(links > 0).any(axis=1))).tolist()  # the linked ones first
    if not any(concepts.kinds):
        return by_use[: sum(WORDS_OF_KIND.values())]
    return [
        place
        for kind in KINDS
        for place in [one for one in by_use if concepts.kinds[one] == kind][: WORDS_OF_KIND[kind]]
    ]


def about(words: Sequence[str], distribution: np.ndarray, label: np.ndarray, number: int = 8) -> list[Said]:
    """Returns the concepts that a picture is most about, by the model, and whether its captions hold them.

    Args:
      words: the concepts.
      distribution: <float32>[concepts] of the picture.
      label: <bool>[concepts], those in any of its captions.
      number: how many are named.
    """
    return [
        Said(words[place], float(distribution[place]), bool(label[place])) for place in _falling(distribution)[:number]
    ]


def _falling(values: np.ndarray) -> list[int]:
    return np.argsort(-values, kind="stable").tolist()
