"""The nearest of many vectors: the exact search beside the product alone, NumPy and faiss, in turn.

    python -m benchmarks.search --vectors 100000 --faiss Flat HNSW32 IVF1024,PQ64np
    python -m benchmarks.search --index index --faiss HNSW32 IVF128,PQ64np

Vectors are random, of unit length: the worst case for what is approximate, as no vector has near neighbours. With
`--index` they are the pictures of an index, and its captions ask. The product alone is one of all queries with all
vectors, whose scores nobody reads. NumPy multiplies, takes the k best with `argpartition` and sorts these. An index of
faiss that has lists (IVF) looks into 32 of them.

Figures are medians over the rounds, ratios the median of the rounds' ratios. `built` is what it takes from the file to
the first answer, compiling included. Memory is what the process holds after that more than before, without the pages
of the file; of an index of faiss, which is read whole, the size of its file.
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
from mhcvse_jax.indexing import faiss_engine, store
from mhcvse_jax.indexing.faiss_engine import FaissSearch
from mhcvse_jax.indexing.index import joined
from mhcvse_jax.retrieval.nearest import ExactSearch

K = 10
AT_ONCE = (1, 64)  # queries
RECALL_QUERIES = 256
FAISS_FILE = "index.faiss"

Search = Callable[[np.ndarray], Any]
"""Takes queries <float32>[queries, D]; returns the places <int>[queries, K], or whatever is waited for."""


class Built(NamedTuple):
    """A search that has given its first answer, what that took, and what it holds."""

    search: Search
    seconds: float
    cpu_seconds: float
    megabytes: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints, and writes where asked to, queries a second of each."""
    parser = timing.parser(__doc__ or "", rounds=9)
    parser.add_argument("--vectors", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--index", type=pathlib.Path, help="take the vectors of this index instead of random ones")
    parser.add_argument(
        "--faiss", nargs="*", default=["Flat"], metavar="FACTORY", help="indexes of faiss; Flat is exact"
    )
    parser.add_argument("--directory", type=pathlib.Path, help="of the file of vectors (default: a temporary one)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = pathlib.Path(directory) / "vectors.npy"
        if options.index:
            queries = write_vectors_of(options.index, path)
        else:
            write_vectors(path, options.vectors, options.dim)
            queries = unit(np.random.default_rng(1).standard_normal((RECALL_QUERIES, options.dim), dtype=np.float32))
        timing.save(options.output, measure(path, queries, options))


def write_vectors_of(index: pathlib.Path, path: pathlib.Path) -> np.ndarray:
    """Writes the vectors of an index's pictures, and returns those of some captions, <float32>[queries, D]."""
    header = store.read_header(index)
    parts = [store.read_part(index, header, part) for part in header.parts]
    np.save(path, joined([part.images for part in parts]).astype(np.float32))
    captions = joined([part.captions for part in parts])
    return captions[np.random.default_rng(1).permutation(len(captions))[:RECALL_QUERIES]].astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_vectors(path: pathlib.Path, number: int, dim: int) -> None:
    """Writes random unit vectors, <float32>[number, dim]."""
    rng = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(number, dim))
    for start in range(0, number, 10_000):
        some = rng.standard_normal((min(10_000, number - start), dim), dtype=np.float32)
        vectors[start : start + len(some)] = unit(some)
    vectors.flush()


def measure(path: pathlib.Path, queries: np.ndarray, options: Any) -> list[dict[str, Any]]:
    """Returns a row for each search and each number of queries at once."""
    makers: dict[str, Callable[[], Search]] = {
        "product": lambda: product(path),
        "exact": lambda: exact_search(path),
        "NumPy": lambda: numpy_search(path),
        **{f"faiss {factory}": functools.partial(faiss_search, path, factory) for factory in options.faiss},
    }
    number, dim = np.load(path, mmap_mode="r").shape
    of = "vectors of pictures" if options.index else "unit vectors"
    what = f"{number:,} {of} of {dim}, the {K} nearest"
    print(f"device    {timing.device_name()}; {what}")
    built = {name: build(maker, queries, path) for name, maker in makers.items()}
    nearest = built["exact"].search(queries)
    recall = {name: recall_of(each.search(queries), nearest) for name, each in built.items() if name != "product"}
    rows = []
    for number in AT_ONCE:
        some = queries[:number]
        programs = {name: functools.partial(each.search, some) for name, each in built.items()}
        times = timing.interleave(programs, options.rounds)
        print(
            f"{number} at once, medians of {options.rounds} rounds\n"
            f"  {'':18}{'queries a second':>18}{'ms':>10}{'CPU ms':>10}{'built in CPU s':>16}{'MB':>8}  recall@{K}"
        )
        for name, each in built.items():
            seconds, cpu = times[name].median, float(np.median(times[name].cpu_seconds))
            print(
                f"  {name:18}{number / seconds:18,.1f}{1e3 * seconds:10,.2f}{1e3 * cpu:10,.2f}"
                f"{each.cpu_seconds:16,.2f}{each.megabytes:8,.0f}  {recall.get(name, 1):.3f}"
            )
            if name == "exact":
                continue
            rows.append(row(f"search: {what}, {number} at once, exact against {name}", number, built, times, name))
            if name != "product":
                rows[-1]["recall_at_10"] = round(recall[name], 4)
        by_clock = 1 / timing.ratio(times["product"], times["exact"])
        by_cpu = 1 / timing.cpu_ratio(times["product"], times["exact"])
        print(f"  exact takes {by_clock:.2f} times what the product alone takes, {by_cpu:.2f} times its CPU time")
    return rows


def row(
    measure: str, number: int, built: Mapping[str, Built], times: Mapping[str, timing.Timing], name: str
) -> dict[str, Any]:
    """Returns the row of the exact search beside another; on a CPU by CPU time, which a busy machine distorts less."""
    ours, theirs = times["exact"], times[name]
    ratios = timing.cpu_ratio(theirs, ours), timing.ratio(theirs, ours)
    is_cpu = jax.default_backend() == "cpu"
    unit, kind = ("CPU ms", "cpu_seconds") if is_cpu else ("ms", "seconds")
    sides = (("ours", "exact"), ("theirs", name))
    return timing.row(
        measure,
        ours=1e3 * float(np.median(getattr(ours, kind))),
        theirs=1e3 * float(np.median(getattr(theirs, kind))),
        ratio=ratios[0] if is_cpu else ratios[1],
        unit=unit,
        spread=f"{theirs.spread} by the clock",
        ratio_by_the_clock=round(ratios[1], 3),
        **{f"{side}_queries_a_second": round(number / times[which].median, 1) for side, which in sides},
        **{f"{side}_built_seconds": round(built[which].seconds, 3) for side, which in sides},
        **{f"{side}_built_cpu_seconds": round(built[which].cpu_seconds, 3) for side, which in sides},
        **{f"{side}_megabytes": round(built[which].megabytes) for side, which in sides},
    )


def build(maker: Callable[[], Search], queries: np.ndarray, path: pathlib.Path) -> Built:
    """Returns a search after its first answers, to one query and to all."""
    before, started = held(), (time.monotonic(), time.process_time())
    search = maker()
    for number in AT_ONCE:
        jax.block_until_ready(search(queries[:number]))
    seconds, cpu_seconds = time.monotonic() - started[0], time.process_time() - started[1]
    file = path.with_name(FAISS_FILE)
    size = held() - before
    if file.exists():
        size = file.stat().st_size
        file.unlink()
    return Built(search, seconds, cpu_seconds, size / 1e6)


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
    vectors, file = np.load(path, mmap_mode="r"), path.with_name(FAISS_FILE)
    parameters = faiss_engine.SEARCH if factory.startswith("HNSW") else "nprobe=32" if "IVF" in factory else ""
    faiss_engine.build(file, vectors, factory, parameters)
    search = FaissSearch(file, parameters, *vectors.shape)
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
