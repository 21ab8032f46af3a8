"""A run card: everything needed to trust a row of a table, from `results.json`."""

from typing import Any, NamedTuple


class Line(NamedTuple):
    """One thing that a reader asks, and what the results say."""

    name: str
    value: str


NOT_KEPT = "not kept: the results are of an earlier version"


def selection_of(progress: Any, num_epochs: int) -> dict[str, Any]:
    """Returns which checkpoint was tested and why, as `results.json` has it.

    Args:
      progress: how far the training was, at its end or at the checkpoint; see `training.checkpoint.Progress`.
      num_epochs: the most epochs that the training could take.
    """
    return {
        "rule": "the checkpoint with the highest rsum on dev, which is measured after each epoch",
        "step": progress.best_step,
        "dev_rsum": round(progress.best_rsum, 4) if progress.best_rsum >= 0 else None,
        "epochs_done": progress.epochs_done,
        "num_epochs": num_epochs,
        "train_seconds": round(progress.train_seconds, 1),
    }


def lines(content: dict[str, Any]) -> list[Line]:
    """Returns the card of a results file, in reading order; what the file lacks is listed as not kept.

    Args:
      content: as `results.load_results` returns it.
    """
    rows = content.get("results", [])
    found = [Line("model", content.get("model", NOT_KEPT)), Line("seed", str(content.get("seed", NOT_KEPT)))]
    found += [Line("data", content["data"]["name"] if "data" in content else NOT_KEPT)]
    for name, split in content.get("data", {}).get("splits", {}).items():
        sizes = f"{split['num_images']:,} pictures, {split['num_captions']:,} captions"
        shape = f"{split['regions']} regions of {split['features']}"
        sums = ", ".join(f"{what} {split[f'{what}_sha256'][:12]}" for what in ("captions", "image_ids", "features"))
        found.append(Line(name, f"{sizes}, {shape}; SHA-256: {sums.replace('image_ids', 'ids')}"))
    if "transfer" in content:
        transfer = content["transfer"]
        found.append(Line("transfer", f"trained on {transfer['trained_on']}, tested on {transfer['tested_on']}"))
    for protocol in dict.fromkeys(_protocol(row) for row in rows):
        found.append(Line("protocol", protocol))
    found.append(Line("selection", _selection(content["selection"]) if "selection" in content else NOT_KEPT))
    found.append(Line("commit", _commit(content.get("git_revision", "unknown"))))
    found.append(Line("device", content.get("device", NOT_KEPT)))
    found.append(Line("versions", ", ".join(f"{name} {version}" for name, version in content["versions"].items())))
    return [*found, Line("wall time", _seconds(content))]


def _protocol(row: dict[str, Any]) -> str:
    parts = [row["protocol"], row.get("label_neighbours", ""), row.get("setting", "")]
    transductive = " (transductive)" if row["transductive"] else ""
    folds = f", mean over {row['folds']} folds" if row["folds"] > 1 else ""
    return f"{', '.join(filter(None, parts))}{transductive}, {row['split']}{folds}"


def _selection(selection: dict[str, Any]) -> str:
    rsum = selection["dev_rsum"]
    measured = "rsum not known" if rsum is None else f"dev rsum {rsum:.1f}"
    epochs = f"{selection['epochs_done']} of {selection['num_epochs']} epochs done"
    return f"{selection['rule']}: step {selection['step']:,}, {measured}, {epochs}"


def _commit(revision: str) -> str:
    if revision.endswith("-dirty"):
        return f"{revision.removesuffix('-dirty')}, with changes that were not committed"
    return "unknown: not run from a repository" if revision == "unknown" else f"{revision}, as committed"


def _seconds(content: dict[str, Any]) -> str:
    if "test_seconds" in content:
        return f"{content['seconds']:,.1f} s of training, {content['test_seconds']:,.1f} s of test"
    return f"{content['seconds']:,.1f} s" if "seconds" in content else NOT_KEPT
