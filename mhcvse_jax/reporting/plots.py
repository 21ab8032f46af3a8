"""Panels as SVG that takes its colours from the page, drawn by matplotlib.

matplotlib writes SVG without a script, a server or a font of its own, and draws the axes for us. So a page can open
from disk for years. matplotlib cannot know whether the page is light or dark, so it draws with placeholder colours,
which are then replaced by the page's variables.
"""

import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from mhcvse_jax.reporting.curves import Panel, ends

NUM_COLOURS = 6
INK, FAINT = "#010101", "#020202"
COLOURS = [f"#0303{number:02x}" for number in range(3, 3 + NUM_COLOURS)]
VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(COLOURS)
}
SIZE = (4.0, 2.1)  # inches, which become as many points as the page likes
LOGARITHMIC = 30  # times the lowest value that the highest is, from which an axis is logarithmic
STYLE = {
    "svg.fonttype": "none",  # letters stay letters: small, selectable, in the page's font
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
}


def draw(panels: Iterable[Panel]) -> list[str]:
    """Returns each panel as an <svg> element."""
    return [_draw(panel, number) for number, panel in enumerate(panels)]


def _draw(panel: Panel, number: int) -> str:
    low, high = ends(panel.series)
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": f"{panel.title} {number}"}
    with mpl.rc_context(style):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        for one in panel.series:
            colour = COLOURS[one.colour % NUM_COLOURS]
            steps, mean, lowest, highest = one.curve
            dashes = "-" if one.colour < NUM_COLOURS else "--"
            axes.plot(steps, mean, color=colour, linestyle=dashes, marker="o" if len(steps) <= 12 else "", markersize=3)
            if np.any(highest - lowest > 1e-6 * np.abs(mean)):
                axes.fill_between(steps, lowest, highest, color=colour, alpha=0.18, linewidth=0)
        if panel.level is not None:
            axes.axhline(panel.level, color=INK, linewidth=0.8, linestyle=":")
        _scale(axes, panel)
        axes.grid(visible=True, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(panel.unit, loc="right")
        axes.tick_params(length=0)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(text.getvalue(), f"{panel.title} by {panel.unit}: from {low:.4g} to {high:.4g}")


def _scale(axes: Axes, panel: Panel) -> None:
    """Fits the axis to the means: one wild step would make the rest a line."""
    values = np.concatenate([one.curve.mean for one in panel.series])
    values = values if panel.level is None else np.append(values, panel.level)
    low, high = float(values.min()), float(values.max())
    if panel.may_be_logarithmic and low > 0 and high > LOGARITHMIC * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        return
    margin = 0.06 * (high - low)
    if high - low < 1e-6 * max(abs(high), abs(low), 1e-30):  # a constant: no digits of its rounding
        margin = 0.1 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _for_page(svg: str, label: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to a group, and another plot has the same names
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)  # tenths are enough
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)  # versions write it in either way
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    label = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
