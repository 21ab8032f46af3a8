"""What every query of a split finds: which queries to show, and which pictures turn up where they do not belong."""

from typing import NamedTuple

import numpy as np

from mhcvse_jax.retrieval import similarity as similarity_lib
from mhcvse_jax.retrieval.similarity import Similarity

NEAR = 10  # places from the top in which a picture that does not belong there counts as found


class Direction(NamedTuple):
    """One direction of retrieval; queries are pictures or captions."""

    ranks: np.ndarray  # <int32>[queries] of the best right answer, from 1; 0 for a picture without captions
    leads: np.ndarray  # <float32>[queries] its similarity less that of the best wrong answer; NaN where one is missing


class Found(NamedTuple):
    """Both directions, and how often each picture is found wrongly."""

    i2t: Direction
    t2i: Direction
    hubs: np.ndarray  # <int64>[images, 2] other pictures, and captions of others, that have it among their first NEAR


def search(similarity: Similarity, image_of_caption: np.ndarray) -> Found:
    """Returns what every picture and every caption of a split finds.

    Args:
      similarity: that of the split's pictures and captions; read three times.
      image_of_caption: <int>[captions].
    """
    ranks = similarity_lib.ranks_of(similarity, image_of_caption)
    num_images, num_captions = similarity.num_images, similarity.num_captions
    own_best, others_best = (np.full(num_images, -np.inf, np.float32) for _ in range(2))
    right, wrong = (np.full(num_captions, -np.inf, np.float32) for _ in range(2))
    top_scores, top_images = np.zeros((0, num_captions), np.float32), np.zeros((0, num_captions), np.int64)
    hubs = np.zeros((num_images, 2), np.int64)
    for start, block in similarity.blocks():
        images = np.arange(start, start + len(block))
        own = images[:, None] == image_of_caption
        own_best[images] = np.max(block, axis=1, where=own, initial=-np.inf)
        others_best[images] = np.max(block, axis=1, where=~own, initial=-np.inf)
        right = np.maximum(right, np.max(block, axis=0, where=own, initial=-np.inf))
        wrong = np.maximum(wrong, np.max(block, axis=0, where=~own, initial=-np.inf))
        for image, row in zip(images, block, strict=True):
            owners = np.unique(image_of_caption[top(row, NEAR)])
            hubs[owners[owners != image], 0] += 1
        top_scores = np.concatenate([top_scores, block])
        top_images = np.concatenate([top_images, np.broadcast_to(images[:, None], block.shape)])
        if len(top_scores) > NEAR:
            kept = np.argpartition(-top_scores, NEAR - 1, axis=0)[:NEAR]
            top_scores = np.take_along_axis(top_scores, kept, axis=0)
            top_images = np.take_along_axis(top_images, kept, axis=0)
    found = top_images[top_images != image_of_caption]
    hubs[:, 1] = np.bincount(found, minlength=num_images)
    with np.errstate(invalid="ignore"):
        leads = own_best - others_best, right - wrong
    i2t, t2i = (np.where(np.isfinite(lead), lead, np.nan) for lead in leads)
    return Found(Direction(ranks.i2t, i2t), Direction(ranks.t2i, t2i), hubs)


def top(scores: np.ndarray, number: int) -> np.ndarray:
    """Returns the places <int>[number] of the highest scores, best first; on a tie, the first."""
    return np.argsort(-scores, kind="stable")[:number]


def choose(direction: Direction, number: int, rng: np.random.Generator) -> dict[str, list[int]]:
    """Returns random queries, the best by their lead and the worst by rank; none appears twice.

    Queries without a right answer are left out. Among equal ranks, the smallest lead is the worst.
    """
    queries = np.flatnonzero(direction.ranks > 0)
    leads = np.nan_to_num(direction.leads[queries], nan=0.0)
    worst = queries[np.lexsort((leads, -direction.ranks[queries]))]
    groups = {"at random": rng.permutation(queries), "best": queries[top(leads, len(leads))], "worst": worst}
    shown: set[int] = set()
    chosen: dict[str, list[int]] = {}
    for name, order in groups.items():
        chosen[name] = [query for query in order.tolist() if query not in shown][:number]
        shown.update(chosen[name])
    return chosen


def unlike(ranks: np.ndarray, other_ranks: np.ndarray, number: int) -> list[int]:
    """Returns the queries whose ranks by two models have the largest ratio, leaving out equal ranks."""
    known = (ranks > 0) & (other_ranks > 0)
    ratio = np.zeros(len(ranks))
    ratio[known] = np.abs(np.log(ranks[known]) - np.log(other_ranks[known]))
    return [query for query in top(ratio, number).tolist() if ratio[query] > 0]
