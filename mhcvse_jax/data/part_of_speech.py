"""Parts of speech of a corpus's words, from a lexicon and the words around them, without a download.

The concepts of CVSE (ECCV 2020) and MH-CVSE (arXiv:2412.19184) are nouns, adjectives and verbs. A lexicon
says what a word *may* be ("orange": noun or adjective, "park": noun or verb). Its neighbours in the captions
decide which of these it mostly is, by one table of votes (`_preferences`).

Deviation: neither paper says which tagger it used. A trained one would want a download at run time, and a
concept needs one class per word, not one per token.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from lemminflect import getAllLemmas

NOUN, ADJECTIVE, VERB, OTHER = PARTS = ("noun", "adjective", "verb", "other")

_FROM_LEXICON = {"NOUN": NOUN, "PROPN": NOUN, "ADJ": ADJECTIVE, "VERB": VERB, "ADV": OTHER}

# What may stand beside a word: the words of a closed class, else the neighbour's own part of speech.
_EDGE, _DETERMINER, _PREPOSITION, _AUXILIARY, _TO = "edge", "determiner", "preposition", "auxiliary", "to"
_PRONOUN, _CONJUNCTION, _ADVERB = "pronoun", "conjunction", "adverb"
_CLOSED_CLASSES = {
    _DETERMINER: """a an the this that these those some another each every any either such all both no many
        few several various other one two three four five six seven eight nine ten eleven twelve dozen
        my your his her its our their 's '""",
    _PREPOSITION: """of in on at by for from with without as than like about during before after until since
        via upon into onto over under above below behind beside between among amongst amid near around
        through throughout along alongside across against off out up down inside outside within beneath
        underneath beyond past toward towards atop away back front next left right middle""",
    _AUXILIARY: """be am is are was were been being has have had do does did will would could should shall may
        might must ca wo 'm 're 've 'll 'd n't not""",
    _TO: "to",
    _PRONOUN: """i me you he him she it we us they them myself yourself himself herself itself ourselves
        themselves yours hers ours theirs someone somebody something anyone anybody anything everyone
        everybody everything nobody nothing none others there here""",
    _CONJUNCTION: """and or but nor if because while whilst though although whether so then who whom whose
        which what when where why how""",
    _ADVERB: "very just too also only even almost together",
}
_CLASS_OF = {word: name for name, words in _CLOSED_CLASSES.items() for word in words.split()}
_NEIGHBOURS = (_EDGE, *_CLOSED_CLASSES, *PARTS)
_INDEX = {name: index for index, name in enumerate(_NEIGHBOURS)}

_OPENS_NOUN_PHRASE = {_DETERMINER, _PREPOSITION, ADJECTIVE}
_OPENS_VERB_PHRASE = {_AUXILIARY, _TO, _PRONOUN, NOUN}
_MAX_ROUNDS = 10  # frequent words settle in a few; rare ones may turn each other for ever


def parts_of_speech(captions: Iterable[Sequence[str]], words: Iterable[str]) -> dict[str, str]:
    """One of "noun", "adjective", "verb", "other" for each word: what it mostly is in these captions.

    Closed classes are "other": function words, words that only say where ("front", "left"), and all that
    count ("two", "several", "many"), since a number is no property of an object. For the rest each
    occurrence votes by its two neighbours among the parts of speech that the lexicon allows; a word
    unknown to it may be any of the three. Neighbours count by their own part of speech, so the vote is
    repeated until nothing changes, ten times at most. A word without a vote is the first of adjective,
    noun, verb (for -ing and -ed: adjective, verb, noun) that the lexicon allows.

    Args:
      captions: tokens of each caption, lower case, as the Penn Treebank tokeniser gives them.
      words: the words asked for; they need not occur in the captions.

    Returns:
      The part of speech of each word, in the order of `words`.
    """
    captions, words = list(captions), list(words)
    index = {word: i for i, word in enumerate(dict.fromkeys(chain(chain.from_iterable(captions), words)))}
    vocabulary = list(index)
    possible = [_possible_parts(word) for word in vocabulary]
    participle = [
        word.endswith(("ing", "ed")) and VERB in parts for word, parts in zip(vocabulary, possible, strict=True)
    ]
    classes = np.array([_first_class(*known) for known in zip(vocabulary, possible, participle, strict=True)])
    classes = np.append(classes, _INDEX[_EDGE])  # of the boundary between two captions

    boundary = len(vocabulary)
    ends = np.cumsum(np.fromiter(map(len, captions), np.int64, len(captions)))
    tokens = np.fromiter(map(index.__getitem__, chain.from_iterable(captions)), np.int64)
    tokens = np.insert(tokens, np.append(0, ends), boundary)
    # Words with the same possibilities read the same table of votes.
    groups: dict[tuple[tuple[str, ...], bool], list[int]] = {}
    for i, known in enumerate(zip(possible, participle, strict=True)):
        if known[0]:
            groups.setdefault(known, []).append(i)
    tables = {known: _vote_table(*known) for known in groups}

    for _ in range(_MAX_ROUNDS):
        contexts = _count_contexts(tokens, classes, len(vocabulary))
        before = classes.copy()
        for known, members in groups.items():
            votes = contexts[members] @ tables[known]
            winners = np.array([_INDEX[part] for part in PARTS])[votes.argmax(axis=1)]
            classes[members] = np.where(votes.any(axis=1), winners, before[members])
        if np.array_equal(classes, before):
            break
    return {word: _NEIGHBOURS[classes[index[word]]] if possible[index[word]] else OTHER for word in words}


def _possible_parts(word: str) -> tuple[str, ...]:
    """Parts of speech to choose from; none for a closed class, a number or punctuation."""
    if word in _CLASS_OF or not any(letter.isalpha() for letter in word):
        return ()
    known = {_FROM_LEXICON[tag] for tag in getAllLemmas(word) if tag in _FROM_LEXICON}
    return tuple(part for part in PARTS if part in known) or (NOUN, ADJECTIVE, VERB)


def _first_class(word: str, possible: tuple[str, ...], participle: bool) -> int:
    """Index into `_NEIGHBOURS` of a word's class before the first vote."""
    if word in _CLASS_OF:
        return _INDEX[_CLASS_OF[word]]
    if not possible:
        return _INDEX[_EDGE]
    order = (ADJECTIVE, VERB, NOUN, OTHER) if participle else (ADJECTIVE, NOUN, VERB, OTHER)
    return _INDEX[next(part for part in order if part in possible)]


def _preferences(left: str, right: str, participle: bool) -> tuple[str, ...]:
    """Parts of speech of a word between two such neighbours; the first that the word can be gets the vote."""
    if right == _DETERMINER:  # "man _ a dog"
        return (VERB,)
    if right in (NOUN, ADJECTIVE):
        if left in _OPENS_VERB_PHRASE:  # "is _ soccer", "people _ red flags"
            return (VERB,)
        if participle and left not in _OPENS_NOUN_PHRASE:  # "and _ black pants"
            return (ADJECTIVE, VERB)
        return (ADJECTIVE, NOUN)  # "a _ dog"
    # From here on the right neighbour closes a phrase.
    if left == _AUXILIARY:  # "is _ ."
        return (VERB, ADJECTIVE) if participle else (ADJECTIVE, VERB)
    if left in (_TO, _PRONOUN):  # "to _ in"
        return (VERB,)
    if left == NOUN:  # "man _ on"
        return (OTHER, VERB, ADJECTIVE)
    if left == VERB:  # "playing _ in"
        return (OTHER, NOUN, ADJECTIVE)
    return (VERB,) if participle else (NOUN,)  # "and _ on"


def _vote_table(possible: tuple[str, ...], participle: bool) -> np.ndarray:
    """Votes <int64>[left * right, part] that one occurrence gives a word with these possibilities."""
    table = np.zeros((len(_NEIGHBOURS), len(_NEIGHBOURS), len(PARTS)), np.int64)
    for i, left in enumerate(_NEIGHBOURS):
        for j, right in enumerate(_NEIGHBOURS):
            if left in _OPENS_NOUN_PHRASE and right not in (_DETERMINER, NOUN, ADJECTIVE):
                # "a red _ .": only a noun stands here, whatever the lexicon knows ("tank top", "a bar").
                choice = NOUN
            else:
                choice = next((p for p in _preferences(left, right, participle) if p in possible), None)
            if choice:
                table[i, j, PARTS.index(choice)] = 1
    return table.reshape(-1, len(PARTS))


def _count_contexts(tokens: np.ndarray, classes: np.ndarray, num_words: int) -> np.ndarray:
    """How often each word stands between each two classes, <int64>[word, left * right]."""
    size = len(_NEIGHBOURS)
    left, word, right = classes[tokens[:-2]], tokens[1:-1], classes[tokens[2:]]
    flat = (word * size + left) * size + right
    counts = np.bincount(flat[word < num_words], minlength=num_words * size * size)
    return counts.reshape(num_words, size * size)
