"""Made-up evaluations, and workdirs that hold them."""

import csv
import io
import json
import re

import numpy as np

from mhcvse_jax import config
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.retrieval.recall import Ranks

IMAGES, PER_IMAGE = 23, 5
OWNER = np.repeat(np.arange(IMAGES), PER_IMAGE)
IDS = [f"{i}.jpg" for i in range(IMAGES)]
FACTS = {"folds": [1], "num_images": IMAGES, "num_captions": len(OWNER), "image_ids": IDS}
HEADER = "name,i2t_r1,i2t_r5,i2t_r10,t2i_r1,t2i_r5,t2i_r10"


def evaluation(seed, best=1, *, split="test", protocol="standard", rule="", ids=IDS, folds=(1,)):
    """Returns ranks from `best` on, by chance."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(ids)), PER_IMAGE)

    def ranks():
        return Ranks(*(rng.integers(best, 13, n).astype(np.int32) for n in (len(ids), len(owner))))

    kinds = ("fused", "instance", "consensus")
    return Evaluation(split, protocol, rule, ids, owner, {n: {kind: ranks() for kind in kinds} for n in folds})


def make_workdir(path, tested, **values):
    """Returns a workdir as `main` leaves it, but for its checkpoints."""
    path.mkdir(parents=True)
    saved = config.base()
    for key, value in values.items():
        parent, _, name = key.replace("__", ".").rpartition(".")
        (saved[parent] if parent else saved)[name] = value
    config.save(saved, path / "config.json")
    tested.save(path / "ranks.npz")
    (path / "results.json").write_text(json.dumps({"results": tested.rows(), "seed": saved.seed}))
    return path


def table(text):
    return {row["name"]: row for row in csv.DictReader(io.StringIO(text))}


def cells_of(line):
    """Returns the figures of a line of the terminal's table: what is left of name and footnotes."""
    return [cell for cell in line.split() if re.fullmatch(r"-|[0-9.]+", cell)]
