"""The nearest of many vectors: the exact search beside the product alone, NumPy and faiss, in turn.

    python -m benchmarks.search --vectors 100000 --faiss Flat HNSW32

Vectors are random, of unit length: the worst case for what is approximate, as no vector has near neighbours. The
product alone is one of all queries with all vectors, whose scores nobody reads. NumPy multiplies, takes the k best
with `argpartition` and sorts these. `built` is what it takes from the file to the first answer, compiling included;
memory is what the process holds after that more than before, without the pages of the file.
"""

import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from mhcvse_jax.devices.mesh import by_batch, make_mesh
from mhcvse_jax.indexing import faiss_engine
from mhcvse_jax.indexing.faiss_engine import FaissSearch
from mhcvse_jax.retrieval.nearest import ExactSearch

K = 10
AT_ONCE = (1, 64)  # queries

Search = Callable[[np.ndarray], Any]
"""Takes queries <float32>[queries, D]; returns the places <int>[queries, K], or whatever is waited for."""


class Built(NamedTuple):
    """A search that has given its first answer, what that took, and what it holds."""

    search: Search
    seconds: float
    megabytes: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints, and writes where asked to, queries a second of each."""
    parser = timing.parser(__doc__ or "", rounds=9)
    parser.add_argument("--vectors", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument(
        "--faiss", nargs="*", default=["Flat"], metavar="FACTORY", help="indexes of faiss; Flat is exact"
    )
    parser.add_argument("--directory", type=pathlib.Path, help="of the file of vectors (default: a temporary one)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = pathlib.Path(directory) / "vectors.npy"
        write_vectors(path, options.vectors, options.dim)
        timing.save(options.output, measure(path, options))


def write_vectors(path: pathlib.Path, number: int, dim: int) -> None:
    """Writes random unit vectors, <float32>[number, dim]."""
    rng = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(number, dim))
    for start in range(0, number, 10_000):
        some = rng.standard_normal((min(10_000, number - start), dim), dtype=np.float32)
        vectors[start : start + len(some)] = some / np.linalg.norm(some, axis=1, keepdims=True)
    vectors.flush()


def measure(path: pathlib.Path, options: Any) -> list[dict[str, Any]]:
    """Returns a row for each number of queries at once."""
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((max(AT_ONCE), options.dim), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    makers: dict[str, Callable[[], Search]] = {
        "product": lambda: product(path),
        "exact": lambda: exact_search(path),
        "NumPy": lambda: numpy_search(path),
        **{f"faiss {factory}": functools.partial(faiss_search, path, factory) for factory in options.faiss},
    }
    what = f"{options.vectors:,} unit vectors of {options.dim}, the {K} nearest"
    print(f"device    {timing.device_name()}; {what}")
    built = {name: build(maker, queries) for name, maker in makers.items()}
    nearest = built["exact"].search(queries)
    rows = []
    for number in AT_ONCE:
        some = queries[:number]
        programs = {name: functools.partial(each.search, some) for name, each in built.items()}
        times = timing.interleave(programs, options.rounds)
        print(f"{number} at once, fastest of {options.rounds} rounds: queries a second, ms, ms of all threads together")
        for name, each in built.items():
            found = each.search(queries)
            recall = "" if name == "product" else f"  recall@{K} {recall_of(found, nearest):.3f}"
            best, cpu = times[name].seconds.min(), times[name].cpu_seconds.min()
            shown = f"{number / best:10,.1f}  {1e3 * best:10,.2f}  {1e3 * cpu:10,.2f}"
            print(f"  {name:16} {shown}  built in {each.seconds:7.2f} s  {each.megabytes:8,.0f} MB{recall}")
            if name == "exact":
                continue
            rows.append(row(f"search: {what}, {number} at once, exact against {name}", number, built, times, name))
            if name != "product":
                rows[-1]["recall_at_10"] = round(recall_of(found, nearest), 4)
        exact, alone = times["exact"], times["product"]
        ratio, cpu = exact.seconds.min() / alone.seconds.min(), exact.cpu_seconds.min() / alone.cpu_seconds.min()
        print(f"  exact takes {ratio:.2f} times what the product alone takes, {cpu:.2f} times its CPU time")
    return rows


def row(
    measure: str, number: int, built: Mapping[str, Built], times: Mapping[str, timing.Timing], name: str
) -> dict[str, Any]:
    """Returns the row of the exact search beside another; on a CPU by CPU time, which a busy machine distorts less."""
    unit, kind = ("CPU ms", "cpu_seconds") if jax.default_backend() == "cpu" else ("ms", "seconds")
    ours, theirs = (getattr(times[which], kind).min() for which in ("exact", name))
    sides = (("ours", "exact"), ("theirs", name))
    return timing.row(
        measure,
        ours=1e3 * ours,
        theirs=1e3 * theirs,
        ratio=theirs / ours,
        unit=unit,
        spread=f"{times[name].spread} by the clock",
        **{f"{side}_queries_a_second": round(number / times[which].seconds.min(), 1) for side, which in sides},
        **{f"{side}_built_seconds": round(built[which].seconds, 3) for side, which in sides},
        **{f"{side}_megabytes": round(built[which].megabytes) for side, which in sides},
    )


def build(maker: Callable[[], Search], queries: np.ndarray) -> Built:
    """Returns a search after its first answers, to one query and to all."""
    before, started = held(), time.monotonic()
    search = maker()
    for number in AT_ONCE:
        jax.block_until_ready(search(queries[:number]))
    return Built(search, time.monotonic() - started, (held() - before) / 1e6)


def product(path: pathlib.Path) -> Search:
    """Returns the product of queries with all vectors, and nothing else."""
    vectors = jax.device_put(np.load(path, mmap_mode="r"), by_batch(make_mesh()))
    multiply = jax.jit(lambda queries, vectors: jnp.matmul(queries, vectors.T, precision=jax.lax.Precision.HIGHEST))
    return lambda queries: multiply(queries, vectors)


def exact_search(path: pathlib.Path) -> Search:
    """Returns the program's own search."""
    search = ExactSearch(np.load(path, mmap_mode="r"), make_mesh())
    return lambda queries: search(queries, K).places


def numpy_search(path: pathlib.Path) -> Search:
    """Returns a search by NumPy."""
    vectors = np.load(path, mmap_mode="r")

    def search(queries: np.ndarray) -> np.ndarray:
        scores = queries @ vectors.T
        best = np.argpartition(scores, -K, axis=1)[:, -K:]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1), axis=1)

    return search


def faiss_search(path: pathlib.Path, factory: str) -> Search:
    """Returns a search by an index of faiss, made and read again."""
    vectors, file = np.load(path, mmap_mode="r"), path.with_name("index.faiss")
    parameters = faiss_engine.SEARCH if factory.startswith("HNSW") else "nprobe=32" if "IVF" in factory else ""
    faiss_engine.build(file, vectors, factory, parameters)
    search = FaissSearch(file, parameters, *vectors.shape)
    file.unlink()
    return lambda queries: search(queries, K).places


def recall_of(found: np.ndarray, nearest: np.ndarray) -> float:
    """Returns the share of the nearest that are among those found."""
    return float(np.mean([np.isin(*rows).mean() for rows in zip(nearest, found, strict=True)]))


def held() -> int:
    """Returns the bytes of this process's memory that are of no file."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1000 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
