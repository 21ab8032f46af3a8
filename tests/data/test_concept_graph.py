import numpy as np
import pytest

from mhcvse_jax.data.concept_graph import adjacency, edges, propagation_matrix

CVSE = {"scale": 5.0, "shift": 0.02, "threshold": 0.3, "neighbour_weight": 0.25}
NUM = 13


def random_counts(seed):
    rng = np.random.default_rng(seed)
    occurrences = rng.integers(20, 60, NUM)
    both = np.triu(rng.integers(0, 20, (NUM, NUM)), 1)
    return occurrences, both + both.T


def adjacency_by_loops(n, n_both, s, u, threshold, weight):
    size = len(n)
    A = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(size):
            if n[i] > 0 and n[j] > 0:
                f = s ** (n_both[i][j] / n[i] - u) - s ** (0 - u)
                A[i][j] = 1.0 if f >= threshold else 0.0
    for j in range(size):
        column = sum(A[i][j] for i in range(size))
        for i in range(size):
            A[i][j] = A[i][j] / (column + 1e-6) * weight
    for i in range(size):
        A[i][i] += 1.0
    return np.array(A)


def propagation_by_loops(A):
    size = len(A)
    D = np.diag([float(sum(A[i])) for i in range(size)])
    root = np.diag([1 / np.sqrt(D[i, i]) for i in range(size)])
    return (A @ root).T @ root


@pytest.mark.parametrize("seed", range(5))
def test_adjacency_and_propagation_follow_the_formulas(seed):
    n, n_both = random_counts(seed)
    A = adjacency(n, n_both, **CVSE)
    np.testing.assert_allclose(A, adjacency_by_loops(n, n_both, 5.0, 0.02, 0.3, 0.25), rtol=1e-12)
    assert 0 < np.count_nonzero(A) - NUM < NUM * (NUM - 1)  # some are neighbours and some are not
    np.testing.assert_allclose(propagation_matrix(A), propagation_by_loops(A), rtol=1e-12)
    assert not np.allclose(propagation_matrix(A), propagation_matrix(A).T)


@pytest.mark.parametrize("key", ["scale", "shift", "threshold", "neighbour_weight"])
def test_each_number_of_the_configuration_counts(key):
    n, n_both = random_counts(7)
    changed = CVSE | {key: CVSE[key] * 1.7 + (2.0 if key == "shift" else 0.0)}
    assert not np.allclose(adjacency(n, n_both, **CVSE), adjacency(n, n_both, **changed))


def test_probability_is_a_share_of_the_row_and_the_column_is_normalised():
    # Of 10 captions with concept 0, 8 hold concept 1; of 100 with concept 1 only those 8 hold concept 0.
    A = adjacency(np.array([10, 100]), np.array([[0, 8], [8, 0]]), **CVSE)
    np.testing.assert_allclose(A, [[1, 0.25], [0, 1]], atol=1e-6)


def test_the_threshold_itself_counts():
    P, s, u = 0.5, 4.0, 0.0
    A = adjacency(
        np.array([2, 2]),
        np.array([[0, 1], [1, 0]]),
        scale=s,
        shift=u,
        threshold=s**P - 1,
        neighbour_weight=0.25,
    )
    assert A[0, 1] > 0


@pytest.mark.parametrize("threshold", [0.3, 0.0])
def test_a_concept_that_never_occurs_has_no_neighbours_and_keeps_itself(threshold):
    n, n_both = random_counts(3)
    n[4] = 0
    n_both[4] = n_both[:, 4] = 0
    A = adjacency(n, n_both, **CVSE | {"threshold": threshold})
    alone = np.eye(NUM)[4]
    np.testing.assert_array_equal(A[4], alone)
    np.testing.assert_array_equal(A[:, 4], alone)
    spread = propagation_matrix(A)
    assert np.isfinite(spread).all()
    np.testing.assert_array_equal(spread[4], alone)


def test_edges_spread_as_the_matrix_does():
    rng = np.random.default_rng(11)
    matrix = propagation_matrix(adjacency(*random_counts(11), **CVSE))
    features = rng.normal(size=(NUM, 3))
    senders, receivers, weights = edges(matrix)
    received = np.zeros_like(features)
    for sender, receiver, weight in zip(senders, receivers, weights, strict=True):
        received[receiver] += weight * features[sender]
    np.testing.assert_allclose(received, matrix @ features, rtol=1e-5, atol=1e-6)
    assert not np.allclose(received, matrix.T @ features, atol=1e-3)
    assert len(weights) == np.count_nonzero(matrix)
    assert (senders.dtype, receivers.dtype, weights.dtype) == (np.int32, np.int32, np.float32)
    assert (np.diff(receivers) >= 0).all()
