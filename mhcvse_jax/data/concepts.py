"""Concepts: the words of MH-CVSE's consensus, how often they occur, and which captions name them.

CVSE (ECCV 2020) takes the most frequent words of the captions, with objects, properties and motions as 7 : 2 : 1,
and MH-CVSE (arXiv:2412.19184) does the same.

Deviation: CVSE's published files count over the captions of all splits, the test captions among them. Give
`mine_concepts` the training captions only; `read_cvse_concepts` brings CVSE's files as they are.
"""

import json
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data.part_of_speech import ADJECTIVE, NOUN, VERB, parts_of_speech
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_no_web_page
from mhcvse_jax.files.safe_pickle import load_arrays
from mhcvse_jax.files.whole import whole_file

Captions = Sequence[Sequence[str]]

_KIND_OF_PART = {NOUN: "object", ADJECTIVE: "property", VERB: "motion"}
KINDS = tuple(_KIND_OF_PART.values())
LEAST_STOP_WORDS = 0.1  # of the tokens of captions whose parts of speech can be told; 0.4 in Flickr30k's
COMMON_SHARE = 0.2  # of the captions that a concept of no known kind may be in


@dataclass(frozen=True, eq=False)
class Concepts:
    """Words with their kinds and counts; every array has one entry per concept.

    Raises:
      InputError: lengths differ, a word occurs twice, a kind is unknown, a count is negative, a concept
        occurs with itself, or no propagation matrix can be made of the weights.
    """

    words: tuple[str, ...]
    kinds: tuple[str, ...]  # "object", "property", "motion", or "" where nobody said
    occurrences: np.ndarray  # <int64>[concept] n_i: tokens, a repeat in a caption counts again
    cooccurrences: np.ndarray  # <int64>[concept, concept] n_ij: captions that hold both; zero diagonal
    adjacency: np.ndarray | None = None  # <float32>[concept, concept] A, where it was given: counts are 0 then

    def __post_init__(self):
        num = len(_distinct(self.words))
        if len(self.kinds) != num:
            raise InputError(f"concepts: {len(self.kinds)} kinds, expected {num}, one per word")
        if unknown := sorted(set(self.kinds) - {*KINDS, ""}):
            raise InputError(f"concepts: kind {unknown[0]!r}, expected one of {', '.join(KINDS)} or none")
        for name, shape in (("occurrences", (num,)), ("cooccurrences", (num, num))):
            counts = getattr(self, name)
            if counts.shape != shape or counts.dtype != np.int64:
                raise InputError(f"concepts: {name} are {counts.dtype} {counts.shape}, expected int64 {shape}")
            if (counts < 0).any():
                raise InputError(f"concepts: {name} hold the count {counts.min()}, expected none below 0")
        if self.cooccurrences.diagonal().any():
            raise InputError("concepts: the diagonal of the cooccurrences is not zero")
        if self.adjacency is not None:
            _check_adjacency(self.adjacency, num)

    def save(self, path: str | Path) -> None:
        """Write one `.npz` file, without pickle, under exactly this path."""
        arrays = {"occurrences": self.occurrences, "cooccurrences": self.cooccurrences}
        if self.adjacency is not None:
            arrays["adjacency"] = self.adjacency
        with whole_file(Path(path)) as partial, partial.open("wb") as file:
            words, kinds = np.array(self.words, np.str_), np.array(self.kinds, np.str_)
            np.savez(file, allow_pickle=False, words=words, kinds=kinds, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Concepts":
        """Concepts as `save` wrote them.

        Raises:
          InputError: the file is missing, damaged, or not such a file.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                words, kinds = (tuple(str(item) for item in file[name]) for name in ("words", "kinds"))
                return cls(words, kinds, file["occurrences"], file["cooccurrences"], file.get("adjacency"))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a file of concepts ({error})") from error


def given_concepts(words: Sequence[str], adjacency: np.ndarray) -> Concepts:
    """Concepts of which only the weights A <float32>[concept, concept] between them are known, not their counts."""
    num = len(words)
    counts = np.zeros(num, np.int64), np.zeros((num, num), np.int64)
    return Concepts(tuple(words), ("",) * num, *counts, adjacency)


def no_concepts() -> Concepts:
    """The empty concepts of a model that uses none."""
    return Concepts((), (), np.zeros(0, np.int64), np.zeros((0, 0), np.int64))


def mine_concepts(
    captions: Captions,
    num_concepts: int,
    shares: Sequence[int] = (7, 2, 1),
    stop_words: Collection[str] = frozenset(),
) -> Concepts:
    """Most frequent nouns, adjectives and verbs of the captions, as objects, properties and motions.

    Words are taken as they stand ("dog" and "dogs" are two concepts). Ties go to the word that sorts first.
    Numbers and words of quantity ("two", "several") are not concepts.

    Args:
      captions: tokens of each training caption, function words and punctuation included: they tell the parts
        of speech.
      num_concepts: how many in all; 300 in CVSE.
      shares: the parts of it for objects, properties and motions; a remainder goes to the largest fractions.
      stop_words: words that must not become concepts.

    Returns:
      Objects, then properties, then motions, each by falling occurrences. Where the captions hold hardly any of the
      stop words, they are of another language than the rules for parts of speech, or no sentences: then the most
      frequent words of whatever kind; those in more than a fifth of the captions come after all others.

    Raises:
      InputError: the captions hold too few words, or too few of a kind.
    """
    counts = Counter(chain.from_iterable(captions))
    candidates = sorted(counts.keys() - set(stop_words), key=lambda word: (-counts[word], word))
    if stop_words and sum(counts[word] for word in stop_words) < LEAST_STOP_WORDS * counts.total():
        captions_with = Counter(chain.from_iterable(map(set, captions)))
        most = COMMON_SHARE * len(captions)
        words_alone = filter(str.isalpha, candidates)
        found_words = sorted(words_alone, key=lambda word: captions_with[word] > most)
        if len(found_words) < num_concepts:
            raise InputError(
                f"the captions hold only {len(found_words)} words that can be concepts, and config.concepts.num is "
                f"{num_concepts}; set it to {len(found_words)} or less"
            )
        words = tuple(found_words[:num_concepts])
        return Concepts(words, ("",) * num_concepts, *count_concepts(captions, words))
    parts = parts_of_speech(captions, candidates)
    found = {kind: [word for word in candidates if parts[word] == part] for part, kind in _KIND_OF_PART.items()}
    asked = dict(zip(KINDS, _apportion(num_concepts, shares), strict=True))
    if any(len(found[kind]) < asked[kind] for kind in KINDS):
        told = ", ".join(f"{len(found[kind])} of {asked[kind]} {kind} words" for kind in KINDS)
        fitting = next(
            number
            for number in range(num_concepts, -1, -1)
            if all(len(found[kind]) >= n for kind, n in zip(KINDS, _apportion(number, shares), strict=True))
        )
        lower = f"config.concepts.num to {fitting} or less, or " if fitting else ""
        raise InputError(
            f"the captions hold too few words for {num_concepts} concepts: found {told}; set {lower}"
            f"config.concepts.shares, now {tuple(shares)}, in proportion to "
            f"{tuple(len(found[kind]) for kind in KINDS)}, with {sum(map(len, found.values()))} concepts at most"
        )

    words = tuple(chain.from_iterable(found[kind][: asked[kind]] for kind in KINDS))
    kinds = tuple(chain.from_iterable([kind] * asked[kind] for kind in KINDS))
    return Concepts(words, kinds, *count_concepts(captions, words))


def count_concepts(captions: Captions, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences n_i <int64>[concept] and cooccurrences n_ij <int64>[concept, concept] of the words.

    n_i counts tokens, a repeat in one caption again; n_ij counts the captions that hold both i and j, once
    each; n_ii = 0.

    Raises:
      InputError: a word occurs twice in `words`.
    """
    named = _named(captions, words)
    num = len(words)
    occurrences = np.bincount(named.concepts, minlength=num).astype(np.int64)

    # Each caption's concepts once, in order; those that then stand 1, 2, 3, ... apart in one caption are pairs.
    rows, places = np.nonzero(_labels(named, len(captions), num))
    pairs = np.zeros(num * num, np.int64)
    for apart in range(1, len(rows)):
        together = rows[apart:] == rows[:-apart]
        if not together.any():
            break
        pairs += np.bincount(places[:-apart][together] * num + places[apart:][together], minlength=num * num)
    cooccurrences = pairs.reshape(num, num)
    return occurrences, cooccurrences + cooccurrences.T


def caption_labels(captions: Captions, words: Sequence[str]) -> np.ndarray:
    """Which concepts each caption names in its own words, <bool>[caption, concept].

    Raises:
      InputError: a word occurs twice in `words`.
    """
    return _labels(_named(captions, words), len(captions), len(words))


class _Named(NamedTuple):
    """The tokens that are concepts, in their order."""

    captions: np.ndarray  # <int64>[token] the caption of each
    concepts: np.ndarray  # <int64>[token] the concept that it is


def _named(captions: Captions, words: Sequence[str]) -> _Named:
    place = _distinct(words)
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    places = np.fromiter(map(place.get, chain.from_iterable(captions), repeat(-1)), np.int64, lengths.sum())
    rows = np.repeat(np.arange(len(captions)), lengths)
    is_concept = places >= 0
    return _Named(rows[is_concept], places[is_concept])


def _labels(named: _Named, num_captions: int, num_concepts: int) -> np.ndarray:
    labels = np.zeros((num_captions, num_concepts), bool)
    labels[named] = True
    return labels


def image_labels(labels_of_captions: np.ndarray, image_of_caption: np.ndarray, num_images: int) -> np.ndarray:
    """Which concepts any caption of each picture names, <bool>[image, concept]; none for one without captions.

    Args:
      labels_of_captions: <bool>[caption, concept].
      image_of_caption: <int>[caption].
      num_images: the number of pictures in the split.
    """
    labels = np.zeros((num_images, labels_of_captions.shape[1]), bool)
    captions, concepts = np.nonzero(labels_of_captions)
    labels[image_of_caption[captions], concepts] = True
    return labels


def read_cvse_concepts(words_path: str | Path, counts_path: str | Path) -> Concepts:
    """Concepts in CVSE's published files, their kinds unknown.

    Args:
      words_path: `category_concepts.json`, {word: id}.
      counts_path: a pickle of {"nums": n_i [concept], "adj_all": n_ij [concept, concept], …}; only these
        two are used.

    Raises:
      InputError: a file cannot be read, or does not hold ids 0, 1, … once each and as many counts.
    """
    words = read_cvse_words(words_path)
    held = load_arrays(counts_path)
    names = ("nums", "adj_all")
    if not isinstance(held, dict) or not all(isinstance(held.get(name), np.ndarray) for name in names):
        found = ", ".join(sorted(map(str, held))) if isinstance(held, dict) else type(held).__name__
        raise InputError(f"{counts_path}: holds {found or 'nothing'}, expected the arrays nums and adj_all")
    for name in names:
        counts = held[name]
        whole = counts.dtype.kind in "iuf" and np.isfinite(counts).all() and (counts == np.floor(counts)).all()
        if not whole:
            raise InputError(f"{counts_path}: {name} holds values that are no counts, expected whole numbers")
    try:
        return Concepts(words, ("",) * len(words), *(held[name].astype(np.int64) for name in names))
    except InputError as error:
        raise InputError(f"{counts_path} with the words of {words_path}: {error}") from error


def read_cvse_words(path: str | Path) -> tuple[str, ...]:
    """Words of `category_concepts.json`, {word: id}, in the order of their ids.

    Raises:
      InputError: the file cannot be read, or does not hold the ids 0, 1, … once each.
    """
    check_no_web_page(path)
    try:
        ids = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(ids, dict) or not all(type(number) is int for number in ids.values()):
        raise InputError(f"{path}: expected an object of words and whole numbers, {{word: id}}")
    if sorted(ids.values()) != list(range(len(ids))):
        wrong = sorted(set(range(len(ids))) - set(ids.values()))
        raise InputError(f"{path}: {len(ids)} words without the id {wrong[0]}, expected 0 to {len(ids) - 1} once each")
    return tuple(sorted(ids, key=lambda word: ids[word]))


def _apportion(total: int, shares: Sequence[int]) -> list[int]:
    """Whole numbers in these proportions that sum to the total, by the largest remainder."""
    whole = [total * share // sum(shares) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: -(total * shares[i] % sum(shares)))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole


def _check_adjacency(adjacency: np.ndarray, num: int) -> None:
    if adjacency.shape != (num, num) or adjacency.dtype != np.float32:
        raise InputError(f"concepts: adjacency is {adjacency.dtype} {adjacency.shape}, expected float32 {(num, num)}")
    sums = adjacency.sum(axis=1)
    if not np.isfinite(adjacency).all() or not (sums > 0).all():
        row = np.argmin(np.isfinite(sums) & (sums > 0))
        raise InputError(f"concepts: row {row} of the adjacency sums to {sums[row]}, expected finite, more than 0")


def _distinct(words: Sequence[str]) -> dict[str, int]:
    """Place of each word."""
    place = {word: i for i, word in enumerate(words)}
    if len(place) < len(words):
        twice = next(word for i, word in enumerate(words) if place[word] != i)
        raise InputError(f"concepts: {twice!r} appears twice among {len(words)} words, expected each once")
    return place
