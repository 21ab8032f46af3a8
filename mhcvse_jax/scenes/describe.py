"""Captions of scenes: English sentences from a grammar, each with the facts that it states.

A caption is true of a scene if all its facts are. "A star is above a heart" says that some star is above some
heart, so a caption may leave out as much as it likes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from mhcvse_jax.scenes.scene import Look, Relation, Scene, Thing, places, relations

NUM_CAPTIONS = 5
_NUM_TELLING = 2  # captions of a twin that must tell it from the other twin


class Description(NamedTuple):
    """What a phrase says about an object; None where it says nothing."""

    size: str | None
    pattern: str | None
    colour: str | None
    shape: str | None

    def fits(self, look: Look) -> bool:
        """Returns whether the phrase may describe an object that looks like this."""
        return all(said in (None, seen) for said, seen in zip(self, look, strict=True))


@dataclass(frozen=True)
class Fact:
    """States that objects exist, fit their descriptions and are as `predicate` says.

    With two objects, the predicate is the name of a relation, as in `scene.relations`. With one, it is a place, as in
    `scene.places`. With any number it may be "there": that many different ones are in the picture. With none, it is
    "on" and the background's colour, or the number of objects and "things".
    """

    predicate: str
    things: tuple[Description, ...] = ()


@dataclass(frozen=True)
class Caption:
    """A sentence and what it states."""

    text: str
    facts: tuple[Fact, ...]


def is_true(caption: Caption, scene: Scene, loosely: bool = False) -> bool:
    """Returns whether a caption is clearly true of a scene; with `loosely`, whether one might call it true."""
    return all(_holds(fact, scene, loosely) for fact in caption.facts)


def describe(scene: Scene, rng: random.Random, twin: Scene | None = None) -> list[Caption]:
    """Returns five different captions in random order; at least two are not even loosely true of the twin."""
    captions: list[Caption] = []
    while len(captions) < NUM_CAPTIONS:
        rival = twin if len(captions) < _NUM_TELLING else None
        write = _relation if rival else rng.choices(*_KINDS)[0]
        caption = write(scene, rng)
        if caption is None or caption.text in {other.text for other in captions}:
            continue
        if rival is None or not is_true(caption, rival, loosely=True):
            captions.append(caption)
    rng.shuffle(captions)
    return captions


def _holds(fact: Fact, scene: Scene, loosely: bool) -> bool:
    if not fact.things:
        return fact.predicate in (f"on {scene.background}", f"{len(scene.things)} things")
    related = relations(scene, loosely)
    for chosen in permutations(range(len(scene.things)), len(fact.things)):
        things = [scene.things[i] for i in chosen]
        if all(what.fits(thing.look) for what, thing in zip(fact.things, things, strict=True)) and (
            fact.predicate == "there"
            or (len(chosen) == 1 and fact.predicate in places(things[0], loosely))
            or (len(chosen) == 2 and Relation(fact.predicate, *chosen) in related)
        ):
            return True
    return False


# Words. All entries of a list are equally likely.
_ADJECTIVES = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "checked": ("checked", "chequered"),
    "purple": ("purple", "violet"),
}
_TRAILS = {"striped": "with stripes", "dotted": "with dots", "checked": "with checks"}
_NOUNS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "heart": ("heart",),
    "moon": ("moon", "crescent"),
    None: ("shape", "object", "figure"),
}
_PICTURES = ("picture", "image", "drawing")
_NUMBERS = {2: "two", 3: "three", 4: "four"}
_PLURALS = ("shapes", "objects", "figures")
_PARTICIPLES = ("placed", "drawn", "painted", "shown")

# Verbs of posture, as (finite, -ing) forms.
_HIGH = (("hangs", "hanging"), ("hovers", "hovering"), ("floats", "floating"))
_LOW = (("sits", "sitting"), ("rests", "resting"), ("lies", "lying"))
_LEVEL = (("stands", "standing"), ("sits", "sitting"), ("waits", "waiting"))
_CLOSE = (*_LEVEL, ("leans", "leaning"))

# How a relation is put into words from its first thing, or backwards from its second: by a preposition after a
# verb of posture, or by a verb of its own, active or passive.
_PREPOSITIONS = {
    ("left of", False): (("to the left of", "left of", "on the left of"), _LEVEL),
    ("left of", True): (("to the right of", "right of", "on the right of"), _LEVEL),
    ("above", False): (("above", "over"), _HIGH),
    ("above", True): (("below", "under", "beneath"), _LOW),
    ("inside", False): (("inside", "within"), _LOW + _HIGH),
    ("covers", False): (("in front of",), _LEVEL),
    ("covers", True): (("behind",), (*_LEVEL, ("hides", "hiding"))),
    ("next to", False): (("next to", "beside", "close to"), _CLOSE),
}
_VERBS = {
    ("inside", False): ("is enclosed by", "is surrounded by", "is encircled by", "fills"),
    ("inside", True): ("encloses", "surrounds", "is holding", "contains"),
    ("covers", False): ("partly covers", "partly hides", "is covering a part of", "is hiding a part of"),
    ("covers", True): ("is partly covered by", "is partly hidden by"),
    ("touches", False): ("touches", "is touching", "overlaps with", "meets"),
}
_SYMMETRIC = ("next to", "touches")

_PLACES = {
    "left": (("on the left", "on the left side", "near the left edge"), _LEVEL),
    "right": (("on the right", "on the right side", "near the right edge"), _LEVEL),
    "top": (("at the top", "near the top edge", "in the upper part"), _HIGH),
    "bottom": (("at the bottom", "near the bottom edge", "in the lower part"), _LOW),
    "middle": (("in the middle", "in the centre"), _HIGH[1:]),
    "top left": (("in the top left corner", "in the upper left corner"), _HIGH),
    "top right": (("in the top right corner", "in the upper right corner"), _HIGH),
    "bottom left": (("in the bottom left corner", "in the lower left corner"), _LOW),
    "bottom right": (("in the bottom right corner", "in the lower right corner"), _LOW),
}
_Postures = Sequence[tuple[str, str]]


def _relation(scene: Scene, rng: random.Random) -> Caption:
    """Returns a caption on how one thing relates to another, and sometimes to a third."""
    found = sorted(relations(scene))
    name, i, j = rng.choice(found)
    backwards = name not in _SYMMETRIC and rng.random() < 0.5
    subject, object_ = (j, i) if backwards else (i, j)
    (a, what), (b, other) = _phrase(scene.things[subject], rng), _phrase(scene.things[object_], rng)
    facts = [Fact(name, (other, what) if backwards else (what, other))]
    verbs, preposition = _VERBS.get((name, backwards)), _PREPOSITIONS.get((name, backwards))
    if verbs and (not preposition or rng.random() < 0.6):
        return _sentence(f"{a} {rng.choice(verbs)} {b}", facts, scene, rng)
    prepositions, postures = _PREPOSITIONS[name, backwards]
    where = f"{rng.choice(prepositions)} {b}"
    thirds = [r for r in found if r.first == subject and r.second != object_ and r.name in ("left of", "above")]
    if thirds and rng.random() < 0.3:
        third = rng.choice(thirds)
        c, last = _phrase(scene.things[third.second], rng)
        where += f" and {rng.choice(_PREPOSITIONS[third.name, False][0])} {c}"
        facts.append(Fact(third.name, (what, last)))
    return _sentence(_clause(a, where, postures, rng), facts, scene, rng)


def _place(scene: Scene, rng: random.Random) -> Caption | None:
    """Returns a caption on where in the picture a thing is; None if it is nowhere in particular."""
    thing = rng.choice(scene.things)
    found = sorted(places(thing))
    if not found:
        return None
    place = rng.choice(found)
    text, what = _phrase(thing, rng)
    wheres, postures = _PLACES[place]
    where = rng.choice(wheres) + rng.choice(("", f" of the {rng.choice(_PICTURES)}"))
    return _sentence(_clause(text, where, postures, rng), [Fact(place, (what,))], scene, rng)


def _list(scene: Scene, rng: random.Random) -> Caption:
    """Returns a caption that lists some of the things, or all."""
    things = rng.sample(scene.things, rng.randint(1, len(scene.things)))
    phrases = [_phrase(thing, rng) for thing in things]
    texts = [text for text, _ in phrases]
    text = " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
    facts = [Fact("there", tuple(what for _, what in phrases))]
    picture = rng.choice(_PICTURES)
    count = f"{_NUMBERS[len(scene.things)]} {rng.choice(_PLURALS)}"
    opening = rng.choice(("there is ", f"the {picture} shows ", f"this {picture} contains ", "one can see ", None))
    if opening is None:
        opening = f"among the {count} in the {picture} one finds "
        facts.append(Fact(f"{len(scene.things)} things"))
    return _sentence(opening + text, facts, scene, rng)


_KINDS = ((_relation, _place, _list), (5, 2, 3))


def _clause(subject: str, where: str, postures: _Postures, rng: random.Random) -> str:
    """Returns a main clause that puts a thing somewhere: active, progressive, passive, or with the place in front."""
    finite, progressive = rng.choice(postures)
    passive = f"is {rng.choice(_PARTICIPLES)}"
    forms = (
        f"{subject} {finite} {where}",
        f"{subject} is {progressive} {where}",
        f"{subject} {rng.choice(('is', passive))} {where}",
        f"there is {subject} {progressive} {where}",
        f"{where} {rng.choice((finite, passive, 'is'))} {subject}",
    )
    return rng.choice(forms)


def _phrase(thing: Thing, rng: random.Random) -> tuple[str, Description]:
    """Returns a noun phrase with its article, for some of a thing's looks, and what the phrase says."""
    look = thing.look
    size, pattern, colour, shape = (
        said if rng.random() < probability else None
        for said, probability in zip(look, (0.45, 0.45, 0.85, 0.93), strict=True)
    )
    if colour is None:
        shape = look.shape
    words = [size, pattern, colour]
    trail = ""
    if pattern in _TRAILS and rng.random() < 0.3:
        words, trail = [size, colour], f" {_TRAILS[pattern]}"
    text = " ".join(rng.choice(_ADJECTIVES.get(word, (word,))) for word in words if word)
    text = f"{text} {rng.choice(_NOUNS[shape])}{trail}".strip()
    article = "an" if text[0] in "aeiou" else "a"
    return f"{article} {text}", Description(size, pattern, colour, shape)


def _sentence(text: str, facts: list[Fact], scene: Scene, rng: random.Random) -> Caption:
    if rng.random() < 0.12:
        text += f" on a {scene.background} {rng.choice(('background', 'ground'))}"
        facts = [*facts, Fact(f"on {scene.background}")]
    return Caption(text[0].upper() + text[1:] + ".", tuple(facts))
