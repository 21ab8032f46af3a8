"""The report as one self-contained HTML file."""

import functools
from typing import Any, NamedTuple

import jinja2
import markupsafe

from mhcvse_jax.reporting.attention import Head
from mhcvse_jax.reporting.concepts import Neighbours, Said
from mhcvse_jax.reporting.curves import Panel
from mhcvse_jax.reporting.facts import Setting
from mhcvse_jax.reporting.matches import Card
from mhcvse_jax.reporting.pictures import Picture, Symbol

LONGEST = 1_500  # letters of a caption that are shown


class Plot(NamedTuple):
    """A panel and its drawing."""

    panel: Panel
    svg: str


class Recalls(NamedTuple):
    """A row of the table: recalls in percent, each with the bounds of its interval if they are known."""

    name: str
    cells: list[tuple[float, tuple[float, float] | None]]  # of R@1, 5, 10 both ways, and rsum
    ranks: list[float]  # median and mean, both ways


class Group(NamedTuple):
    """Cards that were chosen in the same way."""

    title: str
    note: str
    cards: list[Card]


class Matches(NamedTuple):
    """The matches of runs that were tested on the same pictures."""

    runs: list[str]
    captions: list[str]  # of the split
    captions_of: dict[int, list[int]]  # by picture shown
    from_texts: list[Group]
    from_pictures: list[Group]


class Hub(NamedTuple):
    """A picture that is often found where it does not belong."""

    picture: Picture
    caption: str  # one of its own
    counts: tuple[int, int]  # of pictures, of captions that find it
    times: tuple[float, float]  # the mean over all pictures that these are


class Hubs(NamedTuple):
    """The pictures that are found wrongly most often."""

    near: int  # places that count
    worst: list[Hub]
    share: float  # of all wrong places that the hundredth of the pictures with most of them has
    num_images: int


class LitWord(NamedTuple):
    """A word and the picture, lit where the word looks."""

    word: str
    svg: str
    shows: str  # what the detector says of the region that counts most; empty where nobody says it


class LitHead(NamedTuple):
    """A head, with the picture and the words lit where it looks; None for a side that it does not use."""

    head: Head
    svg: str | None
    shows: str  # likewise
    words: list[tuple[str, float]] | None


class LookedAt(NamedTuple):
    """A pair with where the model looks in it; pictures are <svg> elements."""

    title: str
    caption: str
    verdict: str
    strongest: tuple[str, float]  # the word that matters most, and the similarity that the pair loses without it
    picture: Picture
    hangs_on: str  # lit where the pair loses similarity without a region
    words: list[tuple[str, float]]  # the caption's, from -1, the pair gains most without it, to 1, it loses most
    by_word: list[LitWord]
    is_attention: bool
    heads: list[LitHead]


class PictureConcepts(NamedTuple):
    """What a picture is about."""

    picture: Picture
    said: list[Said]
    label: list[str]


class ConceptPart(NamedTuple):
    """What the concepts of a model say."""

    neighbours: list[Neighbours]
    pictures: list[PictureConcepts]


class RunPart(NamedTuple):
    """Everything about one run; None for what it lacks, and `notes` say why."""

    name: str
    facts: list[tuple[str, str]]
    notes: list[str]
    recalls: list[Recalls]
    tested_on: str
    hubs: Hubs | None
    looked_at: list[LookedAt]
    concepts: ConceptPart | None


class Page(NamedTuple):
    """What a report shows."""

    title: str
    program: str
    settings: list[Setting]
    runs: list[RunPart]
    compared: Any  # comparison.table.Table, or None
    plots: dict[str, list[Plot]]
    matches: list[Matches]
    symbols: list[Symbol]
    num_missing: int


def render(page: Page) -> str:
    """Returns the whole page."""
    return _environment().get_template("report.html").render(page=page, longest=LONGEST)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mhcvse_jax.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"drawn": markupsafe.Markup, "cut": cut, "light": _light}
    return environment


def cut(text: str, longest: int = LONGEST) -> str:
    """Returns a text; if it is longer than a page can show, its beginning."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} letters)"


def _light(value: float) -> str:
    """Returns the magnitude of a weight for CSS, from 0 to 1."""
    return f"{min(abs(float(value)), 1.0):.2f}"
