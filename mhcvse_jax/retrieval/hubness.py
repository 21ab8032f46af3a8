"""Hubs: candidates that are close to far too many queries. Measures them, and reduces them by adjusted scores.

Each method subtracts from a candidate's score how high it scores with everyone. With s the cosine of query q and
candidate g, and b over the queries of a bank:

- inverted softmax (Smith et al., ICLR 2017, arXiv:1702.03859): s(q, g) - t log sum_b exp(s(b, g) / t), which ranks as
  exp(s(q, g) / t) over that sum does. The bank is the test's own queries.
- CSLS (Conneau et al., ICLR 2018, arXiv:1710.04087): 2 s(q, g) - r(q) - r(g), r the mean cosine to the k nearest of the
  other side. r(q) is the same for all candidates of a query, so it is left out.
- QB-Norm (Bogolin et al., CVPR 2022, arXiv:2112.12777): inverted softmax over a bank of training queries, and for those
  test queries alone whose nearest candidate is the nearest of one in the bank (its "dynamic inverted softmax").

The first two are transductive: what is found for a query depends on the other queries of the test.
"""

from typing import NamedTuple

import jax
import numpy as np

from mhcvse_jax.retrieval.one_way import BLOCK, BothWays, OneWay, in_blocks, nearest

OCCURRENCE_K = 10


class Hubs(NamedTuple):
    """How unevenly candidates are found; by chance a candidate is among the first K of K queries x K / candidates."""

    skewness: float  # of N_k over the candidates; about 0 without hubs
    most: int  # queries that have the most frequent candidate among their first K
    never: float  # share of candidates, in percent, that no query has there


def hubs(way: OneWay, k: int = OCCURRENCE_K) -> Hubs:
    """Returns how uneven the k-occurrences N_k are (Radovanović et al., JMLR 11, 2010).

    N_k of a candidate is the number of queries that have it among their first k; its skewness is the third central
    moment over the cubed standard deviation, 0 where all are equal.
    """
    found = nearest(way, k).candidates
    times = np.bincount(found.ravel(), minlength=way.num_candidates).astype(float)
    from_mean = times - times.mean()
    spread = np.sqrt(np.mean(from_mean**2))
    skewness = float(np.mean(from_mean**3) / spread**3) if spread else 0.0
    return Hubs(skewness, int(times.max()), float(100 * np.mean(times == 0)))


def inverted_softmax(ways: BothWays, temperature: float) -> BothWays:
    """Returns the scores of both directions by inverted softmax over the queries themselves.

    Args:
      ways: cosines.
      temperature: t, in the unit of a cosine.
    """
    # The queries of one direction are the candidates of the other: the sum over b is a sum along its rows.
    return BothWays(
        i2t=_less(ways.i2t, bank_load(ways.t2i, temperature)), t2i=_less(ways.t2i, bank_load(ways.i2t, temperature))
    )


def csls(ways: BothWays, num_neighbours: int) -> BothWays:
    """Returns the scores of both directions by CSLS, halved: s(q, g) - r(g) / 2."""

    def half_radius(way: OneWay) -> np.ndarray:
        return nearest(way, num_neighbours).scores.mean(axis=1) / 2

    return BothWays(i2t=_less(ways.i2t, half_radius(ways.t2i)), t2i=_less(ways.t2i, half_radius(ways.i2t)))


def qb_norm(ways: BothWays, banks: BothWays, temperature: float) -> BothWays:
    """Returns the scores of both directions by QB-Norm.

    Args:
      ways: cosines.
      banks: the test's candidates as queries, in rows, and the bank's as candidates: `i2t` has captions of the test
        and pictures of the bank, `t2i` pictures of the test and captions of the bank.
      temperature: t, in the unit of a cosine.
    """

    def way(own: OneWay, bank: OneWay) -> OneWay:
        is_hub = np.zeros(own.num_candidates, bool)
        is_hub[_nearest_rows(bank)] = True
        applies = is_hub[nearest(own, 1).candidates[:, 0]]
        return _less(own, bank_load(bank, temperature), applies)

    return BothWays(way(ways.i2t, banks.i2t), way(ways.t2i, banks.t2i))


def bank_load(bank: OneWay, temperature: float) -> np.ndarray:
    """Returns <float32>[rows], t log sum_b exp(s / t) over the columns of each row."""
    return in_blocks(np.arange(bank.num_queries), lambda block: (_load(bank.rows(block), temperature),))[0]


@jax.jit
def _load(scores: jax.Array, temperature: float) -> jax.Array:
    return temperature * jax.nn.logsumexp(scores / temperature, axis=1)


def _nearest_rows(bank: OneWay) -> np.ndarray:
    """Returns <int>[columns], the row with the highest score of each column; of equal ones the first."""
    best, place = np.full(bank.num_candidates, -np.inf, np.float32), np.zeros(bank.num_candidates, int)
    for start in range(0, bank.num_queries, BLOCK):
        rows = np.arange(start, min(start + BLOCK, bank.num_queries))
        block = np.asarray(bank.rows(rows))
        own = block.argmax(axis=0)
        value = np.take_along_axis(block, own[None], axis=0)[0]
        place = np.where(value > best, rows[own], place)
        best = np.maximum(best, value)
    return place


def _less(way: OneWay, load: np.ndarray, applies: np.ndarray | None = None) -> OneWay:
    """Returns the scores without each candidate's load; `applies` <bool>[queries]: of these queries alone."""
    if applies is None:
        return way._replace(rows=lambda chosen: way.rows(chosen) - load)
    return way._replace(rows=lambda chosen: way.rows(chosen) - np.where(applies[chosen][:, None], load, np.float32(0)))
