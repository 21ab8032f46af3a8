"""Reads everything that is to be compared, and puts it side by side."""

import contextlib
import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax.comparison import bootstrap, recall_files, seeds, sources
from mhcvse_jax.comparison.bootstrap import Interval
from mhcvse_jax.comparison.entry import FIGURES, Entry, Run, gather
from mhcvse_jax.comparison.likeness import are_paired, differences
from mhcvse_jax.comparison.seeds import Seen
from mhcvse_jax.comparison.sources import Wanted
from mhcvse_jax.comparison.table import Comparison
from mhcvse_jax.errors import InputError

ORDERS = (*FIGURES, "name", "given")


def compare(
    named_sources: Sequence[str],
    wanted: Wanted,
    *,
    published: bool = False,
    ensembles: Sequence[Sequence[str]] = (),
    data_dir: pathlib.Path | None = None,
    baseline: str | None = None,
    allow_unlike: bool = False,
    order: str = "rsum",
    num_draws: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Returns the rows of all sources, with seeds gathered, and how each compares with the baseline.

    Args:
      named_sources: each a path, or NAME=PATH; see `sources.read`.
      wanted: which evaluation of each source.
      published: adds the published recalls on Flickr30k.
      ensembles: adds a row for the mean similarity of each of these groups of sources.
      data_dir: the data for the ensembles; None: where the runs had it.
      baseline: the name of the row, or of a run in it, that others are compared with.
      allow_unlike: whether rows may be of unlike protocols, splits, folds or pictures.
      order: one of `ORDERS`.
      num_draws: the number of bootstrap draws.
      seed: the seed of the bootstrap.

    Raises:
      InputError: there is nothing to compare, a source cannot be read, rows are unlike, or there is no such baseline.
    """
    runs = [run for source in named_sources for run in sources.read(source, wanted)]
    if published:
        runs += [Run(entry) for entry in recall_files.published()]
    if ensembles:
        # Brings in the model and the devices, which no other source needs.
        from mhcvse_jax.comparison import ensemble

        with contextlib.redirect_stdout(sys.stderr):
            runs += [Run(ensemble.evaluate(members, wanted, data_dir)) for members in ensembles]
    if not runs:
        raise InputError("nothing to compare; expected a SOURCE, --published or --ensemble")
    entries = gather(runs)
    unlike = differences(entries)
    if unlike and not allow_unlike:
        raise InputError(f"{unlike[0]}; expected the same, or --allow_unlike")
    row = _find_baseline(entries, _name_of(baseline, runs))
    intervals = _find_intervals(entries, row, num_draws=num_draws, seed=seed)
    seen = _find_with_seeds(entries, row, num_draws=num_draws, seed=seed)
    intervals |= {name: {one: each.interval for one, each in values.items()} for name, values in seen.items()}
    needed = {name: {one: each.seeds_needed for one, each in values.items()} for name, values in seen.items()}
    return Comparison(_sort(entries, order), row, intervals, unlike, num_draws, wanted.embedding, needed)


def _name_of(baseline: str | None, runs: Sequence[Run]) -> str | None:
    """Returns the name of the run that the baseline was given as, PATH or NAME=PATH; else the baseline itself."""
    if baseline is None or baseline in {run.entry.name for run in runs}:
        return baseline
    name, path = sources.split_name(baseline)
    fitting = [run.entry.name for run in runs if run.path is not None and run.path.resolve() == path.resolve()]
    return next((one for one in fitting if name in (None, one)), baseline)


def _find_baseline(entries: Sequence[Entry], name: str | None) -> Entry | None:
    """Returns the row of this name, or the one that a run of this name is gathered in.

    Raises:
      InputError: there is none.
    """
    if name is None:
        return None
    for entry in [*(one for one in entries if one.name == name), *(one for one in entries if name in one.members)]:
        return entry
    raise InputError(
        f"--baseline {name}: no such row; expected a source, or one of {', '.join(entry.name for entry in entries)}"
    )


def _find_intervals(
    entries: Sequence[Entry], baseline: Entry | None, *, num_draws: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Returns the intervals of each row whose queries are the baseline's, by its name."""
    if baseline is None or baseline.hits is None:
        return {}
    paired = {entry.name: entry.hits for entry in entries if entry is not baseline and are_paired(entry, baseline)}
    hits = [one for one in paired.values() if one is not None]
    found = bootstrap.intervals(hits, baseline.hits, num_draws=num_draws, seed=seed)
    return dict(zip(paired, found, strict=True))


def _find_with_seeds(
    entries: Sequence[Entry], baseline: Entry | None, *, num_draws: int, seed: int
) -> dict[str, dict[str, Seen]]:
    """Returns what is known of the differences of rows that have several seeds, as the baseline has, by their names."""
    if baseline is None or not baseline.seed_hits:
        return {}
    several = [entry for entry in entries if entry is not baseline and entry.seed_hits and are_paired(entry, baseline)]
    hits = [entry.seed_hits for entry in several]
    found = seeds.differences(hits, baseline.seed_hits, num_draws=num_draws, seed=seed)
    return dict(zip((entry.name for entry in several), found, strict=True))


def _sort(entries: Sequence[Entry], key: str) -> list[Entry]:
    """Returns the rows sorted by a figure, best first and those without it last; or by name; or as given."""
    if key == "given":
        return list(entries)
    if key == "name":
        return sorted(entries, key=lambda entry: entry.name.casefold())

    def place(entry: Entry) -> float:
        value = entry.figures[key]
        return float("inf") if value is None else -value

    return sorted(entries, key=place)
