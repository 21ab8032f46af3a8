"""Captions to token ids: tokeniser, stop words, vocabulary."""

import collections
import functools
import importlib.resources
import itertools
import json
import pathlib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files import safe_pickle
from mhcvse_jax.files.downloads import check_no_web_page
from mhcvse_jax.files.whole import whole_file

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

_CHUNKS_KEPT = 1 << 17  # chunks whose tokens are remembered; the captions of Flickr30k have 35,000
_WORD = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CONTRACTED = frozenset(("cannot", "gimme", "gonna", "gotta", "lemme", "wanna"))  # letters alone, and yet two tokens


def tokenize(caption: str) -> list[str]:
    """Returns the lower-cased Penn Treebank tokens of a caption; needs no download.

    Equal to NLTK's TreebankWordTokenizer on the whole caption, and several times as fast: no rule looks
    across a space, except to detect the start or end of the text, so the tokens of a chunk, the text between two
    spaces, are found once.
    """
    caption = caption.lower()
    chunks = caption.split()
    if len(chunks) < 2 or " ".join(chunks) != caption:  # other white space than single spaces between chunks
        return _treebank(caption)
    first, *inner, last = chunks
    return [*_first_tokens(first), *itertools.chain.from_iterable(map(_inner_tokens, inner)), *_last_tokens(last)]


def _treebank(text: str) -> list[str]:
    return _tokenizer().tokenize(text)


@functools.cache
def _tokenizer() -> Any:
    from nltk.tokenize import TreebankWordTokenizer  # here, as NLTK takes a second to import

    return TreebankWordTokenizer()


@functools.lru_cache(_CHUNKS_KEPT)
def _first_tokens(chunk: str) -> Sequence[str]:
    return (chunk,) if _is_word(chunk) else _treebank(f"{chunk} x")[:-1]


@functools.lru_cache(_CHUNKS_KEPT)
def _inner_tokens(chunk: str) -> Sequence[str]:
    if chunk.endswith(",") and _is_word(chunk[:-1]):
        return chunk[:-1], ","
    return (chunk,) if _is_word(chunk) else _treebank(f"x {chunk} x")[1:-1]


@functools.lru_cache(_CHUNKS_KEPT)
def _last_tokens(chunk: str) -> Sequence[str]:
    if chunk.endswith(".") and _is_word(chunk[:-1]):
        return chunk[:-1], "."
    return (chunk,) if _is_word(chunk) else _treebank(f"x {chunk}")[1:]


def _is_word(chunk: str) -> bool:
    """Whether no rule splits the chunk: letters and digits with single hyphens, and no contraction of two words."""
    return bool(_WORD.fullmatch(chunk)) and _CONTRACTED.isdisjoint(chunk.split("-"))


def bytes_literal(caption: str) -> str:
    r"""Returns a caption as CVSE's program reads it: Python's literal of its bytes, b'a man' with the marks.

    `b"..."` where the caption holds an apostrophe, `\'` where it holds both marks, `\x..` for what is not ASCII.
    """
    return repr(caption.encode("utf-8"))


@functools.cache
def stop_words() -> frozenset[str]:
    """Returns the function words of `stop_words.txt`: words that do not tell pictures apart."""
    text = importlib.resources.files("mhcvse_jax.data").joinpath("stop_words.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


class Vocabulary:
    """The known tokens; a token's id is its position.

    Attributes:
      words: all tokens, the four special ones first.
    """

    def __init__(self, words: Sequence[str]):
        """Takes the tokens in the order of their ids, special ones included."""
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    @classmethod
    def build(
        cls, captions: Iterable[Sequence[str]], min_count: int, leave_out: Collection[str] = frozenset()
    ) -> "Vocabulary":
        """Returns the tokens seen `min_count` times or more in the tokenised captions, most frequent first.

        Args:
          captions: the tokens of each caption.
          min_count: how often a token must occur at least.
          leave_out: tokens to leave out, stop words for example.
        """
        counts = collections.Counter(itertools.chain.from_iterable(captions))
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        without = {*SPECIAL_TOKENS, *leave_out}
        return cls([*SPECIAL_TOKENS, *(word for _, word in frequent if word not in without)])

    @classmethod
    def load(cls, path: pathlib.Path) -> "Vocabulary":
        """Returns the vocabulary of SCAN's JSON, {word2idx, idx2word, idx}, or of its pickle, by the file's name.

        Raises:
          InputError: the file is missing, is not a vocabulary, or its ids are not 0, 1, 2, ... with the special
            tokens first.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected a vocabulary")
        check_no_web_page(path)
        try:
            if path.suffix in (".pkl", ".pickle"):
                ids = safe_pickle.load_object(path, "Vocabulary")["word2idx"]
            else:
                ids = json.loads(path.read_text(encoding="utf-8"))["word2idx"]
            if not isinstance(ids, dict):
                raise TypeError(f"word2idx is of type {type(ids).__name__}")
            words = sorted(ids, key=lambda word: ids[word])
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a vocabulary with a word2idx ({error!r})") from error
        if [ids[word] for word in words] != list(range(len(words))):
            raise InputError(f"{path}: word2idx holds {len(words)} words; expected the ids 0 to {len(words) - 1}")
        if tuple(words[:4]) != SPECIAL_TOKENS:
            raise InputError(f"{path}: the first words are {words[:4]}; expected {list(SPECIAL_TOKENS)}")
        return cls(words)

    def save(self, path: pathlib.Path) -> None:
        """Writes SCAN's JSON."""
        idx2word = {str(i): word for i, word in enumerate(self.words)}
        content = {"word2idx": self._ids, "idx2word": idx2word, "idx": len(self)}
        with whole_file(path) as partial:
            partial.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    def ids(self, tokens: Iterable[str]) -> np.ndarray:
        """Returns <int32>[tokens], the id of each; that of `<unk>` for what is not known."""
        return np.fromiter(map(self._ids.get, tokens, itertools.repeat(UNKNOWN)), np.int32)


class EncodedCaptions(NamedTuple):
    """Captions as ids, one after another, so that one long caption does not make all of them long."""

    ids: np.ndarray  # <int32>[tokens of all captions]
    starts: np.ndarray  # <int32>[captions] where each begins in `ids`
    lengths: np.ndarray  # <int32>[captions] tokens of each, 2 or more

    def padded(self, captions: np.ndarray | slice, length: int) -> np.ndarray:
        """Returns <int32>[captions, length], those with these indices, 0 at padding; what is longer is cut."""
        places = np.arange(length)
        index = np.minimum(self.starts[captions][:, None] + places, len(self.ids) - 1)
        return np.where(places < self.lengths[captions][:, None], self.ids[index], PAD)

    def chosen(self, captions: np.ndarray) -> "EncodedCaptions":
        """Returns the captions with these indices, or under a mask of booleans."""
        return EncodedCaptions(self.ids, self.starts[captions], self.lengths[captions])

    @classmethod
    def of_lengths(cls, ids: np.ndarray, lengths: np.ndarray) -> "EncodedCaptions":
        """Returns captions whose ids stand one after another, <int32>[tokens], with so many each, <int32>[captions]."""
        return cls(ids, np.cumsum(lengths, dtype=np.int32) - lengths, lengths)


def encode_captions(captions: Sequence[Sequence[str]], vocabulary: Vocabulary) -> EncodedCaptions:
    """Returns the ids of tokenised captions in full, however long."""
    lengths = np.fromiter(map(len, captions), np.int32, len(captions)) + np.int32(2)
    encoded = EncodedCaptions.of_lengths(np.empty(lengths.sum(), np.int32), lengths)
    ends = encoded.starts + lengths - 1
    encoded.ids[encoded.starts], encoded.ids[ends] = START, END
    is_word = np.ones(len(encoded.ids), bool)
    is_word[encoded.starts] = is_word[ends] = False
    encoded.ids[is_word] = vocabulary.ids(itertools.chain.from_iterable(captions))
    return encoded


def unknown_share(ids: np.ndarray) -> float:
    """Returns the share of the words among ids, <int32>[any], that the vocabulary lacks."""
    return float(np.sum(ids == UNKNOWN) / max(np.sum(ids >= UNKNOWN), 1))
