"""Approximate search by faiss (Douze et al., arXiv:2401.08281), for too many vectors to compare one by one."""

import contextlib
import importlib
import importlib.util
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.retrieval.nearest import Nearest

FACTORY, SEARCH = "HNSW32", "efSearch=128"
"""The default index, and how it is searched: a graph over uncompressed vectors."""
LEARNED_FROM = 200_000  # vectors at most
ADDED_AT_ONCE = 50_000


class FaissSearch:
    """An index of faiss, with the interface of `ExactSearch`."""

    def __init__(self, path: pathlib.Path, search: str, number: int, width: int):
        """Reads the file of an index.

        Raises:
          InputError: faiss is not installed, or the file is damaged or holds other vectors.
        """
        faiss = _faiss()
        try:
            self._index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).splitlines()[0].split(": ", 1)[-1]
            raise InputError(f"{path}: not a whole index of faiss ({reason})") from error
        if (self._index.ntotal, self._index.d) != (number, width):
            raise InputError(
                f"{path} has {self._index.ntotal:,} vectors of {self._index.d}; expected {number:,} of {width}"
            )
        _set(faiss, self._index, search)

    def __call__(self, queries: np.ndarray, k: int) -> Nearest:
        """Returns what faiss finds as the k nearest of each query; the place is -1 if it finds fewer."""
        scores, places = self._index.search(np.ascontiguousarray(queries, np.float32), min(k, self._index.ntotal))
        order = np.lexsort((places, -scores))  # of equal scores the lower place is first
        return Nearest(np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1))


def build(path: pathlib.Path, vectors: np.ndarray, factory: str, search: str) -> None:
    """Writes an index of vectors, <float32 or float16>[vectors, D].

    Args:
      path: where to write it.
      vectors: unit vectors.
      factory: what faiss calls the index: "HNSW32", "IVF1024,PQ64np" for example.
      search: the parameters of the search: "efSearch=128", "nprobe=32" for example; "" for faiss's own.

    Raises:
      InputError: faiss is not installed, or cannot make such an index of these vectors.
    """
    faiss = _faiss()
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        _set(faiss, index, search)
        if not index.is_trained:
            chosen = np.random.default_rng(0).permutation(len(vectors))[:LEARNED_FROM]
            with _silent():
                index.train(np.asarray(vectors[np.sort(chosen)], np.float32))
        for start in range(0, len(vectors), ADDED_AT_ONCE):
            index.add(np.ascontiguousarray(vectors[start : start + ADDED_AT_ONCE], np.float32))
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split(": ", 1)[-1]
        raise InputError(f"faiss cannot make {factory} of {len(vectors):,} vectors: {reason}") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps faiss from warning about few vectors, one line for each part of a vector: the recall shows the effect."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _set(faiss: Any, index: Any, search: str) -> None:
    if search:
        try:
            faiss.ParameterSpace().set_index_parameters(index, search)
        except RuntimeError as error:
            raise InputError(f"faiss knows no {search!r} of this index; expected efSearch=128 or the like") from error


def _faiss() -> Any:
    if importlib.util.find_spec("faiss") is None:
        raise InputError("--engine faiss: faiss is not installed; expected pip install 'mhcvse_jax[faiss]'")
    with warnings.catch_warnings(action="ignore"):  # of SWIG, about itself
        return importlib.import_module("faiss")
