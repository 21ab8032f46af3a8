"""What a run did, as a page that opens from disk: recalls, curves, matches, attention, hubs, concepts."""

import argparse
import datetime
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax import __version__
from mhcvse_jax import config as config_lib
from mhcvse_jax.comparison import bootstrap, side_by_side, table
from mhcvse_jax.comparison.entry import hits_of
from mhcvse_jax.comparison.sources import Wanted, split_name
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import card
from mhcvse_jax.evaluation.results import load_results
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.reporting import curves, facts, matches, observed, page, plots, queries, sections
from mhcvse_jax.reporting.observed import Observed, Options, Tested
from mhcvse_jax.reporting.pictures import Album, Overlays
from mhcvse_jax.run import command_line
from mhcvse_jax.run.workdir import REPORT


class Shown(NamedTuple):
    """Which queries a page shows."""

    number: int = 3  # of each kind
    seed: int = 0  # of those at random


def report(arguments: argparse.Namespace) -> None:
    """Writes the page that the arguments ask for."""
    keep_compiled()
    named = _named([arguments.run, *arguments.compare])
    for path in named.values():
        config_lib.load(path / "config.json")  # to be known before the work that the first runs make
    output = arguments.output or next(iter(named.values())) / REPORT
    command_line.check_output("--output", output)
    options = Options(arguments.split, arguments.data_dir, arguments.pictures)
    runs = []
    for name, path in named.items():
        print(f"reading   {path}", flush=True)
        runs.append(observed.observe(name, path, options))
    write(runs, output, arguments.image_dir, Shown(arguments.queries, arguments.seed))
    print(f"open {output}")


def print_cards(arguments: argparse.Namespace) -> None:
    """Prints the run cards that the arguments ask for.

    Raises:
      InputError: a run has no results.
    """
    for name, path in _named([arguments.run, *arguments.compare]).items():
        if not (path / "results.json").is_file():
            raise InputError(f"{path}: no results.json; expected a run that was tested")
        print(name)
        for line in card.lines(load_results(path / "results.json")):
            print(f"  {line.name:<10}{line.value}")


def write_for(workdir: pathlib.Path, image_dir: pathlib.Path | None) -> None:
    """Writes the report of a run into its workdir."""
    write([observed.observe(workdir.resolve().name, workdir, Options())], workdir / REPORT, image_dir, Shown())


def write(runs: Sequence[Observed], output: pathlib.Path, image_dir: pathlib.Path | None, shown: Shown) -> None:
    """Writes one page about one run, or several beside each other."""
    album, overlays = Album(), Overlays()
    named = {run.name: run for run in runs}
    groups = [Together(members, image_dir, album, shown) for members in _on_the_same(runs)]
    found = {name: group for group in groups for name in group.runs}
    levels = observed.collapse_levels(runs[0]) if len(runs) == 1 else {}
    panels = curves.panels({run.name: run.log for run in runs}, levels)
    content = page.Page(
        title=f"{', '.join(named)}: {' and '.join(dict.fromkeys(run.config.model.name for run in runs))}",
        program=f"mhcvse_jax {__version__}, {datetime.date.today().isoformat()}",
        settings=facts.settings([run.config for run in runs]),
        runs=[_part(run, found.get(run.name), overlays) for run in runs],
        compared=_compared(runs) if len(runs) > 1 else None,
        plots={
            name: [page.Plot(panel, svg) for panel, svg in zip(all_of, plots.draw(all_of), strict=True)]
            for name, all_of in panels.items()
        },
        matches=[group.of_page() for group in groups],
        symbols=album.symbols(),
        num_missing=album.num_missing,
    )
    text = page.render(content)
    with whole_file(output) as partial:
        partial.write_text(text, encoding="utf-8")


class Together:
    """Runs that were evaluated on the same pictures and captions, and the queries to show for them."""

    def __init__(self, runs: Sequence[Observed], image_dir: pathlib.Path | None, album: Album, shown: Shown):
        """Chooses the queries: random ones, the best and worst of the first run, and those on which two runs differ."""
        self.runs = {run.name: run.tested for run in runs if run.tested}
        first = next(iter(self.runs.values()))
        self._split = first.split
        self.find = sections.picture_of(first, image_dir or _images(runs[0], first), album)
        self.queries = {}
        for way in ("t2i", "i2t"):
            directions = [getattr(tested.found, way) for tested in self.runs.values()]
            self.queries[way] = queries.choose(directions[0], shown.number, np.random.default_rng(shown.seed))
            if len(directions) > 1:
                unlike = queries.unlike(directions[0].ranks, directions[1].ranks, shown.number)
                self.queries[way]["least alike in the first two runs"] = unlike

    def of_page(self) -> page.Matches:
        """Returns the cards of all queries."""
        captions_of: dict[int, list[int]] = {}
        for caption, image in enumerate(self._split.image_of_caption.tolist()):
            captions_of.setdefault(image, []).append(caption)
        return page.Matches(
            list(self.runs),
            self._split.captions,
            captions_of,
            self._groups("t2i", matches.of_captions),
            self._groups("i2t", matches.of_pictures),
        )

    def _groups(self, way: str, cards: matches.Cards) -> list[page.Group]:
        runs = {
            name: matches.Searched(tested.similarity, getattr(tested.found, way)) for name, tested in self.runs.items()
        }
        owners = self._split.image_of_caption
        return [
            page.Group(title, NOTES.get(title, ""), cards(chosen, runs, owners, self.find))
            for title, chosen in self.queries[way].items()
            if chosen
        ]

    def pairs(self, tested: Tested) -> list[tuple[str, int, int]]:
        """Returns pairs to look at closely: a title, a caption and a picture."""
        owners, chosen = self._split.image_of_caption, self.queries["t2i"]
        own = [("At random", caption) for caption in chosen["at random"][:2]]
        own += [("Among the best", caption) for caption in chosen["best"][:1]]
        pairs = [(f"{title}: a caption and its picture", caption, int(owners[caption])) for title, caption in own]
        for caption in chosen["worst"][:1]:
            pairs.append(("Among the worst: a caption and its picture", caption, int(owners[caption])))
            column = np.concatenate([block[:, caption] for _, block in tested.similarity.blocks()])
            first = int(np.argmax(column))
            if first != owners[caption]:
                pairs.append(("The same caption and the picture that it finds", caption, first))
        return pairs


NOTES = {
    "at random": "drawn, not chosen",
    "best": "furthest ahead of the best wrong answer",
    "worst": "the right answer furthest down",
}


def _part(run: Observed, group: Together | None, overlays: Overlays) -> page.RunPart:
    notes, recalls, tested_on = [*run.notes], [], ""
    try:
        evaluation = observed.evaluation(run)
        if evaluation is not None:
            ranks = evaluation.ranks.get(1, {})
            owners = evaluation.image_of_caption
            intervals = {kind: bootstrap.recall_intervals(hits_of(found, owners)) for kind, found in ranks.items()}
            recalls, tested_on = sections.recalls(evaluation, intervals), sections.tested_on(evaluation)
    except InputError as error:
        notes.append(f"The recalls are left out: {error}")
    hubs, looked_at, concepts = None, [], None
    if run.tested and group:
        pairs = group.pairs(run.tested)
        hubs = sections.hubs(run.tested, group.find)
        looked_at = sections.looked_at(run.tested, pairs, group.find, overlays)
        concepts = sections.concept_part(run.tested, list(dict.fromkeys(image for *_, image in pairs)), group.find)
    described = sections.described(run)
    return page.RunPart(run.name, described, notes, recalls, tested_on, hubs, looked_at, concepts)


def _compared(runs: Sequence[Observed]) -> table.Table | None:
    """Returns how the runs differ from the first finished one; None if there are not two to compare."""
    ended = [run for run in runs if run.results]
    if len(ended) < 2:
        return None
    values = runs[0].config.eval
    try:
        whole = table.build(
            side_by_side.compare(
                [f"{run.name}={run.workdir}" for run in ended],
                Wanted(protocol=values.protocol, split=values.test_split),
                baseline=ended[0].name,
                allow_unlike=True,
                order="given",
            )
        )
    except InputError as error:
        return table.Table([], [], [f"The runs are not compared: {error}"])
    kept = [
        place
        for place, column in enumerate(whole.columns)
        if column.group.startswith("difference") or (column.group, column.title) in (("", "system"), ("", "rsum"))
    ]
    columns = [whole.columns[place] for place in kept]
    rows = [[row[place] for place in kept] for row in whole.rows]
    has_intervals = any("[" in cell for _, *cells in rows for cell in cells)  # not of runs on other pictures
    return table.Table(
        [one._replace(group="", title=f"{one.title}, difference" if one.group else one.title) for one in columns],
        rows,
        [f"Differences are to {ended[0].name}{', each with its 95% interval' * has_intervals}.", *whole.notes],
    )


def _images(run: Observed, tested: Tested) -> pathlib.Path:
    return pathlib.Path(run.config.log.image_dir or tested.directory / "images")


def _on_the_same(runs: Sequence[Observed]) -> list[list[Observed]]:
    """Returns the runs that could be evaluated, grouped by pictures and captions."""
    groups: dict[tuple, list[Observed]] = {}
    for run in runs:
        if run.tested:
            split = run.tested.split
            key = split.name, tuple(split.image_ids), tuple(split.captions), split.image_of_caption.tobytes()
            groups.setdefault(key, []).append(run)
    return list(groups.values())


def _named(sources: Sequence[str]) -> Mapping[str, pathlib.Path]:
    """Returns each run's directory by a unique name: as NAME=DIR says, else the directory's.

    Raises:
      InputError: two runs have the same name.
    """
    found: dict[str, pathlib.Path] = {}
    for source in sources:
        name, path = split_name(source)
        name = name or path.resolve().name
        if name in found:
            raise InputError(f"{path} and {found[name]} are both named {name}; NAME=DIR gives one another name")
        found[name] = path
    return found
