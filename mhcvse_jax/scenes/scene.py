"""Scenes: a few objects with their looks and places, sampled from a seed, alone or as twins.

Coordinates are fractions of the picture's side: x grows to the right, y downwards.
"""

import math
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

SPLITS = ("train", "dev", "test")
SIZES = ("small", "large")
PATTERNS = ("plain", "striped", "dotted", "checked")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
BACKGROUNDS = ("white", "grey", "beige", "turquoise")

RING_HOLE = 0.6  # radius of a ring's hole, as a fraction of the ring's radius
_RADII = {"small": (0.085, 0.1), "large": (0.165, 0.185)}
_SOLID = ("circle", "square", "heart")  # they fill their outline, so that an overlap shows
_GRID = (0.2, 0.5, 0.8)  # rows and columns, so that a place is rarely in doubt
_JITTER = 0.06
_MARGIN = 0.01  # between an object and the picture's edge
_GAP = 0.04  # between two objects that do not touch
_NEAR = 0.1  # the widest gap between objects that are next to each other
_CLEARLY = 1.5  # how far one direction must outweigh the other to be named
_SPLIT_OF_BUCKET = ("train", "train", "dev", "test")


class Look(NamedTuple):
    """An object's appearance, apart from its place: words from SIZES, PATTERNS, COLOURS and SHAPES."""

    size: str
    pattern: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Thing:
    """An object in its place: its centre, the radius of its outline, and its colour's lightness, around 1."""

    look: Look
    x: float
    y: float
    radius: float
    lightness: float


@dataclass(frozen=True)
class Scene:
    """What a picture shows: `things` in the order they are painted, so that later ones are in front."""

    things: tuple[Thing, ...]
    background: str


class Relation(NamedTuple):
    """States that `first` is `name` `second`; both are indices in `Scene.things`."""

    name: str
    first: int
    second: int


class Pair(NamedTuple):
    """Two consecutive pictures of a split; twins share their objects and differ in their relations."""

    first: Scene
    second: Scene
    twins: bool


def places(thing: Thing, loosely: bool = False) -> set[str]:
    """Returns the places where a thing clearly is; with `loosely`, all where one might say it is.

    They are "left", "right", "top", "bottom", "middle" and the corners, such as "top left".
    """
    side, middle = (0.5, 0.2) if loosely else (0.32, 0.1)
    columns = {"left": thing.x <= side, "right": thing.x >= 1 - side}
    rows = {"top": thing.y <= side, "bottom": thing.y >= 1 - side}
    found = {name for name, here in (columns | rows).items() if here}
    found |= {f"{row} {column}" for row in found & {*rows} for column in found & {*columns}}
    if abs(thing.x - 0.5) <= middle and abs(thing.y - 0.5) <= middle:
        found.add("middle")
    return found


def relations(scene: Scene, loosely: bool = False) -> set[Relation]:
    """Returns the relations that clearly hold; with `loosely`, all that one might say hold.

    Their names are "left of" and "above"; "inside" (a ring); "covers" (a part of it, from the front); "touches" and
    "next to" (both ways, one or the other). Each also stands for its converse.
    """
    found = set()
    for (i, a), (j, b) in combinations(enumerate(scene.things), 2):
        if _is_inside(b, a):
            found.add(Relation("inside", j, i))
        elif _gap(a, b) < 0:
            found |= {Relation("covers", j, i), Relation("touches", i, j), Relation("touches", j, i)}
        elif loosely or (_gap(a, b) <= _NEAR and abs(a.x - b.x) >= _CLEARLY * abs(a.y - b.y)):
            found |= {Relation("next to", i, j), Relation("next to", j, i)}
        if not loosely and _gap(a, b) < 0:
            continue
        for name, along, across in (("left of", b.x - a.x, b.y - a.y), ("above", b.y - a.y, b.x - a.x)):
            if abs(along) >= (0.01 if loosely else _CLEARLY * abs(across)):
                found.add(Relation(name, i, j) if along > 0 else Relation(name, j, i))
    return found


def sample_pair(seed: int, split: str, pair: int, twin_share: float) -> Pair:
    """Returns the scenes of pictures `2 * pair` and `2 * pair + 1` of a split, the same at every call.

    Whatever the seed, no two splits ever sample the same combination of looks.

    Args:
      seed: any integer; another one gives another data set.
      split: one of SPLITS.
      pair: counted from 0.
      twin_share: the probability, in [0, 1], that the two are twins.
    """
    rng = random.Random(f"{seed}/{split}/{pair}/scene")
    twins = rng.random() < twin_share
    while True:
        first = _sample_scene(rng, split)
        if not twins:
            return Pair(first, _sample_scene(rng, split), False)
        candidates = [twin for twin in _rearrangements(first) if _tell_apart(first, twin)]
        if candidates:
            return Pair(first, rng.choice(candidates), True)


def _sample_scene(rng: random.Random, split: str) -> Scene:
    while True:
        together = rng.choices(("nothing", "inside", "covers"), weights=(5, 3, 3))[0]
        looks = _sample_looks(rng, together)
        if looks is None or _split_of(looks) != split:
            continue
        background = rng.choice(BACKGROUNDS)
        for _ in range(20):
            scene = Scene(_place(rng, looks, together), background)
            if _is_legible(scene) and relations(scene):
                return scene


def _sample_looks(rng: random.Random, together: str) -> list[Look] | None:
    """Returns the looks of two to four objects, back to front; None if two could be mistaken for each other."""
    looks = [
        Look(rng.choice(SIZES), rng.choice(PATTERNS), rng.choice(COLOURS), rng.choice(SHAPES))
        for _ in range(rng.choice((2, 3, 3, 4)))
    ]
    if together == "inside":
        shape = rng.choice([shape for shape in SHAPES if shape != "ring"])
        looks[0] = looks[0]._replace(size="large", shape="ring")
        looks[1] = looks[1]._replace(size="small", shape=shape)
    if together == "covers":
        looks[:2] = (look._replace(shape=rng.choice(_SOLID)) for look in looks[:2])
    # The band of a small ring is too thin to show a pattern.
    thin = [look.shape == "ring" and look.size == "small" for look in looks]
    looks = [look._replace(pattern="plain") if flag else look for look, flag in zip(looks, thin, strict=True)]
    if len({(look.colour, look.shape) for look in looks}) < len(looks):
        return None
    return looks


def _split_of(looks: Sequence[Look]) -> str:
    return _SPLIT_OF_BUCKET[zlib.crc32(repr(sorted(looks)).encode()) % len(_SPLIT_OF_BUCKET)]


def _place(rng: random.Random, looks: Sequence[Look], together: str) -> tuple[Thing, ...]:
    """Returns the looks as things on a jittered grid, the second near the first if they belong together."""
    things = []
    cells = rng.sample([(x, y) for x in _GRID for y in _GRID], len(looks))
    for place, (look, (x, y)) in enumerate(zip(looks, cells, strict=True)):
        radius = rng.uniform(*_RADII[look.size])
        edge = radius + _MARGIN
        x, y = (min(max(c + rng.uniform(-_JITTER, _JITTER), edge), 1 - edge) for c in (x, y))
        if place == 1 and together != "nothing":
            back = things[0]
            angle = rng.uniform(0, 2 * math.pi)
            distance = 0.72 * (back.radius + radius) if together == "covers" else 0.01
            x, y = back.x + distance * math.cos(angle), back.y + distance * math.sin(angle)
        things.append(Thing(look, x, y, radius, rng.uniform(0.92, 1.08)))
    return tuple(things)


def _gap(a: Thing, b: Thing) -> float:
    return math.hypot(a.x - b.x, a.y - b.y) - a.radius - b.radius


def _is_inside(a: Thing, b: Thing) -> bool:
    return b.look.shape == "ring" and _gap(a, b) + 2 * a.radius <= -(1 - RING_HOLE) * b.radius


def _is_legible(scene: Scene) -> bool:
    """Returns whether all things are within the picture and none hides another, so that each can be recognised."""
    for thing in scene.things:
        edge = thing.radius + _MARGIN - 1e-9
        if not (edge <= thing.x <= 1 - edge and edge <= thing.y <= 1 - edge):
            return False
    return all(
        _gap(back, front) >= _GAP or _is_inside(front, back) or _may_overlap(back, front)
        for back, front in combinations(scene.things, 2)
    )


def _may_overlap(back: Thing, front: Thing) -> bool:
    """Returns whether both can be recognised although `front` covers a part of `back`."""
    if front.look.size == "large" and back.look.size == "small":
        return False
    solid = back.look.shape in _SOLID and front.look.shape in _SOLID
    share = 1 + _gap(back, front) / (back.radius + front.radius)  # of the distance at which they would touch
    return solid and back.look.colour != front.look.colour and 0.68 <= share <= 0.76


def _rearrangements(scene: Scene) -> Iterator[Scene]:
    """Yields the legible scenes that arise when two things swap places, in the plane or in depth."""
    for i, j in combinations(range(len(scene.things)), 2):
        a, b = scene.things[i], scene.things[j]
        in_plane, in_depth = list(scene.things), list(scene.things)
        in_plane[i], in_plane[j] = replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)
        in_depth[i], in_depth[j] = b, a
        for things in (in_plane, in_depth):
            if _is_legible(moved := replace(scene, things=tuple(things))):
                yield moved


def _tell_apart(first: Scene, second: Scene) -> bool:
    """Returns whether each has a clear relation that does not even loosely hold in the other."""
    return all(
        _by_look(here, relations(here)) - _by_look(there, relations(there, loosely=True))
        for here, there in ((first, second), (second, first))
    )


def _by_look(scene: Scene, found: set[Relation]) -> set[tuple[str, Look, Look]]:
    return {(name, scene.things[i].look, scene.things[j].look) for name, i, j in found}
