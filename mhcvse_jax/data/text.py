"""Captions to token ids: tokeniser, stop words, vocabulary."""

import collections
import functools
import importlib.resources
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from nltk.tokenize import TreebankWordTokenizer

from mhcvse_jax.errors import InputError

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

_tokenizer = TreebankWordTokenizer()


def tokenize(caption: str) -> list[str]:
    """Returns the lower-cased Penn Treebank tokens of a caption; needs no download."""
    return _tokenizer.tokenize(caption.lower())


@functools.cache
def stop_words() -> frozenset[str]:
    """Returns the function words of `stop_words.txt`: none that tells one picture from another."""
    text = importlib.resources.files("mhcvse_jax.data").joinpath("stop_words.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


class Vocabulary:
    """The known tokens; a token's id is its place.

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
    def build(cls, captions: Iterable[Sequence[str]], min_count: int) -> "Vocabulary":
        """Returns the tokens seen `min_count` times or more in the tokenised captions, most frequent first."""
        counts = collections.Counter(token for caption in captions for token in caption)
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls([*SPECIAL_TOKENS, *(word for _, word in frequent if word not in SPECIAL_TOKENS)])

    @classmethod
    def load(cls, path: pathlib.Path) -> "Vocabulary":
        """Returns the vocabulary of SCAN's JSON, {word2idx, idx2word, idx}.

        Raises:
          InputError: the file is missing, is not such JSON, or its ids are not 0, 1, 2, ... with the special
            tokens first.
        """
        try:
            ids = json.loads(path.read_text(encoding="utf-8"))["word2idx"]
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; expected a vocabulary") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a vocabulary with a word2idx ({error!r})") from error
        words = sorted(ids, key=lambda word: ids[word])
        if [ids[word] for word in words] != list(range(len(words))):
            raise InputError(f"{path}: word2idx holds {len(words)} words; expected the ids 0 to {len(words) - 1}")
        if tuple(words[:4]) != SPECIAL_TOKENS:
            raise InputError(f"{path}: the first words are {words[:4]}; expected {list(SPECIAL_TOKENS)}")
        return cls(words)

    def save(self, path: pathlib.Path) -> None:
        """Writes SCAN's JSON."""
        idx2word = {str(i): word for i, word in enumerate(self.words)}
        content = {"word2idx": self._ids, "idx2word": idx2word, "idx": len(self)}
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Returns `<start>`, the ids of the tokens, `<end>`."""
        return [START, *(self._ids.get(token, UNKNOWN) for token in tokens), END]


class EncodedCaptions(NamedTuple):
    """Captions as one padded array."""

    tokens: np.ndarray  # <int32>[captions, longest], 0 at padding
    lengths: np.ndarray  # <int32>[captions] tokens of each, 2 or more


def encode_captions(captions: Sequence[Sequence[str]], vocabulary: Vocabulary) -> EncodedCaptions:
    """Returns the ids of tokenised captions, whole, however long."""
    encoded = [vocabulary.encode(caption) for caption in captions]
    lengths = np.array([len(ids) for ids in encoded], np.int32)
    tokens = np.full((len(encoded), lengths.max()), PAD, np.int32)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = np.concatenate(encoded)
    return EncodedCaptions(tokens, lengths)


def unknown_share(tokens: np.ndarray) -> float:
    """Returns the share of the words in <int32>[captions, longest] that the vocabulary lacks."""
    return float(np.sum(tokens == UNKNOWN) / max(np.sum(tokens >= UNKNOWN), 1))
