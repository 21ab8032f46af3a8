"""Finds the pictures of an index that match a text or resemble a picture.

    mhcvse search index "two dogs play in the snow"
    mhcvse search index --image photo.jpg --find captions
    mhcvse search index --queries queries.txt --json >found.jsonl

`mhcvse index` makes an index. The search cannot use words that the model's vocabulary lacks; it lists them.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.run import command_line

if TYPE_CHECKING:
    from mhcvse_jax.indexing.index import Hit, Index
    from mhcvse_jax.indexing.reranking import Reranker

AT_ONCE = 64  # queries


class Query(NamedTuple):
    """A query, and where it comes from."""

    text: str | None
    image: pathlib.Path | None
    place: str  # for messages: "line 3 of queries.txt"; empty where it was given by itself


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.search") -> int:
    """Returns the exit code: 0 done, 2 bad input, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    add = parser.add_argument
    add("index", type=path, metavar="INDEX", help="a directory that `mhcvse index` made")
    add("texts", nargs="*", metavar="TEXT", help="what the pictures should show; several texts are several queries")
    add("--queries", metavar="FILE", help="texts, one per line; - reads them from standard input")
    add("--image", type=path, action="append", default=[], metavar="FILE", help="a picture; may be repeated")
    add("--find", choices=("pictures", "captions"), default="pictures", help="what to find (default pictures)")
    add("-k", type=command_line.positive, default=10, metavar="K", help="results per query (default 10)")
    add("--json", action="store_true", help="one line of JSON per query")
    add(
        "--engine", choices=("exact", "faiss"), default="exact", help="faiss needs an index made for it (default exact)"
    )
    add("--rerank", type=path, metavar="RUN", help="a run whose model scores pairs; it reorders the first results")
    add("--rerank_top_k", type=command_line.positive, metavar="N", help="how many results it scores (default 100)")
    add("--workdir", type=path, metavar="RUN", help="the run that made the index, if it has moved")
    add(
        "--encoder_weights",
        type=path,
        metavar="FILE",
        help="weights of the encoder for --image, if no package provides them",
    )
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: search(arguments))


def search(arguments: argparse.Namespace) -> None:
    """Prints the answers to every query.

    Raises:
      InputError: there is no query, none can be used, or the index, its model or a picture cannot be read.
    """
    queries = [*_queries(arguments)]
    if not queries:
        raise InputError("no query; expected TEXT, --queries FILE or --image FILE")
    if arguments.rerank_top_k and not arguments.rerank:
        raise InputError("--rerank_top_k needs --rerank RUN")
    for query in queries:
        if arguments.rerank and (query.text is None) == (arguments.find == "pictures"):
            raise InputError(
                "--rerank scores a picture with a text; expected a text to find pictures, or --image with --find "
                "captions"
            )
    index, reranker = _open(arguments)
    show = _show_json if arguments.json else _show
    num_answered = 0
    for start in range(0, len(queries), AT_ONCE):
        for query, encoded in _encode(index, queries[start : start + AT_ONCE], alone=len(queries) == 1):
            if isinstance(encoded, InputError):
                show(query, [], f"{query.place}{encoded}", index)
            else:
                show(query, _answer(arguments, index, reranker, query, encoded), None, index)
                num_answered += 1
    if not num_answered:
        raise InputError(f"none of the {len(queries):,} queries can be used; expected at least one")


def _queries(arguments: argparse.Namespace) -> Iterator[Query]:
    for text in arguments.texts:
        yield Query(text, None, "")
    if arguments.queries:
        name = "standard input" if arguments.queries == "-" else arguments.queries
        try:
            raw = sys.stdin.buffer.read() if arguments.queries == "-" else pathlib.Path(name).read_bytes()
            lines = raw.decode("utf-8-sig").splitlines()
        except OSError as error:
            raise InputError(f"--queries {name}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise InputError(f"--queries {name}: not UTF-8 ({error.reason}, byte {error.start})") from error
        for number, line in enumerate(lines, start=1):
            yield Query(line.strip(), None, f"line {number} of {name}: ")
    for image in arguments.image:
        yield Query(None, image, "")


def _open(arguments: argparse.Namespace) -> "tuple[Index, Reranker | None]":
    """Returns the index, and the model that re-ranks, if one is asked for."""
    from mhcvse_jax.indexing import store

    header = store.read_header(arguments.index)
    if sys.stderr.isatty():  # someone waits
        run = arguments.workdir or header.workdir
        _note(f"searching {header.num_pictures:,} pictures with {header.model} of {run}")
    from mhcvse_jax.indexing.index import Index  # here, so that the line above need not wait for JAX

    index = Index.open_for(arguments.index, arguments.workdir, arguments.encoder_weights, engine=arguments.engine)
    faiss = index.header.faiss
    if arguments.engine == "faiss" and faiss:
        _note(
            f"faiss: {faiss.factory}, {faiss.search or 'its own search'}; recall@10 {faiss.recall_at_10:.3f} when made"
        )
    if not arguments.rerank:
        return index, None
    from mhcvse_jax.indexing.reranking import Reranker

    return index, Reranker(arguments.rerank, index.header.source)


def _encode(
    index: "Index", queries: Sequence[Query], *, alone: bool
) -> Iterator[tuple[Query, np.ndarray | InputError]]:
    """Yields each query with its vector <float32>[D], or with why it cannot be used.

    Raises:
      InputError: the only query cannot be used.
    """
    model = index.model
    encoded: dict[int, np.ndarray | InputError] = {}
    texts: dict[int, str] = {}
    for number, (text, image, _) in enumerate(queries):
        try:
            if text is None:
                (encoded[number],) = model.encode_images([str(image)])
            else:
                model.check_query(text)
                texts[number] = text
        except InputError as error:
            if alone:
                raise
            encoded[number] = error
    encoded |= zip(texts, model.encode_texts([*texts.values()]), strict=True)
    for number, query in enumerate(queries):
        yield query, encoded[number]


def _answer(
    arguments: argparse.Namespace, index: "Index", reranker: "Reranker | None", query: Query, vector: np.ndarray
) -> "list[Hit]":
    """Returns the best of the index, best first."""
    from mhcvse_jax.indexing.reranking import TOP_K

    k = arguments.k
    scored = (arguments.rerank_top_k or TOP_K) if reranker else 0
    find = index.search_captions if arguments.find == "captions" else index.search_pictures
    (hits,) = find(vector[None], max(k, scored))
    if reranker and query.text is not None:
        hits = [*reranker.pictures(index, query.text, hits[:scored]), *hits[scored:]]
    elif reranker:
        (regions,) = index.model.read_regions([str(query.image)])
        hits = [*reranker.captions(regions.features, hits[:scored]), *hits[scored:]]
    return hits[:k]


def _show_json(query: Query, hits: "Sequence[Hit]", error: str | None, index: "Index") -> None:
    content: dict[str, Any] = {"query": query.text if query.image is None else str(query.image)}
    if query.text is not None:
        content["unknown_words"] = index.model.unknown_words(query.text)
    if error:
        content["error"] = error
    content["hits"] = [
        {
            "score": round(hit.score, 6),
            "id": hit.picture.id,
            "file": hit.picture.file,
            **({"captions": hit.picture.captions} if hit.caption is None else {"caption": hit.caption}),
        }
        for hit in hits
    ]
    print(json.dumps(content, ensure_ascii=False), flush=True)


def _show(query: Query, hits: "Sequence[Hit]", error: str | None, index: "Index") -> None:
    if error:
        print(f"skipped   {error}\n", flush=True)
        return
    print(query.text if query.image is None else query.image)
    unknown = index.model.unknown_words(query.text or "")
    if unknown:
        print(f"      not in the vocabulary: {', '.join(unknown)}")
    width = shutil.get_terminal_size((120, 24)).columns
    for rank, hit in enumerate(hits, start=1):
        line = f"{rank:>4}  {hit.score:6.3f}  {_name(hit)}"
        captions = hit.picture.captions if hit.caption is None else [hit.caption]
        if captions:
            line += "  " + textwrap.shorten(captions[0], max(width - len(line) - 2, 60), placeholder="...")
        print(line)
    print(flush=True)


def _name(hit: "Hit") -> str:
    """Returns the path of a picture, as short as possible from here; its id if the path is unknown."""
    if hit.picture.file is None:
        return hit.picture.id
    return min(hit.picture.file, os.path.relpath(hit.picture.file), key=len)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
