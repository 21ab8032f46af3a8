"""Queries and what each run finds for them: the cards of a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.reporting.pictures import Picture
from mhcvse_jax.reporting.queries import Direction, top
from mhcvse_jax.retrieval.similarity import Similarity

TOP = 5


class Answer(NamedTuple):
    """A picture or caption that was found, or the right one if that is further down."""

    place: int  # from 1, in the order of similarity
    is_right: bool
    similarity: float
    item: int  # of the split
    picture: Picture | None  # the picture; None: it is the caption of this number


class Strip(NamedTuple):
    """What one run finds for a query."""

    run: str
    rank: int
    verdict: str
    answers: list[Answer]


class Card(NamedTuple):
    """A query, a caption or a picture, with a strip a run."""

    item: int
    picture: Picture | None  # None: the query is the caption of this number
    strips: list[Strip]


class Searched(NamedTuple):
    """A run's similarities, and the ranks and leads of one direction."""

    similarity: Similarity
    direction: Direction


PictureOf = Callable[[int], Picture]
Cards = Callable[[Sequence[int], Mapping[str, Searched], np.ndarray, PictureOf], list[Card]]
"""Takes queries, runs, image_of_caption <int>[captions], and where pictures are found."""


def of_captions(
    queries: Sequence[int], runs: Mapping[str, Searched], image_of_caption: np.ndarray, picture_of: PictureOf
) -> list[Card]:
    """Returns the cards of captions with the pictures that each run finds."""
    columns = {
        name: np.concatenate([block[:, list(queries)] for _, block in run.similarity.blocks()]).T
        for name, run in runs.items()
    }
    cards = []
    for place, caption in enumerate(queries):
        right = np.array([image_of_caption[caption]])
        strips = [
            _strip(name, columns[name][place], right, run.direction, caption, picture_of) for name, run in runs.items()
        ]
        cards.append(Card(caption, None, strips))
    return cards


def of_pictures(
    queries: Sequence[int], runs: Mapping[str, Searched], image_of_caption: np.ndarray, picture_of: PictureOf
) -> list[Card]:
    """Returns the cards of pictures with the captions that each run finds."""
    cards = []
    for image in queries:
        right = np.flatnonzero(image_of_caption == image)
        strips = [
            _strip(name, run.similarity.rows(image, image + 1)[0], right, run.direction, image, None)
            for name, run in runs.items()
        ]
        cards.append(Card(image, picture_of(image), strips))
    return cards


def _strip(
    run: str, scores: np.ndarray, right: np.ndarray, direction: Direction, query: int, picture_of: PictureOf | None
) -> Strip:
    rank, lead = int(direction.ranks[query]), float(direction.leads[query])

    def answer(item: int, place: int) -> Answer:
        picture = None if picture_of is None else picture_of(item)
        return Answer(place, item in right, float(scores[item]), item, picture)

    found = top(scores, TOP).tolist()
    answers = [answer(item, place) for place, item in enumerate(found, start=1)]
    if not set(found) & set(right.tolist()):
        answers.append(answer(int(right[np.argmax(scores[right])]), rank))
    return Strip(run, rank, _verdict(rank, lead), answers)


def _verdict(rank: int, lead: float) -> str:
    """Returns how the query went, in words."""
    if np.isnan(lead):
        return "there is nothing wrong to find"
    if rank == 1:
        return f"the right answer is first, {lead:.3f} ahead"
    return f"the right answer is at place {rank:,}, {-lead:.3f} behind the first"
