"""The comparison as cells of text: figures, differences with intervals, what they measure, and footnotes."""

import decimal
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from mhcvse_jax.comparison.bootstrap import MEASURES, Interval
from mhcvse_jax.comparison.entry import FIGURES, Entry
from mhcvse_jax.comparison.likeness import not_stated
from mhcvse_jax.comparison.seeds import MOST_SEEDS

MISSING = "-"


class Column(NamedTuple):
    """A column; neighbouring columns of one group share a heading."""

    group: str
    title: str
    is_number: bool = True


class Table(NamedTuple):
    """Cells of text, with none missing in any row, and the notes below them."""

    columns: list[Column]
    rows: list[list[str]]
    notes: list[str]


class Comparison(NamedTuple):
    """What is shown: rows in their order, and for each what is known against the baseline."""

    entries: list[Entry]
    baseline: Entry | None
    intervals: Mapping[str, Mapping[str, Interval]]  # name of a row -> measure -> interval
    unlike: list[str]  # in what rows differ that were not to be compared
    num_draws: int
    embedding: str
    seeds_needed: Mapping[str, Mapping[str, int | None]] = MappingProxyType({})
    """Of rows whose intervals hold the spread between seeds, by name and measure; None: more pictures are needed."""


def difference(entry: Entry, baseline: Entry, measure: str) -> float | None:
    """Returns a figure's difference to the baseline's; None where either is missing."""
    own, other = entry.figures[measure], baseline.figures[measure]
    return None if own is None or other is None else own - other


def build(comparison: Comparison) -> Table:
    """Returns the table of a comparison."""
    entries, baseline = comparison.entries, comparison.baseline
    is_printed = any(entry.printed_mean_recall is not None for entry in entries)
    columns = [Column("", "system", is_number=False)]
    columns += [Column("image to text", f"R@{k}") for k in (1, 5, 10)]
    columns += [Column("text to image", f"R@{k}") for k in (1, 5, 10)]
    columns += [Column("", "rsum"), Column("", "mR")]
    columns += [Column("", "mR printed")] * is_printed
    if baseline is not None:
        group = f"difference to {baseline.name} [95% interval]"
        columns += [Column(group, title) for title in ("rsum", "i2t R@1", "t2i R@1")]
        if comparison.seeds_needed:
            columns += [Column("seeds to see it", title) for title in ("rsum", "i2t R@1", "t2i R@1")]
    columns += [Column("", title, is_number=False) for title in ("protocol", "split")]
    columns += [Column("", title) for title in ("folds", "pictures", "captions", "seeds")]
    rows, notes = [], _Notes()
    for entry in entries:
        row = [entry.name + notes.marks(_notes_of(entry))]
        row += [_figure(entry, name) for name in FIGURES]
        row += [_fixed(entry.printed_mean_recall)] * is_printed
        if baseline is not None:
            row += [_difference(entry, baseline, measure, comparison.intervals) for measure in MEASURES]
            if comparison.seeds_needed:
                row += [_seeds(comparison.seeds_needed.get(entry.name), measure) for measure in MEASURES]
        facts = entry.facts
        row += [facts.protocol_name or MISSING, facts.split or MISSING]
        row += [_count(value) for value in (facts.folds, facts.num_images, facts.num_captions, entry.num_seeds)]
        rows.append(row)
    return Table(columns, rows, [*_general_notes(comparison), *notes.lines()])


def _general_notes(comparison: Comparison) -> list[str]:
    found = [f"WARNING: not like with like: {sentence}" for sentence in comparison.unlike]
    found.append("Recall@K in percent; rsum is the sum of the six, mR their mean.")
    if comparison.embedding != "fused":
        found.append(f"Our own runs are shown by their {comparison.embedding} embedding.")
    both = [name for name in comparison.intervals if name in comparison.seeds_needed]
    alone = [name for name in comparison.intervals if name not in comparison.seeds_needed]
    draws = f"paired bootstrap, {comparison.num_draws:,} draws of pictures with their captions"
    if alone:
        found.append(
            f"95% intervals of {', '.join(alone)}: {draws}, percentile. They do not include the spread between seeds, "
            "which needs several seeds on both sides. No interval: the rank of each query is not known on both sides."
        )
    if both:
        found.append(
            f"95% intervals of {', '.join(both)}: {draws}, and the variance between seeds; Student's t, with "
            "Satterthwaite's degrees of freedom. Seeds to see it: how many each system needs for the interval to "
            f"exclude 0, if difference and spreads stay as they are; none: {MOST_SEEDS:,} are not enough, it takes "
            "more pictures."
        )
    return found


def _notes_of(entry: Entry) -> list[str]:
    found = list(entry.notes)
    unknown = not_stated(entry)
    if unknown:
        found.append(unknown)
    own = entry.figures["mean_recall"]
    printed = entry.printed_mean_recall
    if own is not None and printed is not None and abs(own - printed) > 0.06:
        found.append(f"its source prints mR {_fixed(printed)}; the mean of its six recalls is {_fixed(own, 2)}")
    return found


class _Notes:
    """Footnotes, each text once, numbered in order."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def marks(self, texts: Sequence[str]) -> str:
        """Returns what follows a name: ` [1,3]`."""
        self._texts += [text for text in dict.fromkeys(texts) if text not in self._texts]
        numbers = sorted(self._texts.index(text) + 1 for text in dict.fromkeys(texts))
        return f" [{','.join(map(str, numbers))}]" if numbers else ""

    def lines(self) -> list[str]:
        return [f"[{number}] {text}" for number, text in enumerate(self._texts, start=1)]


def _figure(entry: Entry, name: str) -> str:
    text = _fixed(entry.figures[name])
    return f"{text} ±{_fixed(entry.deviations[name])}" if name in entry.deviations else text


def _difference(entry: Entry, baseline: Entry, measure: str, intervals: Mapping[str, Mapping[str, Interval]]) -> str:
    if entry is baseline:
        return "baseline" if measure == MEASURES[0] else MISSING
    value = difference(entry, baseline, measure)
    if value is None:
        return MISSING
    text = _signed(value)
    if entry.name in intervals:
        low, high = intervals[entry.name][measure]
        text += f" [{_signed(low)}, {_signed(high)}]"
    return text


def _seeds(needed: Mapping[str, int | None] | None, measure: str) -> str:
    return MISSING if needed is None else "none" if needed[measure] is None else f"{needed[measure]:,}"


def _fixed(value: float | None, digits: int = 1) -> str:
    """Returns a figure with so many digits, a half rounded up; recalls of whole numbers of queries do end in a half."""
    if value is None:
        return MISSING
    exact = decimal.Decimal(repr(round(value, 6)))
    return str(exact.quantize(decimal.Decimal(1).scaleb(-digits), decimal.ROUND_HALF_UP))


def _signed(value: float) -> str:
    text = _fixed(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '-'}{text}"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def records(comparison: Comparison) -> list[dict[str, str | int | float | None]]:
    """Returns the rows with every figure at full precision, by the names that CSV files of recalls have."""
    baseline = comparison.baseline
    found = []
    for entry in comparison.entries:
        facts = entry.facts
        record = {"name": entry.name}
        record |= {name: entry.figures[name] for name in FIGURES}
        record |= {f"{name}_sd": entry.deviations.get(name) for name in FIGURES}
        record |= {"printed_mean_recall": entry.printed_mean_recall, "baseline": baseline.name if baseline else None}
        for measure in MEASURES:
            interval = comparison.intervals.get(entry.name, {}).get(measure)
            record[f"{measure}_difference"] = difference(entry, baseline, measure) if baseline else None
            record[f"{measure}_low"], record[f"{measure}_high"] = interval or (None, None)
            record[f"{measure}_seeds_needed"] = comparison.seeds_needed.get(entry.name, {}).get(measure)
        record |= facts._asdict()
        transductive = facts.protocol_name is not None and "transductive" in facts.protocol_name
        record |= {"transductive": str(transductive).lower() if facts.protocol else None}
        record |= {"num_seeds": entry.num_seeds, "note": "; ".join(entry.notes) or None}
        record |= {"unlike": "; ".join(comparison.unlike) or None}
        found.append(record)
    return found
