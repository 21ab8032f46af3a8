"""The concept graph: which concepts are neighbours, and the matrix that spreads features over them.

CVSE (ECCV 2020), which MH-CVSE (arXiv:2412.19184, Eq. 3) keeps, here in the form of its program.
"""

from typing import NamedTuple

import numpy as np


class Edges(NamedTuple):
    """A sparse matrix by its entries: out[receiver] = sum of weight * in[sender]."""

    senders: np.ndarray  # <int32>[edge]
    receivers: np.ndarray  # <int32>[edge], ascending
    weights: np.ndarray  # <float32>[edge]


def adjacency(
    occurrences: np.ndarray,
    cooccurrences: np.ndarray,
    *,
    scale: float,
    shift: float,
    threshold: float,
    neighbour_weight: float,
) -> np.ndarray:
    """Weights A between concepts, the diagonal included.

    P_ij = n_ij / n_i, the probability of j in a caption that holds i; f(P) = s^(P - u) - s^(-u); j is a
    neighbour of i where f(P_ij) reaches the threshold; a column's neighbours share the neighbour weight,
    and each concept has weight 1 for itself. A concept that never occurs has no neighbours.

    Args:
      occurrences: <int>[concept] n_i.
      cooccurrences: <int>[concept, concept] n_ij, captions that hold both.
      scale: s, above 1; the larger, the more f favours a P near 1.
      shift: u, a probability.
      threshold: the f from which a pair counts; f runs from 0 (P = 0) to s^(1 - u) - s^(-u) (P = 1).
      neighbour_weight: the sum of a column without its diagonal.

    Returns:
      <float64>[concept, concept] A.
    """
    occurs = occurrences > 0
    probability = cooccurrences / np.where(occurs, occurrences, 1)[:, None]
    scaled = scale ** (probability - shift) - scale ** (-shift)
    neighbours = (scaled >= threshold) & occurs[:, None] & occurs[None, :]
    shares = neighbours / (neighbours.sum(axis=0) + 1e-6)
    return neighbour_weight * shares + np.eye(len(occurrences))


def propagation_matrix(adjacency_matrix: np.ndarray) -> np.ndarray:
    """Propagation matrix Â = (A D^-1/2)^T D^-1/2 of a graph convolution, D = diag(row sums of A).

    A is not symmetric and neither is Â: row j of Â gathers from those that have j as a neighbour.

    Args:
      adjacency_matrix: <float>[concept, concept] A, its diagonal positive.

    Returns:
      <float64>[concept, concept] Â.
    """
    inverse_root = 1.0 / np.sqrt(adjacency_matrix.sum(axis=1))
    return (adjacency_matrix * inverse_root).T * inverse_root


def edges(matrix: np.ndarray) -> Edges:
    """Non-zero entries of a matrix, so that spreading along them equals `matrix @ features`.

    Args:
      matrix: <float>[concept, concept]; entry (i, j) is received by i and sent by j.

    Returns:
      The edges, by receiver, then sender.
    """
    receivers, senders = np.nonzero(matrix)
    return Edges(senders.astype(np.int32), receivers.astype(np.int32), matrix[receivers, senders].astype(np.float32))
