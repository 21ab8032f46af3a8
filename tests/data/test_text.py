import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk.tokenize import TreebankWordTokenizer

from mhcvse_jax.data import text
from mhcvse_jax.data.text import SPECIAL_TOKENS, Vocabulary
from mhcvse_jax.errors import InputError


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man in a RED hat.", ["a", "man", "in", "a", "red", "hat", "."]),
        ("The dog's owner can't see.", ["the", "dog", "'s", "owner", "ca", "n't", "see", "."]),
        ('A sign reads "stop", twice', ["a", "sign", "reads", "``", "stop", "''", ",", "twice"]),
        ("Café, naïve", ["café", ",", "naïve"]),
    ],
)
def test_tokens_are_lower_case_penn_treebank(caption, tokens):
    assert text.tokenize(caption) == tokens


TREEBANK_PIECES = [
    *("can", "not", "cannot", "gim", "me", "gimme", "gon", "na", "gonna", "got", "ta", "gotta", "lem", "lemme"),
    *("wan", "wanna", "d'ye", "more", "'n", "more'n", "'t", "is", "'tis", "was", "'twas", "'s", "'m", "'d", "'ll"),
    *("'re", "'ve", "n't", "s", "x", "word", "t-shirt", "a--b", "1", "2,3", "4:5", "-", "--", ".", "..", "...", ","),
    *("'", "''", "`", "``", '"', ":", ";", "@", "#", "$", "%", "&", "?", "!", "(", ")", "[", "]", "{", "}", "<", ">"),
    *("é", "İ", "K", "ſ", "²", "_", "«"),
]
SPACES = [" ", "  ", "\t", "\xa0", "\u2028", "\x1c", "\n"]
CHUNKS = st.lists(st.sampled_from(TREEBANK_PIECES), min_size=1, max_size=3).map("".join)
CAPTIONS = st.one_of(
    st.lists(CHUNKS, max_size=5).map(" ".join),
    st.lists(st.one_of(CHUNKS, st.sampled_from(SPACES)), max_size=7).map("".join),
    st.text(max_size=40),
)


@settings(derandomize=True, deadline=None, database=None, max_examples=400)
@given(CAPTIONS)
@example("can't stop. gonna wanna-be cannot-do \"it\" 'tis dogs' (so ) a,, b: gimme.")
@example("''so'' barks the ''dog's.")
def test_tokens_are_those_of_nltk_on_the_whole_caption(caption):
    assert text.tokenize(caption) == TreebankWordTokenizer().tokenize(caption.lower())


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=7), st.integers(1, 3), st.integers(0, 9))
def test_any_unicode_comes_back_from_ids_and_padding(captions, min_count, more):
    tokenized = [text.tokenize(caption) for caption in captions]
    vocabulary = Vocabulary.build(tokenized, min_count)
    encoded = text.encode_captions(tokenized, vocabulary)
    width = encoded.lengths.max() + more
    padded = encoded.padded(slice(None), width)
    assert padded.shape == (len(captions), width)
    for row, length, tokens in zip(padded, encoded.lengths, tokenized, strict=True):
        assert not row[length:].any()
        known = [token if token in vocabulary else "<unk>" for token in tokens]
        assert [vocabulary.words[i] for i in row[:length]] == ["<start>", *known, "<end>"]
    counts = {token: sum(tokens.count(token) for tokens in tokenized) for tokens in tokenized for token in tokens}
    frequent = {token for token, count in counts.items() if count >= min_count}
    assert set(vocabulary.words) == frequent | set(SPECIAL_TOKENS)


@pytest.mark.parametrize(
    ("caption", "literal", "tokens"),
    [
        ("A man runs .", "b'A man runs .'", ["b'a", "man", "runs", ".", "'"]),
        ("A man's hat.", 'b"A man\'s hat."', ["b", "''", "a", "man", "'s", "hat", ".", "''"]),
        ('The "boy\'s" hat', "b'The \"boy\\'s\" hat'", ["b'the", "``", "boy\\", "'s", "''", "hat", "'"]),
        ("Café", "b'Caf\\xc3\\xa9'", ["b'caf\\xc3\\xa9", "'"]),
    ],
)
def test_a_caption_as_the_literal_of_its_bytes(caption, literal, tokens):
    assert text.bytes_literal(caption) == literal == str(caption.encode())
    assert text.tokenize(literal) == tokens


def test_vocabulary_holds_what_is_seen_often_enough_most_frequent_first():
    captions = [["b", "b", "c"], ["b", "a", "c"], ["a", "d"]]
    assert Vocabulary.build(captions, min_count=2).words == (*SPECIAL_TOKENS, "b", "a", "c")
    assert Vocabulary.build(captions, min_count=2, leave_out={"a", "d"}).words == (*SPECIAL_TOKENS, "b", "c")


def test_encoding_wraps_a_caption_and_marks_unknown_words():
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "dog", "runs"])
    encoded = text.encode_captions([["dog", "flies", "runs"], []], vocabulary)
    expected = [[text.START, 4, text.UNKNOWN, 5, text.END], [text.START, text.END, 0, 0, 0]]
    assert encoded.padded(slice(None), 5).tolist() == expected


def test_encoded_captions_are_whole_and_padded_with_zeros():
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "x"])
    captions = [["x"] * 3, [], ["x"] * 97]
    encoded = text.encode_captions(captions, vocabulary)
    assert encoded.lengths.tolist() == [5, 2, 99]
    assert encoded.ids.shape == (5 + 2 + 99,)  # a long caption takes its own length, not that of all
    padded = encoded.padded(slice(None), 99)
    assert padded.dtype == np.int32
    for row, length, caption in zip(padded, encoded.lengths, captions, strict=True):
        assert row[:length].tolist() == [text.START, *[4] * len(caption), text.END]
        assert not row[length:].any()


def test_unknown_share_counts_words_alone():
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "x"])
    encoded = text.encode_captions([["x", "y", "x"], ["z"]], vocabulary)
    assert text.unknown_share(encoded.ids) == 2 / 4


def test_vocabulary_reads_back_as_written_in_scans_layout(tmp_path):
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "dog", "naïve"])
    vocabulary.save(tmp_path / "v.json")
    saved = json.loads((tmp_path / "v.json").read_text())
    assert saved["word2idx"]["dog"] == 4
    assert saved["idx2word"]["5"] == "naïve"
    assert saved["idx"] == 6
    assert Vocabulary.load(tmp_path / "v.json").words == vocabulary.words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a vocabulary"),
        ('{"words": []}', "not a vocabulary"),
        ('{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3, "dog": 5}}', "expected the ids 0 to 4"),
        ('{"word2idx": {"dog": 0, "<start>": 1, "<end>": 2, "<unk>": 3}}', "first words"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, content, message):
    path = tmp_path / "v.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        Vocabulary.load(path)
    assert str(path) in str(error.value)


def test_a_missing_vocabulary_is_named(tmp_path):
    with pytest.raises(InputError, match="absent"):
        Vocabulary.load(tmp_path / "absent.json")


def test_stop_words_leave_what_tells_pictures_apart():
    stop = text.stop_words()
    assert {"a", "the", "of", "is", "with", "and", "his"} <= stop
    telling = "red blue two three no not n't without up down under above left right front behind near man dog"
    assert not stop & set(telling.split())
    assert all(word == word.lower() and " " not in word for word in stop)
