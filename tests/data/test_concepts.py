import json
import pickle

import numpy as np
import pytest

from mhcvse_jax import config as config_lib
from mhcvse_jax.data.concepts import (
    Concepts,
    caption_labels,
    count_concepts,
    image_labels,
    mine_concepts,
    read_cvse_concepts,
)
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment.reading import learn_language

CAPTIONS = [
    caption.split()
    for caption in """
a young man in a red shirt is walking a dog .
a man walking a brown dog on a street .
the dog is running in the snow with a red ball .
a young woman is sitting on a red bench .
two women are sitting in the snow .
a woman walking on a street with a small ball .
a small dog is running and a small dog is sitting .
""".strip().splitlines()
]


def random_corpus(seed, num_captions=101, num_words=13):
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{i}" for i in range(num_words + 4)]  # the last four are no concepts
    captions = [
        [vocabulary[i] for i in rng.integers(len(vocabulary), size=rng.integers(0, 11))] for _ in range(num_captions)
    ]
    return captions, vocabulary[:num_words][::-1]


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_labels_agree_with_loops(seed):
    captions, words = random_corpus(seed)
    occurrences, cooccurrences = count_concepts(captions, words)
    labels = caption_labels(captions, words)
    for i, word in enumerate(words):
        assert occurrences[i] == sum(token == word for caption in captions for token in caption)
        for j, other in enumerate(words):
            both = sum(word in caption and other in caption for caption in captions)
            assert cooccurrences[i, j] == (both if i != j else 0)
        assert [row[i] for row in labels] == [word in caption for caption in captions]
    assert occurrences.sum() > labels.sum()  # some captions repeat a word
    assert (occurrences.dtype, cooccurrences.dtype, labels.dtype) == (np.int64, np.int64, np.bool_)


def test_nothing_to_count():
    occurrences, cooccurrences = count_concepts([], ["dog", "cat"])
    np.testing.assert_array_equal(occurrences, [0, 0])
    np.testing.assert_array_equal(cooccurrences, np.zeros((2, 2)))
    assert caption_labels([[], ["dog"]], ["dog"]).tolist() == [[False], [True]]


def test_image_labels_are_the_union_of_the_captions():
    rng = np.random.default_rng(1)
    labels = rng.random((7 * 5, 11)) < 0.2
    owner = rng.permutation([0, 0, 0, *[2] * 7, *[3] * 11, *[4] * 5, *[5] * 9])  # 1 and 6 have no captions
    found = image_labels(labels, owner, 7)
    assert found.shape == (7, 11)
    for image in range(7):
        for concept in range(11):
            assert found[image, concept] == any(labels[i, concept] for i in np.flatnonzero(owner == image))


def test_a_concept_twice_is_refused():
    for function in (count_concepts, caption_labels):
        with pytest.raises(InputError, match="'dog' appears twice among 3 words"):
            function(CAPTIONS, ["dog", "man", "dog"])


def test_the_most_frequent_words_of_each_kind():
    concepts = mine_concepts(CAPTIONS, 9, shares=(5, 2, 2))
    assert concepts.words == ("dog", "ball", "man", "snow", "street", "red", "small", "sitting", "walking")
    assert concepts.kinds == ("object",) * 5 + ("property",) * 2 + ("motion",) * 2
    assert concepts.occurrences.tolist() == [5, 2, 2, 2, 2, 3, 3, 3, 3]
    occurrences, cooccurrences = count_concepts(CAPTIONS, concepts.words)
    np.testing.assert_array_equal(concepts.occurrences, occurrences)
    np.testing.assert_array_equal(concepts.cooccurrences, cooccurrences)
    # "small dog … small dog" is one caption of both.
    assert concepts.cooccurrences[concepts.words.index("small"), concepts.words.index("dog")] == 1


def test_stop_words_are_passed_over_and_order_of_captions_does_not_matter():
    concepts = mine_concepts(CAPTIONS[::-1], 3, shares=(1, 1, 1), stop_words={"dog", "red", "unseen"})
    assert concepts.words == ("ball", "small", "sitting")


@pytest.mark.parametrize(
    ("num", "shares", "expected"),
    [
        (10, (7, 2, 1), (7, 2, 1)),
        (5, (7, 2, 1), (4, 1, 0)),  # 3.5, 1, 0.5: equal remainders go to the first
        (8, (7, 2, 1), (6, 1, 1)),  # 5.6, 1.6, 0.8: the largest remainder, then the first of two equal ones
        (7, (1, 1, 1), (3, 2, 2)),
        (3, (0, 0, 2), (0, 0, 3)),
        (0, (7, 2, 1), (0, 0, 0)),
    ],
)
def test_shares_by_largest_remainder(num, shares, expected):
    concepts = mine_concepts(CAPTIONS, num, shares)
    assert tuple(concepts.kinds.count(kind) for kind in ("object", "property", "motion")) == expected
    assert len(concepts.words) == num


def test_too_few_words_are_counted_by_kind():
    message = "found 9 of 14 object words, 4 of 4 property words, 3 of 2 motion words"
    with pytest.raises(InputError, match=f"too few words for 20 concepts: {message}"):
        mine_concepts(CAPTIONS, 20)


def test_too_few_words_say_what_the_captions_allow():
    other = r"config.concepts.shares, now \(7, 2, 1\), in proportion to \(9, 4, 3\), with 16 concepts at most"
    with pytest.raises(InputError, match=rf"; set config.concepts.num to 13 or less, or {other}"):
        mine_concepts(CAPTIONS, 20)
    with pytest.raises(InputError, match=r" 0 of 3 property words, .*; set config.concepts.shares, now \(0, 1, 0\)"):
        mine_concepts([["the", "dog"], ["a", "dog"]], 3, shares=(0, 1, 0))  # no number would do
    assert len(mine_concepts(CAPTIONS, 13).words) == 13
    with pytest.raises(InputError, match="too few words for 14 concepts"):
        mine_concepts(CAPTIONS, 14)


def test_captions_of_another_language_have_concepts_of_no_known_kind():
    words = ["hund", "katze", "mann", "frau", "ball", "wiese", "strasse", "kind", "baum", "schnee"]
    captions = [["ein", words[i % 10], "und", words[3 * i % 10], "."] for i in range(50)]
    found = mine_concepts(captions, 7, (7, 2, 1), stop_words={"a", "the", "of"})
    counts = {word: sum(caption.count(word) for caption in captions) for word in words}
    expected = sorted(words, key=lambda word: (-counts[word], word))
    assert (set(found.words), found.kinds) == (set(found.words) & set(words), ("",) * 7)  # neither "ein" nor "und"
    assert [counts[word] for word in found.words] == [counts[word] for word in expected[:7]]
    with pytest.raises(InputError, match=r"hold only 12 words .* config.concepts.num is 13; set it to 12 or less"):
        mine_concepts(captions, 13, stop_words={"a", "the", "of"})


def concepts_of(seed=0):
    captions, words = random_corpus(seed)
    words[0] = "straße"
    kinds = tuple(["object", "property", "motion", ""][i % 4] for i in range(len(words)))
    return Concepts(tuple(words), kinds, *count_concepts(captions, words))


def test_saved_concepts_come_back(tmp_path):
    concepts, path = concepts_of(), tmp_path / "concepts"
    concepts.save(path)
    found = Concepts.load(path)
    assert (found.words, found.kinds) == (concepts.words, concepts.kinds)
    assert all(type(word) is str for word in found.words)
    np.testing.assert_array_equal(found.occurrences, concepts.occurrences)
    np.testing.assert_array_equal(found.cooccurrences, concepts.cooccurrences)


def test_damaged_files_of_concepts_are_refused(tmp_path):
    path = tmp_path / "concepts.npz"
    concepts_of().save(path)
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"concepts\.npz: "):
            Concepts.load(path)
    with pytest.raises(InputError, match=r"none\.npz: cannot be read"):
        Concepts.load(tmp_path / "none.npz")
    np.savez(path, words=np.array(["a"]))
    with pytest.raises(InputError, match=r"concepts\.npz: not a file of concepts"):
        Concepts.load(path)
    np.savez(path, words=np.array(["a"], object))  # would need pickle
    with pytest.raises(InputError, match=r"concepts\.npz: not a file of concepts"):
        Concepts.load(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"array\.npy: not a file of concepts"):
        Concepts.load(tmp_path / "array.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": ("a", "b", "a")}, "'a' appears twice among 3 words"),
        ({"kinds": ("object",)}, "1 kinds, expected 3"),
        ({"kinds": ("object", "thing", "")}, "kind 'thing', expected one of object, property, motion"),
        ({"occurrences": np.zeros(2, np.int64)}, r"occurrences are int64 \(2,\), expected int64 \(3,\)"),
        ({"occurrences": np.zeros(3)}, r"occurrences are float64 \(3,\), expected int64"),
        ({"occurrences": np.array([1, -4, 0])}, "occurrences hold the count -4"),
        (
            {"cooccurrences": np.zeros((3, 2), np.int64)},
            r"cooccurrences are int64 \(3, 2\), expected int64 \(3, 3\)",
        ),
        ({"cooccurrences": np.eye(3, dtype=np.int64)}, "diagonal of the cooccurrences is not zero"),
    ],
)
def test_concepts_that_do_not_agree_are_refused(change, message):
    good = {
        "words": ("a", "b", "c"),
        "kinds": ("object", "", "motion"),
        "occurrences": np.zeros(3, np.int64),
        "cooccurrences": np.zeros((3, 3), np.int64),
    }
    Concepts(**good)
    with pytest.raises(InputError, match=message):
        Concepts(**good | change)


def write_cvse(folder, ids, counts):
    words_path, counts_path = folder / "category_concepts.json", folder / "counts.pkl"
    words_path.write_text(ids if isinstance(ids, str) else json.dumps(ids), "utf-8")
    counts_path.write_bytes(pickle.dumps(counts))
    return words_path, counts_path


def test_cvse_files_are_read_in_the_order_of_their_ids(tmp_path):
    both = np.array([[0, 2, 1], [2, 0, 0], [1, 0, 0]], np.float64)
    counts = {"nums": np.array([5.0, 4.0, 3.0]), "adj_all": both, "adj_O_P": np.zeros(3)}
    concepts = read_cvse_concepts(*write_cvse(tmp_path, {"dog": 2, "man": 0, "red": 1}, counts))
    assert concepts.words == ("man", "red", "dog")
    assert concepts.kinds == ("", "", "")
    np.testing.assert_array_equal(concepts.occurrences, [5, 4, 3])
    np.testing.assert_array_equal(concepts.cooccurrences, both)
    assert concepts.occurrences.dtype == concepts.cooccurrences.dtype == np.int64


IDS = {"man": 0, "red": 1}
COUNTS = {"nums": np.array([5, 4]), "adj_all": np.zeros((2, 2), np.int64)}


@pytest.mark.parametrize(
    ("ids", "counts", "message"),
    [
        ("{", COUNTS, r"category_concepts\.json: not JSON"),
        (["man"], COUNTS, r"category_concepts\.json: expected an object of words and whole numbers"),
        ({"man": 0, "red": 1.0}, COUNTS, r"category_concepts\.json: expected an object of words and whole"),
        ({"man": 0, "red": True}, COUNTS, r"category_concepts\.json: expected an object of words and whole"),
        (
            {"man": 1, "red": 2},
            COUNTS,
            r"category_concepts\.json: 2 words without the id 0, expected 0 to 1 once",
        ),
        ({"man": 0, "red": 0}, COUNTS, r"category_concepts\.json: 2 words without the id 1"),
        (IDS, np.zeros(3), r"counts\.pkl: holds ndarray, expected the arrays nums and adj_all"),
        (IDS, {"nums": np.zeros(2)}, r"counts\.pkl: holds nums, expected the arrays nums and adj_all"),
        (IDS, {}, r"counts\.pkl: holds nothing, expected"),
        (IDS, COUNTS | {"nums": np.array([0.5, 1])}, r"counts\.pkl: nums holds values that are no counts"),
        (IDS, COUNTS | {"nums": np.array([np.nan, 1])}, r"counts\.pkl: nums holds values that are no counts"),
        (IDS, COUNTS | {"nums": np.array([np.inf, 1])}, r"counts\.pkl: nums holds values that are no counts"),
        (
            IDS,
            COUNTS | {"nums": np.zeros(3)},
            r"counts\.pkl .*occurrences are int64 \(3,\), expected int64 \(2,\)",
        ),
        (IDS, COUNTS | {"adj_all": np.zeros((3, 3))}, r"counts\.pkl .*\(3, 3\), expected int64 \(2, 2\)"),
        (IDS, COUNTS | {"adj_all": np.eye(2)}, r"counts\.pkl .*diagonal"),
        (IDS, COUNTS | {"nums": print}, r"counts\.pkl: holds builtins\.print"),
    ],
)
def test_cvse_files_that_do_not_agree_are_refused(tmp_path, ids, counts, message):
    with pytest.raises(InputError, match=message):
        read_cvse_concepts(*write_cvse(tmp_path, ids, counts))


def test_missing_cvse_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_cvse_concepts(tmp_path / "none.json", tmp_path / "none.pkl")


@pytest.mark.parametrize("name", ["vsepp_f30k", "scan_f30k", "cross_attention_f30k"])
def test_a_model_without_concepts_asks_for_none(name):
    captions = [["usb", "cable", str(i)] for i in range(9)]  # product names: 300 concepts are not to be found in them
    language, num_found = learn_language(config_lib.read(name), captions, captions)
    assert (language.concepts.words, num_found) == ((), None)
    assert "cable" in language.vocabulary
    with pytest.raises(InputError, match=r"config\.concepts\.num"):
        learn_language(config_lib.read("f30k"), captions, captions)
