"""The rows of `results.json`, and how a terminal shows them."""

from typing import Any

from mhcvse_jax.retrieval.recall import Retrieval
from mhcvse_jax.terminal.progress import say

EMBEDDINGS = ("fused", "instance", "consensus")
"""What can be ranked by. A model may have the first alone, as one that scores pairs has."""

METRICS = ("eccv", "cxc", "pmrp")
"""On COCO's test pictures, by more than their own captions: see `evaluation.coco`."""


def is_transductive(protocol: str) -> bool:
    """Returns whether what is found for a query depends on the other queries."""
    return protocol in ("label_completion", "inverted_softmax", "csls")


def make(
    results: dict[str, Retrieval],
    *,
    split: str,
    protocol: str,
    folds: int,
    num_images: int,
    num_captions: int,
    label_neighbours: str = "",
    setting: str = "",
    trained_on: str = "",
) -> list[dict[str, Any]]:
    """Returns a row of `results.json` for each embedding; counts are those of the whole split.

    What the protocol was set to, and the data that the model was trained on, stand there where they say something.
    """
    stamps = {"label_neighbours": label_neighbours, "setting": setting, "trained_on": trained_on}
    rule = {name: text for name, text in stamps.items() if text}
    return [
        {
            "split": split,
            "protocol": protocol,
            "transductive": is_transductive(protocol),
            **rule,
            "folds": folds,
            "embedding": kind,
            **retrieval.to_dict(),
            "num_images": num_images,
            "num_captions": num_captions,
        }
        for kind, retrieval in results.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table for a terminal."""
    names = [_row_name(row) for row in rows]
    width = max(26, *(len(name) + 1 for name in names))
    head = f"{'':<{width}}|{'image to text':^32}|{'text to image':^32}|"
    columns = f"{'split, embedding':<{width}}|" + f"{'R@1':>6}{'R@5':>7}{'R@10':>7}{'med':>6}{'mean':>6}|" * 2
    lines = [head, columns + f"{'rsum':>7}{'mR':>7}"]
    for name, row in zip(names, rows, strict=True):
        line = f"{name:<{width}}|"
        for way in (row["i2t"], row["t2i"]):
            line += f"{way['r1']:6.1f}{way['r5']:7.1f}{way['r10']:7.1f}{way['medr']:6.0f}{way['meanr']:6.1f}|"
        lines.append(line + f"{row['rsum']:7.1f}{row['mean_recall']:7.1f}")
    return "\n".join(lines)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the rows as a table."""
    say(table(rows))


def _row_name(row: dict[str, Any]) -> str:
    folds = f" ({row['folds']} folds)" if row["folds"] > 1 else ""
    protocol = f", {row['protocol']}" if row["protocol"] != "standard" else ""
    transductive = ", transductive" if is_transductive(row["protocol"]) else ""
    transfer = ", transfer" if row.get("trained_on") else ""
    return f"{row['split']}{folds}, {row['embedding']}{protocol}{transductive}{transfer}"
