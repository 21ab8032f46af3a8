"""What concepts say, on a graph small enough to be read."""

import numpy as np
import pytest

from mhcvse_jax.data.concepts import Concepts, given_concepts
from mhcvse_jax.reporting import concepts

WORDS = ("dog", "ball", "lake", "red", "runs")
TOGETHER = np.array([[0, 6, 0, 2, 8], [6, 0, 0, 1, 0], [0, 0, 0, 0, 0], [2, 1, 0, 0, 0], [8, 0, 0, 0, 0]])


def test_neighbours_are_the_linked_by_how_often_they_share_a_caption():
    kinds = ("object", "object", "object", "property", "motion")
    known = Concepts(WORDS, kinds, np.array([20, 10, 30, 4, 8]), TOGETHER)
    links = np.where(TOGETHER > 1, 0.25, 0.0) + np.eye(5)
    angles = np.array([0.0, 0.1, 1.5, 0.5, 0.3])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = {one.word: one for one in concepts.neighbours(known, links, embeddings)}
    assert list(found) == ["dog", "ball", "lake", "red", "runs"]
    assert found["dog"].in_graph == [("runs", pytest.approx(0.4)), ("ball", 0.3), ("red", 0.1)]
    assert found["ball"].in_graph == [("dog", 0.6)]  # red shares a caption and is not linked
    assert found["lake"].in_graph == []
    assert [other.word for other in found["dog"].learned] == ["ball", "runs", "red", "lake"]
    assert found["dog"].learned[0].value == pytest.approx(np.cos(0.1))


def test_concepts_of_which_only_links_are_known():
    links = np.array([[1, 0.1, 0.3], [0, 1, 0], [0.2, 0, 1]], np.float32)
    known = given_concepts(WORDS[:3], links)
    found = concepts.neighbours(known, links, np.eye(3))
    assert [(one.word, one.kind) for one in found] == [("dog", ""), ("lake", ""), ("ball", "")]
    assert [other.word for other in found[0].in_graph] == ["lake", "ball"]


def test_a_picture_is_about_its_likeliest_concepts():
    said = concepts.about(WORDS, np.array([0.1, 0.4, 0.2, 0.0, 0.3]), np.array([1, 0, 0, 0, 1], bool), 3)
    assert said == [("ball", 0.4, False), ("runs", 0.3, True), ("lake", 0.2, False)]
