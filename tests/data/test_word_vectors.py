import pickle

import numpy as np
import pytest

from mhcvse_jax.data.word_vectors import read_concept_vectors, read_word_vectors, unit_vectors
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment.train import describe_word_vectors

DIM = 5
TABLE = {
    "the": [0.25, -1.5, 3.0, 0.0, 1e-3],
    "dog": [1.0, 2.0, 3.0, 4.0, 5.0],
    ". . .": [9.0, 8.0, 7.0, 6.0, 5.0],
    "new york": [0.5, 0.5, 0.5, 0.5, 0.5],
    "straße": [-1.0, 0.0, 1.0, 0.0, -1.0],
    "a\u00a0b\u2028c": [2.0, 2.0, 2.0, 2.0, 2.0],
    "7": [7.0, 7.0, 7.0, 7.0, 7.0],
}


def write(path, table=TABLE, header="", end="\n"):
    lines = [" ".join([word, *map(str, vector)]) + end for word, vector in table.items()]
    path.write_bytes((header + "".join(lines)).encode())
    return path


@pytest.mark.parametrize("header", ["", f"{len(TABLE)} {DIM}\n"], ids=["glove", "fasttext"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])
def test_only_the_words_asked_for_and_exactly_those(tmp_path, header, end):
    path = write(tmp_path / "vectors.txt", header=header, end=end)
    words = ["dog", "Dog", ". . .", "cat", "straße", "the", "new york", "york", "a\u00a0b\u2028c", "7", "dog"]
    vectors, found, _ = read_word_vectors(path, words, DIM)
    assert (vectors.shape, vectors.dtype, found.dtype) == ((len(words), DIM), np.float32, np.bool_)
    for word, vector, is_found in zip(words, vectors, found, strict=True):
        assert is_found == (word in TABLE)
        np.testing.assert_array_equal(vector, np.float32(TABLE.get(word, [0] * DIM)))


def test_the_first_of_two_is_taken_and_reading_stops_there(tmp_path):
    path = tmp_path / "twice.txt"
    path.write_text("dog 1 2\ndog 3 4\nbroken\n", "utf-8")
    np.testing.assert_array_equal(read_word_vectors(path, ["dog"], 2).vectors, [[1, 2]])
    with pytest.raises(InputError, match=r"twice\.txt, line 3: 0 values, expected 2"):
        read_word_vectors(path, ["dog", "cat"], 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2 3\ndog 1 2\n", "line 2: 2 values, expected 3"),
        ("the 1 2 3 4\n", "line 1: 4 values, expected 3"),
        ("the 1 2 3\ncat 1 2 3 4\n", "line 2: 4 values, expected 3"),
        ("2 4\nthe 1 2 3 4\n", "line 1: vectors of width 4, expected 3"),
        ("the 1 2 3\ndog 1 2", "line 2: 2 values, expected 3"),
        ("the\t1\t2\t3\n", "line 1: 0 values, expected 3, separated by spaces"),
        ("2 3\nthe \x07\x00\x80 \x3f\n", "line 2: not a text in UTF-8; expected a word and its 3 numbers on each"),
        ("dog 1 x 3\n", "line 1: expected 3 numbers after the word, found '1 x 3'"),
        ("dog 1 nan 3\n", "line 1: holds values that are not finite"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=rf"vectors\.txt, {message}"):
        read_word_vectors(path, ["dog"], 3)


@pytest.mark.parametrize("text", ["", "\n\n", "0 3\n"])
def test_an_empty_file_is_called_empty(tmp_path, text):
    (tmp_path / "vectors.txt").write_text(text)
    with pytest.raises(InputError, match=r"vectors\.txt is empty; expected a word and its 3 numbers on each line"):
        read_word_vectors(tmp_path / "vectors.txt", ["dog"], 3)


def test_bytes_that_are_no_utf8_do_not_stop_the_reading(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"\xff\xfe 1 2\ndog 3 4\n")
    assert read_word_vectors(path, ["dog"], 2).found.all()


def test_a_missing_file_is_named(tmp_path):
    for name in ("none.txt", "none.npy", "none.pkl"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read"):
            read_concept_vectors(tmp_path / name, ["dog"], 2)


def save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        path.write_bytes(pickle.dumps(array, 2))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".pkl"])
def test_concept_vectors_from_arrays(tmp_path, suffix):
    array = np.random.default_rng(2).normal(size=(3, DIM))
    path = save(tmp_path / f"concepts{suffix}", array)
    vectors, found, _ = read_concept_vectors(path, ["man", "red", "runs"], DIM)
    np.testing.assert_array_equal(vectors, array.astype(np.float32))
    assert vectors.dtype == np.float32
    assert found.tolist() == [True] * 3
    with pytest.raises(InputError, match=rf"concepts\{suffix}: holds float64 \(3, 5\), expected .*\(2, 5\)"):
        read_concept_vectors(path, ["man", "red"], DIM)
    with pytest.raises(InputError, match=r"expected .*\(3, 7\)"):
        read_concept_vectors(path, ["man", "red", "runs"], 7)
    array[1, 2] = np.inf
    with pytest.raises(InputError, match="not finite"):
        read_concept_vectors(save(path, array), ["man", "red", "runs"], DIM)
    with pytest.raises(InputError, match=r"holds <U1"):
        read_concept_vectors(save(path, np.full((3, DIM), "x")), ["man", "red", "runs"], DIM)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=rf"concepts\{suffix}: not a complete"):
        read_concept_vectors(path, ["man", "red", "runs"], DIM)


def test_concept_vectors_from_other_things(tmp_path):
    path = tmp_path / "concepts.pkl"
    path.write_bytes(pickle.dumps({"dog": [1, 2]}))
    with pytest.raises(InputError, match=r"concepts\.pkl: holds dict, expected an array"):
        read_concept_vectors(path, ["dog"], 2)
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects\.npy: not a complete"):
        read_concept_vectors(tmp_path / "objects.npy", ["dog"], 1)
    text = write(tmp_path / "glove.6B.5d.txt")
    vectors, found, _ = read_concept_vectors(text, ["dog", "cat"], DIM)
    assert found.tolist() == [True, False]
    np.testing.assert_array_equal(vectors[0], TABLE["dog"])


def test_unit_vectors_have_length_one_and_hang_on_the_seed_alone():
    vectors = unit_vectors(211, 47, seed=3)
    assert (vectors.shape, vectors.dtype) == ((211, 47), np.float32)
    np.testing.assert_allclose((vectors.astype(np.float64) ** 2).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(vectors, unit_vectors(211, 47, seed=3))
    assert not np.allclose(vectors, unit_vectors(211, 47, seed=4))
    assert abs(vectors.mean()) < 0.01  # directions all around, not one octant
    assert abs((vectors @ vectors.T)[np.triu_indices(211, 1)]).max() < 0.8


def test_words_with_capitals_stand_in_for_those_without(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("Dog 1 2\nDOG 3 4\nCat 5 6\ncat 7 8\nBird 9 9\n")
    found = read_word_vectors(path, ["cat", "dog", "tree"], 2)
    np.testing.assert_array_equal(found.vectors, [[7, 8], [1, 2], [0, 0]])
    assert (found.found.tolist(), found.num_lowered) == ([True, True, False], 1)


def test_a_file_of_other_words_is_refused(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("chien 1 2\nchat 3 4\n")
    with pytest.raises(InputError, match=r"has none of the 3 words, dog, cat for example \(it begins with 'chien'\)"):
        read_word_vectors(path, ["<pad>", "dog", "cat"], 2)


def test_blank_lines_and_a_byte_order_mark_are_no_words(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("\ufeffdog 1 2\n\ncat 3 4\n \n\n")
    found = read_word_vectors(path, ["dog", "cat", "not there"], 2)
    np.testing.assert_array_equal(found.vectors, [[1, 2], [3, 4], [0, 0]])


def test_glove_of_the_package_has_places_of_its_own_to_learn_in():
    words = ["<pad>", "dog", "puppy", "bicycle"]
    vectors, found, _ = read_word_vectors("glove", words, 71, seed=5)
    assert found.tolist() == [False, True, True, True]
    known, drawn = vectors[1:, :50], vectors[1:, 50:]
    for half in (known, drawn):
        np.testing.assert_allclose(np.linalg.norm(half, axis=1), np.sqrt(0.5), rtol=1e-6)
    # The first values of "dog" as Stanford published them.
    np.testing.assert_allclose(known[0, :3] / known[0, 0], np.array([0.11008, -0.38781, -0.57615]) / 0.11008, rtol=1e-4)
    assert known[0] @ known[1] > known[0] @ known[2] + 0.1
    assert not np.array_equal(drawn, read_word_vectors("glove", words, 71, seed=6).vectors[1:, 50:])
    alone = read_concept_vectors("glove", words[1:], 50).vectors
    np.testing.assert_allclose(alone, known * np.sqrt(2), rtol=1e-6)
    with pytest.raises(InputError, match="have 50 values, more than the 49"):
        read_word_vectors("glove", words, 49)


def test_a_file_without_most_words_is_warned_of_with_examples(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("Dog 1 2\ncat 3 4\n")
    words = ["<pad>", "<unk>", ".", "dog", "tree", "cat", "house"]
    found = read_word_vectors(path, words, 2)
    line, warning = describe_word_vectors("glove.txt", words, found).split("\n")
    assert line == "words     glove.txt has 2 of 7 tokens (28.6%), 1 of them only in capitals"
    assert warning.startswith(
        "warning: more than half of the words have no vector in this file, for example tree, house;"
    )
    half = read_word_vectors(path, words[3:], 2)
    assert describe_word_vectors("glove.txt", words[3:], half).count("\n") == 0
