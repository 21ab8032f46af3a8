"""The values that a run logged, thinned out to what a plot can show."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

POINTS = 160  # of a curve at most: more cannot be told apart at the width of a plot


class Curve(NamedTuple):
    """Values by step; if many steps became one point, their mean and range."""

    steps: np.ndarray  # <float64>[points]
    mean: np.ndarray  # <float64>[points]
    low: np.ndarray  # <float64>[points]
    high: np.ndarray  # <float64>[points]


class Series(NamedTuple):
    """A curve with its name in the legend and the number of its colour."""

    name: str
    colour: int
    curve: Curve


class Panel(NamedTuple):
    """What is drawn on one pair of axes."""

    title: str
    unit: str  # of the steps axis
    series: list[Series]
    level: float | None = None  # a dashed line across
    level_name: str = ""
    may_be_logarithmic: bool = False


class Log(NamedTuple):
    """The lines of `metrics.jsonl` by kind and name: steps <int64>[lines] and values <float64>[lines]."""

    kinds: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]

    def names(self, kind: str) -> list[str]:
        """Returns the names of a kind's values, sorted."""
        return sorted(self.kinds.get(kind, {}))

    def curve(self, kind: str, name: str) -> Curve:
        """Returns the values of a name, thinned out."""
        return thin(*self.kinds[kind][name])


def read(path: pathlib.Path) -> Log:
    """Returns what a run logged, or nothing if there is no such file. A line cut off by a kill is left out."""
    found: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        try:
            values = json.loads(line)
            step, kind = int(values.pop("step")), str(values.pop("kind"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in values.items():
            steps, numbers = found.setdefault(kind, {}).setdefault(name, ([], []))
            try:
                number = float(value)  # "nan" and "inf" are written as text
            except (TypeError, ValueError):
                continue
            steps.append(step)
            numbers.append(number)
    return Log(
        {
            kind: {name: (np.array(steps), np.array(numbers)) for name, (steps, numbers) in names.items() if steps}
            for kind, names in found.items()
        }
    )


def thin(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> Curve:
    """Returns a curve of a limited number of points: neighbours become their mean, lowest and highest value.

    Values that are not finite are left out.
    """
    finite = np.isfinite(values)
    steps, values = steps[finite].astype(float), values[finite]
    if not len(values):
        return Curve(*(np.zeros(0) for _ in Curve._fields))
    starts = np.unique(np.linspace(0, len(values), min(points, len(values)), endpoint=False).astype(int))
    counts = np.diff([*starts, len(values)])
    return Curve(
        np.add.reduceat(steps, starts) / counts,
        np.add.reduceat(values, starts) / counts,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )


EMBEDDINGS = ("fused", "instance", "consensus")
OF_TERMS = {"weight": "weight", "hardness": "hardness of negatives", "attention_entropy": "attention entropy"}
"""What is logged for each term or side, by what its name begins with: those of one run share a panel."""
ALONE = {"gradient_norm": ("gradient norm", True), "learning_rate": ("learning rate", False)}
"""What has a panel of its own: its title, and whether its axis may be logarithmic."""
RECALLS = ("r1", "r5", "r10")
WAYS = {"i2t": "image to text", "t2i": "text to image"}


def panels(logs: Mapping[str, Log], levels: Mapping[str, float] | None = None) -> dict[str, list[Panel]]:
    """Returns the panels of one run, or of several over each other, by section.

    Of one run the terms of a value share a panel; of several each term has its own, in which the runs are the curves.

    Args:
      logs: the logs by name of the run.
      levels: by name of the term, the value that its loss has when all embeddings are alike.
    """
    levels = levels or {}
    names = list(dict.fromkeys(name for log in logs.values() for name in log.names("train")))
    losses = sorted((name for name in names if name.split("_")[0] == "loss"), key=lambda name: (name != "loss", name))
    found = [
        _panel(logs, "train", {name: ""}, f"{_term(name, 'loss')} loss" if name != "loss" else "loss, all terms")
        for name in losses
    ]
    found = [
        panel._replace(level=levels[name], level_name="all embeddings alike") if name in levels else panel
        for panel, name in zip(found, losses, strict=True)
    ]
    found = [panel._replace(may_be_logarithmic=True) for panel in found]
    training = []
    for prefix, title in OF_TERMS.items():
        of_terms = {name: _term(name, prefix) for name in sorted(names) if name.startswith(prefix + "_")}
        training += _together_or_apart(logs, "train", of_terms, title)
    for name, (title, may_be_logarithmic) in ALONE.items():
        if name in names:
            panel = _panel(logs, "train", {name: ""}, title)
            training.append(panel._replace(may_be_logarithmic=may_be_logarithmic))
    dev = _together_or_apart(logs, "", {f"dev_{kind} rsum": kind for kind in EMBEDDINGS}, "dev rsum", unit="epoch")
    for way, title in WAYS.items():
        recalls = {f"dev_fused {way}_{name}": f"R@{name[1:]}" for name in RECALLS}
        dev += _together_or_apart(logs, "", recalls, f"dev recall, {title}", unit="epoch")
    sections = {"Recall on dev by epoch": dev, "Losses": found, "Training": training}
    return {name: kept for name, all_of in sections.items() if (kept := [panel for panel in all_of if panel.series])}


def _term(name: str, prefix: str) -> str:
    term = name.removeprefix(prefix + "_").replace("_", " ")
    return "KL" if term == "kl" else term


def _together_or_apart(
    logs: Mapping[str, Log], kind: str, names: Mapping[str, str], title: str, unit: str = "step"
) -> list[Panel]:
    if len(logs) == 1:
        return [_panel(logs, kind, names, title, unit)] if names else []
    return [_panel(logs, kind, {name: ""}, f"{title}, {shown}", unit) for name, shown in names.items()]


def _panel(logs: Mapping[str, Log], kind: str, names: Mapping[str, str], title: str, unit: str = "step") -> Panel:
    """Returns the curves of these names, `kind name` where no kind is given; a name's own text is its legend's."""
    series = []
    for number, (run, log) in enumerate(logs.items()):
        for place, (name, shown) in enumerate(names.items()):
            of_kind, _, last = (kind, "", name) if kind else name.partition(" ")
            values = log.kinds.get(of_kind, {}).get(last)
            if values is None:
                continue
            steps, numbers = values
            if unit == "epoch":
                steps = np.arange(1, len(steps) + 1)  # a line an epoch
            curve = thin(steps, numbers)
            if len(curve.steps):
                one_run = len(logs) == 1
                series.append(Series(shown if one_run else run, place if one_run else number, curve))
    return Panel(title, unit, series)


def num_epochs(log: Log) -> int:
    """Returns how many epochs were validated."""
    return max(
        (len(steps) for name in log.names("dev_fused") for steps, _ in [log.kinds["dev_fused"][name]]), default=0
    )


def last_step(log: Log) -> int:
    """Returns the last step that was logged, 0 for none."""
    return max((int(steps[-1]) for of_kind in log.kinds.values() for steps, _ in of_kind.values()), default=0)


def ends(series: Sequence[Series]) -> tuple[float, float]:
    """Returns the lowest and the highest value of all curves."""
    return min(one.curve.low.min() for one in series), max(one.curve.high.max() for one in series)
