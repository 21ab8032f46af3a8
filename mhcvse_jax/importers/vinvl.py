"""VinVL (Zhang et al., CVPR 2021): lines of a key and JSON. A .lineidx file beside it is not needed."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.importers.importer import checked, whole_number
from mhcvse_jax.importers.tsv import Lines, decode
from mhcvse_jax.precompute.directory import Made

WIDTH = 2048  # of the features, which six numbers of the box may follow


class VinvlTsv(Lines):
    """JSON of objects, each with its features; or of all features together, without boxes.

    Where the last six of 2,054 features are those of the box (its corners and sides as shares of the picture's), they
    are left out: they are no output of the network, and tell where a region is, not what.
    """

    name = "vinvl_tsv"
    summary = '2 columns: key, JSON {"objects": [{rect, conf, class, feature}]} or {"num_boxes", "features"}'
    num_columns = 2

    def __init__(self, paths: Sequence[pathlib.Path], **options: Any):
        super().__init__(paths, **options)
        self._classes: dict[str, int] = {}  # by name, in the order of the file

    def names(self) -> dict[str, list[str]]:
        return {"classes": list(self._classes)} if self._classes else {}

    def num_regions(self, where: str, cells: Sequence[bytes]) -> int:
        content = _content(where, cells)
        if "objects" not in content:
            return whole_number(f"{where}: num_boxes", content["num_boxes"])
        if not isinstance(content["objects"], list):
            raise InputError(f"{where}: objects {str(content['objects'])[:40]!r}; expected a list")
        for each in content["objects"]:
            if isinstance(each, dict):
                self._classes.setdefault(_class(each), len(self._classes))
        return len(content["objects"])

    def parse(self, where: str, cells: Sequence[bytes]) -> Made:
        content = _content(where, cells)
        try:
            size = int(content.get("image_w", 0)), int(content.get("image_h", 0))
            if "objects" not in content:
                features = decode(where, content["features"], "<f4", int(content["num_boxes"]))
                return checked(where, _without_box(features), None, size)
            objects = content["objects"]
            features = np.stack([decode(where, each["feature"], "<f4", 1)[0] for each in objects])
            boxes = np.array([each["rect"] for each in objects], np.float32)
            scores = np.array([each["conf"] for each in objects], np.float32)
            classes = np.array([self._classes[_class(each)] for each in objects])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where}: not what VinVL writes ({type(error).__name__}: {error})") from error
        return checked(where, _without_box(features), boxes, size, classes=classes, class_scores=scores)


def _class(found: dict[str, Any]) -> str:
    """Returns the name of an object's class, on one line."""
    return " ".join(str(found.get("class", "")).split()) or "object"


def _content(where: str, cells: Sequence[bytes]) -> dict[str, Any]:
    try:
        content = json.loads(cells[1])
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    if not isinstance(content, dict) or not {"objects", "num_boxes"} & set(content):
        raise InputError(f"{where}: JSON without objects or num_boxes")
    return content


def _without_box(features: np.ndarray) -> np.ndarray:
    return features[:, :WIDTH] if features.shape[1] == WIDTH + 6 else features
