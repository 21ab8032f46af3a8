"""Hubness in `results.json`, and how a terminal shows it."""

from typing import Any

from mhcvse_jax.retrieval.hubness import OCCURRENCE_K, hubs
from mhcvse_jax.retrieval.one_way import BothWays


def measure(ways: BothWays) -> dict[str, Any]:
    """Returns how unevenly candidates are found, by "i2t" (of captions) and "t2i" (of pictures)."""
    found: dict[str, Any] = {"k": OCCURRENCE_K}
    for name, way in ways._asdict().items():
        found[name] = {key: round(value, 4) for key, value in hubs(way)._asdict().items()}
    return found


def describe(measured: dict[str, Any]) -> str:
    """Returns it as two lines."""
    lines = []
    for way, found, query in (("i2t", "captions", "picture"), ("t2i", "pictures", "caption")):
        values = measured[way]
        lines.append(
            f"{found} among the first {measured['k']} of a {query}: skewness {values['skewness']:.2f}, "
            f"one {values['most']:,} times, {values['never']:.0f}% never"
        )
    return f"hubness   {lines[0]}\n          {lines[1]}"
