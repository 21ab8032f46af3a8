"""The rank of every query of a split, kept in a file: the source of recalls, intervals and comparisons."""

import dataclasses
import pathlib
import re
import zipfile
from typing import Any

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import result_rows
from mhcvse_jax.files.downloads import check_no_web_page
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.retrieval.recall import Ranks, Retrieval, mean_recall_over_folds


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One split under one protocol: the ranks of each embedding, for each number of folds asked for."""

    split: str
    protocol: str
    label_neighbours: str  # the rule of label completion, "" where the protocol is another
    image_ids: list[str]  # [images] as the data set names them
    image_of_caption: np.ndarray  # <int32>[captions]
    ranks: dict[int, dict[str, Ranks]]  # folds -> kind of embedding -> ranks, in the split's order
    setting: str = ""  # of a protocol against hubs: its temperature, neighbours, bank
    trained_on: str = ""  # the data that the model was trained on, where it is tested on other data: a transfer
    tested_on: str = ""  # those that it is tested on, then

    @property
    def num_images(self) -> int:
        """Pictures of the whole split."""
        return len(self.image_ids)

    @property
    def num_captions(self) -> int:
        """Captions of the whole split."""
        return len(self.image_of_caption)

    def retrieval(self, folds: int, kind: str) -> Retrieval:
        """Returns the recalls of one kind of embedding, averaged over the folds."""
        found = self.ranks[folds][kind]
        return mean_recall_over_folds(found.i2t, found.t2i, self.image_of_caption, folds)

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of `results.json`."""
        rows = []
        for folds, kinds in self.ranks.items():
            rows += result_rows.make(
                {kind: self.retrieval(folds, kind) for kind in kinds},
                split=self.split,
                protocol=self.protocol,
                folds=folds,
                num_images=self.num_images,
                num_captions=self.num_captions,
                label_neighbours=self.label_neighbours,
                setting=self.setting,
                trained_on=self.trained_on,
            )
        return rows

    def file_name(self) -> str:
        """Returns a name unique among a run's evaluations: from data, split, protocol, rule and folds."""
        rule = f"_{self.label_neighbours}" if self.label_neighbours else ""
        folds = "" if list(self.ranks) == [1] else "_folds" + "_".join(map(str, self.ranks))
        transfer = f"transfer_{re.sub(r'[^A-Za-z0-9_.-]+', '_', self.tested_on)}_" if self.trained_on else ""
        return f"ranks_{transfer}{self.split}_{self.protocol}{rule}{folds}.npz"

    def save(self, path: pathlib.Path) -> None:
        """Writes `ranks.npz`.

        It holds the strings split, protocol, label_neighbours, setting, trained_on and tested_on; the flag
        transductive; the counts num_images and num_captions; folds <int>[any]; image_ids <str>[images];
        image_of_caption <int32>[captions]; and for each number of folds n and each embedding
        `folds{n}_{embedding}_i2t` <int32>[images] and `folds{n}_{embedding}_t2i` <int32>[captions], ranks from 1
        within the query's fold; 0 for a picture without captions.
        """
        arrays = {
            f"folds{folds}_{kind}_{direction}": values
            for folds, kinds in self.ranks.items()
            for kind, both in kinds.items()
            for direction, values in both._asdict().items()
        }
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                split=np.array(self.split),
                protocol=np.array(self.protocol),
                label_neighbours=np.array(self.label_neighbours),
                setting=np.array(self.setting),
                trained_on=np.array(self.trained_on),
                tested_on=np.array(self.tested_on),
                transductive=np.array(result_rows.is_transductive(self.protocol)),
                num_images=np.array(self.num_images),
                num_captions=np.array(self.num_captions),
                folds=np.array(list(self.ranks)),
                image_ids=np.array(self.image_ids, str),
                image_of_caption=self.image_of_caption,
                **arrays,
            )

    @classmethod
    def load(cls, path: pathlib.Path) -> "Evaluation":
        """Returns what `save` wrote.

        Raises:
          InputError: the file is missing, damaged or of another kind.
        """
        check_no_web_page(path)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                loaded = cls(
                    split=str(arrays["split"]),
                    protocol=str(arrays["protocol"]),
                    label_neighbours=str(arrays["label_neighbours"]),
                    image_ids=arrays["image_ids"].tolist(),
                    image_of_caption=arrays["image_of_caption"],
                    ranks={
                        folds: {
                            kind: Ranks(*(arrays[f"folds{folds}_{kind}_{way}"] for way in Ranks._fields))
                            for kind in result_rows.EMBEDDINGS
                            if f"folds{folds}_{kind}_i2t" in arrays
                        }
                        for folds in arrays["folds"].tolist()
                    },
                    # Not in files of earlier versions, which had neither.
                    **{name: str(arrays[name]) for name in ("setting", "trained_on", "tested_on") if name in arrays},
                )
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not ranks that an evaluation has written ({error})") from error
        folds = list(loaded.ranks)
        if not folds or min(folds) < 1 or not loaded.num_images or any(loaded.num_images % each for each in folds):
            raise InputError(f"{path}: {loaded.num_images} pictures in {folds} folds; expected folds that divide them")
        for kinds in loaded.ranks.values():
            for both in kinds.values():
                if (len(both.i2t), len(both.t2i)) != (loaded.num_images, loaded.num_captions):
                    raise InputError(f"{path}: ranks of {len(both.i2t)} pictures; expected {loaded.num_images}")
        return loaded
