"""Writes the vectors of a data directory's pictures and captions, or of texts, for other tools.

    mhcvse encode --workdir runs/f30k --data data/f30k_precomp --split test --out test.parquet
    mhcvse encode --workdir runs/f30k --texts queries.txt --out queries.npz

An .npz holds image_vectors and text_vectors, <float32>[items, D], with image_ids, image_files, texts and image_of_text,
the place of each text's picture, or -1 if it has none. A .parquet has a row for each item: kind (image or text), id,
file, text, vector. Vectors have unit length: a dot product is a cosine.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.run import command_line

if TYPE_CHECKING:
    from mhcvse_jax.indexing.trained import TrainedModel

WRITERS = (".npz", ".parquet")


class Table(NamedTuple):
    """Vectors, and what each belongs to."""

    image_vectors: np.ndarray  # <float32>[images, D]
    text_vectors: np.ndarray  # <float32>[texts, D]
    image_ids: list[str]
    image_files: list[str]  # empty texts where they are not known
    texts: list[str]
    image_of_text: np.ndarray  # <int32>[texts] -1 where it is of none


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.encode") -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 it could not be written, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    add = parser.add_argument
    add("--workdir", type=path, required=True, metavar="RUN", help="the workdir of a run")
    add("--out", type=path, required=True, metavar="FILE", help=f"{' or '.join(WRITERS)}")
    add("--data", type=path, metavar="DIR", help="region features and captions (default: the run's data)")
    add("--split", metavar="NAME", help="train, dev, test, ... (default: the one that the run was tested on)")
    add("--texts", type=path, metavar="FILE", help="texts, one per line, instead of pictures and their captions")
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: encode(arguments))


def encode(arguments: argparse.Namespace) -> None:
    """Writes the file, and prints what is in it.

    Raises:
      InputError: the arguments do not go together, or what they name cannot be used.
    """
    out: pathlib.Path = arguments.out
    if out.suffix not in WRITERS:
        raise InputError(f"--out {out}: of unknown kind; expected {' or '.join(WRITERS)}")
    if arguments.texts and (arguments.data or arguments.split):
        raise InputError("--texts replaces --data and --split; give one or the other")
    command_line.check_output("--out", out)
    if out.suffix == ".parquet":
        _pyarrow()
    print(f"reading   {arguments.workdir}", flush=True)
    from mhcvse_jax.indexing import trained  # here, so that the line above need not wait for JAX

    model = trained.load(arguments.workdir)
    print(f"model     {model.name} of {arguments.workdir}, {model.progress.best()}", flush=True)
    table = _of_texts(model, arguments.texts) if arguments.texts else _of_split(model, arguments)
    with whole_file(out) as partial:
        (_write_npz if out.suffix == ".npz" else _write_parquet)(partial, table)
    images, texts, width = len(table.image_ids), len(table.texts), model.width
    print(f"vectors   {out}: {images:,} pictures, {texts:,} texts, {width} numbers each", flush=True)


def _of_split(model: "TrainedModel", arguments: argparse.Namespace) -> Table:
    from mhcvse_jax.data import feature_source
    from mhcvse_jax.experiment import reading
    from mhcvse_jax.indexing import build

    config = model.experiment.config
    directory = arguments.data or reading.data_directory(config, model.workdir)
    feature_source.check(directory, model.workdir)
    split = build.load_split(model, directory, arguments.split or config.eval.test_split)
    arrays = build.encode_split(model, split, np.arange(split.num_images), "float32")
    order = np.argsort(split.image_of_caption, kind="stable")
    return Table(
        arrays.images,
        arrays.captions,
        split.image_ids,
        split.image_names or [""] * split.num_images,
        [split.captions[caption] for caption in order],
        arrays.caption_images,
    )


def _of_texts(model: "TrainedModel", path: pathlib.Path) -> Table:
    from mhcvse_jax.data.lines import read_captions

    texts = read_captions(path)
    if not texts:
        raise InputError(f"--texts {path}: no text in it; expected one per line")
    none = np.zeros((0, model.width), np.float32)
    return Table(none, model.encode_texts(texts), [], [], texts, np.full(len(texts), -1, np.int32))


def _write_npz(path: pathlib.Path, table: Table) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(values) for name, values in table._asdict().items()})


def _write_parquet(path: pathlib.Path, table: Table) -> None:
    pa = _pyarrow()
    from pyarrow import parquet

    vectors = np.concatenate([table.image_vectors, table.text_vectors])
    owners = [None if owner < 0 else int(owner) for owner in table.image_of_text]
    files = [file or None for file in table.image_files]
    columns = {
        "kind": ["image"] * len(table.image_ids) + ["text"] * len(table.texts),
        "id": [*table.image_ids, *(None if owner is None else table.image_ids[owner] for owner in owners)],
        "file": [*files, *(None if owner is None else files[owner] for owner in owners)],
        "text": [*[None] * len(table.image_ids), *table.texts],
    }
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    arrays["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    parquet.write_table(pa.table(arrays), path)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            "--out FILE.parquet: pyarrow is not installed; expected pip install pyarrow, or .npz"
        ) from error
    return pyarrow


if __name__ == "__main__":
    sys.exit(main())
