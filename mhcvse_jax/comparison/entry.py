"""A row of the comparison: recalls, what they measure, and each query's hits if known."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import result_rows
from mhcvse_jax.retrieval.recall import Ranks, Retrieval

RECALLS = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")
FIGURES = (*RECALLS, "rsum", "mean_recall")
"""All in percent; rsum is the sum of the six recalls, mean_recall (mR) their mean."""


class Facts(NamedTuple):
    """What the recalls measure: rows that differ in any of these cannot be compared. None: the source does not say."""

    protocol: str | None = None
    label_neighbours: str | None = None  # the rule of label completion, "" under another protocol
    split: str | None = None
    folds: int | None = None
    num_images: int | None = None
    num_captions: int | None = None
    setting: str = ""  # of a protocol against hubs

    @property
    def stamped_protocol(self) -> str | None:
        """The protocol; says where it is transductive."""
        is_transductive = self.protocol is not None and result_rows.is_transductive(self.protocol)
        return f"{self.protocol} (transductive)" if is_transductive else self.protocol

    @property
    def protocol_name(self) -> str | None:
        """The protocol with its rule; says where it is transductive."""
        setting = f", {self.setting}" if self.setting else ""
        if self.protocol is None or not result_rows.is_transductive(self.protocol):
            return self.protocol and f"{self.protocol}{setting}"
        rule = f" {self.label_neighbours}" if self.label_neighbours else ""
        return f"{self.protocol}{rule}{setting} (transductive)"


class Hits(NamedTuple):
    """Whether each query's match is among the first 1, 5 and 10; with several seeds, the share of seeds."""

    i2t: np.ndarray  # <float64>[images, 3]
    t2i: np.ndarray  # <float64>[captions, 3]
    image_of_caption: np.ndarray  # <int>[captions]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row. `figures` has the keys of FIGURES; a missing one is None."""

    name: str
    figures: dict[str, float | None]
    facts: Facts
    deviations: dict[str, float] = dataclasses.field(default_factory=dict)  # over seeds, where there are several
    num_seeds: int | None = None
    members: tuple[str, ...] = ()  # names of the runs that are gathered in it
    image_ids: list[str] | None = None
    hits: Hits | None = None
    seed_hits: tuple[Hits, ...] = ()  # of each seed, where there are several and all are known
    printed_mean_recall: float | None = None  # as a publication has it
    notes: tuple[str, ...] = ()


class Run(NamedTuple):
    """One source as read, before runs that differ only in their seed become one row."""

    entry: Entry
    key: str | None = None  # equal for runs of one configuration; None for what is not gathered
    seed: int | None = None
    path: pathlib.Path | None = None


def figures_of(recalls: dict[str, float | None]) -> dict[str, float | None]:
    """Returns the recalls with their sum and mean, None if one of the six is missing."""
    known = [value for value in recalls.values() if value is not None]
    rsum = sum(known) if len(known) == len(RECALLS) else None
    return {**recalls, "rsum": rsum, "mean_recall": None if rsum is None else rsum / len(RECALLS)}


def recalls_of(retrieval: Retrieval) -> dict[str, float | None]:
    """Returns the six recalls by their names here."""
    return recalls_of_dict({"i2t": retrieval.i2t._asdict(), "t2i": retrieval.t2i._asdict()})


def recalls_of_dict(row: dict[str, Any]) -> dict[str, float | None]:
    """Returns the six recalls of a row of `results.json`."""
    return {f"{way}_{name}": float(row[way][name]) for way in ("i2t", "t2i") for name in ("r1", "r5", "r10")}


def hits_of(ranks: Ranks, image_of_caption: np.ndarray) -> Hits:
    """Returns the hits of one run."""
    i2t, t2i = ((values[:, None] > 0) & (values[:, None] <= np.array([1, 5, 10])) for values in ranks)
    return Hits(i2t.astype(float), t2i.astype(float), image_of_caption)


def gather(runs: Sequence[Run]) -> list[Entry]:
    """Returns the rows; runs of one configuration become one row, with mean and standard deviation over their seeds.

    Raises:
      InputError: two runs of one configuration have the same seed, or two rows the same name.
    """
    groups: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(number if run.key is None else run.key, []).append(run)
    entries = [_gathered(group) if len(group) > 1 else group[0].entry for group in groups.values()]
    paths = {run.entry.name: run.path for run in runs}
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            source = paths.get(entry.name)
            where = f", {source} one of them" if source else ""
            raise InputError(f"two sources are named {entry.name!r}{where}; NAME=SOURCE gives one another name")
        seen.add(entry.name)
    return entries


def _gathered(runs: Sequence[Run]) -> Entry:
    by_seed: dict[int | None, Run] = {}
    for run in sorted(runs, key=lambda run: run.seed or 0):
        other = by_seed.setdefault(run.seed, run)
        if other is not run:
            raise InputError(
                f"{other.path} and {run.path} have the same configuration and the same seed, {run.seed}; expected "
                "seeds that differ (NAME=SOURCE keeps two runs apart; import_pytorch has --seed)"
            )
    entries = [run.entry for run in by_seed.values()]
    names = [entry.name for entry in entries]
    columns = {name: [entry.figures[name] for entry in entries] for name in FIGURES}
    known = {name: np.array(values, float) for name, values in columns.items() if None not in values}
    ids = [entry.image_ids for entry in entries]
    if any(one is not None and ids[0] is not None and one != ids[0] for one in ids):
        raise InputError(f"{' and '.join(names)} have one configuration but were tested on different pictures")
    known_hits = [entry.hits for entry in entries if entry.hits is not None]
    seeds = ", ".join(f"{run.seed} ({run.entry.name})" for run in by_seed.values())
    return Entry(
        name=names[0] if len(set(names)) == 1 else _common_name(names),
        figures={name: float(known[name].mean()) if name in known else None for name in FIGURES},
        facts=entries[0].facts,
        deviations={name: float(values.std(ddof=1)) for name, values in known.items()},
        num_seeds=len(entries),
        members=tuple(names),
        image_ids=ids[0],
        hits=_mean_hits([entry.hits for entry in entries]),
        seed_hits=tuple(known_hits) if len(known_hits) == len(entries) else (),
        notes=(f"mean ± standard deviation over the seeds {seeds}", *entries[0].notes),
    )


def _mean_hits(hits: Sequence[Hits | None]) -> Hits | None:
    known = [one for one in hits if one is not None]
    if len(known) < len(hits):
        return None
    return Hits(
        np.mean([one.i2t for one in known], axis=0),
        np.mean([one.t2i for one in known], axis=0),
        known[0].image_of_caption,
    )


def _common_name(names: Sequence[str]) -> str:
    """Returns the common start of the names, `small` for small_0 and small_1; all names if they share none."""
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    common = first[:length]
    if any(name[length : length + 1].isdigit() for name in names):
        common = common.rstrip("0123456789")  # 10 and 11 do not have the number 1 in common
    return common.rstrip("_-. ") or ", ".join(names)
