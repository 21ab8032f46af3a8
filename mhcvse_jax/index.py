"""Makes an index of pictures that can be searched by words or by a picture: encodes each picture and caption once.

    mhcvse index --workdir runs/f30k --data data/f30k_precomp --out index
    mhcvse search index "two dogs play in the snow"

It also changes an existing index: --append adds pictures, --remove takes some out, --engine faiss adds a faster,
approximate search beside the exact one. Changes are atomic: a command that is stopped changes nothing.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mhcvse_jax.errors import InputError
from mhcvse_jax.run import command_line
from mhcvse_jax.run.workdir import WorkdirLock

if TYPE_CHECKING:
    from mhcvse_jax.indexing.store import Header


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.index") -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 it could not be written, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    add = parser.add_argument
    add("--out", required=True, type=path, metavar="INDEX", help="the directory of the index")
    add(
        "--workdir",
        type=path,
        metavar="RUN",
        help="the workdir of a run (with --append, default: the one that made the index)",
    )
    add("--data", type=path, metavar="DIR", help="region features and captions (default: the run's data)")
    add("--split", default="all", metavar="NAME", help="train, dev, test, ... (default: all)")
    add(
        "--images",
        type=path,
        metavar="DIR",
        help="the folder of the pictures (default: images/ in the data directory, if there is one)",
    )
    add(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="type of the vectors on disk (default float32)",
    )
    add(
        "--append", action="store_true", help="add the pictures of --data; those that the index already has are skipped"
    )
    add("--remove", nargs="+", metavar="ID", help="take out the pictures with these ids")
    add(
        "--engine",
        choices=("exact", "faiss"),
        help="exact needs no preparation; faiss is prepared here, then used by `mhcvse search --engine faiss`",
    )
    add(
        "--faiss_index",
        metavar="FACTORY",
        help="the kind of index, as faiss writes it: HNSW32 (the default), IVF1024,PQ64np, ...",
    )
    add(
        "--faiss_search",
        metavar="PARAMETERS",
        help="parameters of its search: efSearch=128 (the default for HNSW), nprobe=32, ...",
    )
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: index(arguments))


def index(arguments: argparse.Namespace) -> None:
    """Makes the index or changes it, and prints progress.

    Raises:
      InputError: the arguments do not go together, or what they name cannot be used.
    """
    from mhcvse_jax.indexing import store

    out: pathlib.Path = arguments.out
    is_there = _begin(arguments) is not None
    lock = WorkdirLock(out)
    lock.acquire()
    try:
        _change(arguments, store.read_header(out) if is_there else None)  # as it is now that no other changes it
    finally:
        lock.release()


def _begin(arguments: argparse.Namespace) -> "Header | None":
    """Returns the header of the index that is to be changed; None where one is to be made."""
    from mhcvse_jax.indexing import store

    out, exists = arguments.out, (arguments.out / store.FILE).exists()
    if (arguments.faiss_index or arguments.faiss_search) and arguments.engine != "faiss":
        raise InputError("--faiss_index and --faiss_search need --engine faiss")
    if arguments.remove and (arguments.append or arguments.workdir or arguments.data):
        raise InputError("--remove cannot be combined with --append, --workdir or --data")
    if arguments.append or arguments.remove:
        return store.read_header(out)
    if arguments.engine == "faiss" and exists and not (arguments.workdir or arguments.data):
        return store.read_header(out)
    if exists:
        raise InputError(f"{out} is an index already; expected --append to add to it, or another --out")
    if out.exists() and not (
        out.is_dir() and all(path.name == "lock" or store.is_ours(path) for path in out.iterdir())
    ):
        raise InputError(f"{out} exists and is not empty; expected an index, or a new directory")
    if not arguments.workdir:
        raise InputError("--workdir is missing; expected the run whose model encodes the pictures")
    return None


def _change(arguments: argparse.Namespace, header: "Header | None") -> None:
    out, had_faiss = arguments.out, header is not None and header.faiss is not None
    is_added = header is None or arguments.append
    if is_added:
        header = _add(arguments, header)
    from mhcvse_jax.indexing import build, faiss_engine  # here, so that the first line need not wait for JAX

    if arguments.remove and header:
        header = build.remove(out, header, arguments.remove)
    assert header is not None
    print(f"index     {out}: {header.num_pictures:,} pictures, {header.num_captions:,} captions", flush=True)
    if arguments.engine == "faiss":
        factory = arguments.faiss_index or faiss_engine.FACTORY
        search = arguments.faiss_search or (faiss_engine.SEARCH if factory.startswith("HNSW") else "")
        build.add_faiss(out, header, factory, search)
    elif had_faiss:
        print("dropped   faiss's index, which is now out of date; --engine faiss rebuilds it")


def _add(arguments: argparse.Namespace, header: "Header | None") -> "Header":
    workdir = arguments.workdir or pathlib.Path(header.workdir if header else "")
    print(f"reading   {workdir}", flush=True)
    from mhcvse_jax.experiment import reading
    from mhcvse_jax.indexing import build, trained

    model = trained.load(workdir, source=header.source if header else None)
    print(f"model     {model.name} of {workdir}, {model.progress.best()}", flush=True)
    if header is None:
        header = build.new_header(model, arguments.dtype)
    elif model.fingerprint != header.fingerprint:
        raise InputError(f"{arguments.out} was made by another model than {workdir} holds; expected a new index")
    data = arguments.data or reading.data_directory(model.experiment.config, workdir)
    splits = [arguments.split] if arguments.split != "all" else build.find_splits(data)
    images = arguments.images or data / "images"
    if arguments.images and not images.is_dir():
        raise InputError(f"--images {images}: no such directory; expected the folder of the pictures")
    source = build.Source(data, splits, images if images.is_dir() else None)
    return build.add(arguments.out, header, model, source)


if __name__ == "__main__":
    sys.exit(main())
