"""How fast `mhcvse serve` answers: queries one after another, and from many clients at once.

    python -m benchmarks.serve runs/f8k/index

The server is a process of its own, as a user starts it. Queries are captions of the index, no two alike; a time is from
the request to the last byte of the answer of 24 pictures. An index with fewer pictures than asked for has its parts
repeated, in a copy that is deleted afterwards.
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks import timing
from mhcvse_jax.evaluation.provenance import device_name, git_revision, versions
from mhcvse_jax.indexing.index import Index

SOON = 0.05  # seconds


@contextlib.contextmanager
def grown(directory: pathlib.Path, pictures: int) -> Iterator[pathlib.Path]:
    """Context with an index of this many pictures or more: the given one, its parts repeated as often as it takes."""
    with tempfile.TemporaryDirectory() as name:
        copy = pathlib.Path(name)
        for path in directory.resolve().iterdir():
            (copy / path.name).symlink_to(path)
        content = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        parts, found = [], 0
        for part in itertools.cycle(content["parts"]):
            if found >= pictures and len(parts) >= len(content["parts"]):
                break
            parts.append(part)
            found += part["pictures"]
        (copy / "index.json").unlink()
        (copy / "index.json").write_text(json.dumps(content | {"parts": parts}), encoding="utf-8")
        yield copy


@contextlib.contextmanager
def server(directory: pathlib.Path) -> Iterator[int]:
    """Context with the port of a server of this index."""
    command = [sys.executable, "-m", "mhcvse_jax.serve", str(directory), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("serving"))
        try:
            yield int(line.split()[1].rpartition(":")[2])
        finally:
            process.send_signal(signal.SIGINT)


def ask(port: int, text: str) -> float:
    """Returns the seconds that a query took."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/api/search?" + urllib.parse.urlencode({"q": text}))
        answer = connection.getresponse()
        content = json.loads(answer.read())
    if answer.status != 200 or not content["hits"]:
        raise RuntimeError(f"{text!r}: {answer.status} {content}")
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser(__doc__ or "", rounds=200)
    parser.add_argument("index", type=pathlib.Path, metavar="INDEX", help="what `mhcvse index` made, with captions")
    parser.add_argument("--pictures", type=int, default=10_000, help="that the index is to have")
    parser.add_argument("--clients", type=int, default=50, help="that ask at once")
    options = parser.parse_args(arguments)
    with grown(options.index, options.pictures) as directory:
        index = Index.open(directory)
        chosen = random.Random(0).sample(range(len(index)), min(len(index), 4 * options.rounds))
        texts = [*{index.pictures[place].captions[0] for place in chosen}]
        with server(directory) as port:
            for text in texts[:20]:
                ask(port, text)  # every caption length is compiled
            alone = np.array([ask(port, text) for text in texts[20 : 20 + options.rounds]])
            start = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(options.clients) as clients:
                together = np.array([*clients.map(lambda text: ask(port, text), texts[20 + options.rounds :])])
            rate = len(together) / (time.perf_counter() - start)
    for name, seconds in (("one client", alone), (f"{options.clients} clients", together)):
        quick, usual, slow = 1e3 * np.quantile(seconds, [0.05, 0.5, 0.95])
        print(f"{name:11} {len(seconds):,} queries, none failed: median {usual:.0f} ms ({quick:.0f} to {slow:.0f})")
    print(
        f"{options.clients} clients are answered {rate:.0f} queries/s; {len(index):,} pictures of {index.header.width}"
    )
    row = {
        "measure": f"a query of {len(index):,} pictures of {index.header.width}, from request to answer",
        "one_client_ms": np.round(1e3 * np.quantile(alone, [0.05, 0.5, 0.95]), 1).tolist(),
        "share_under_50_ms": float(np.mean(alone < SOON)),
        "clients": options.clients,
        "clients_ms": np.round(1e3 * np.quantile(together, [0.05, 0.5, 0.95]), 1).tolist(),
        "queries_a_second": round(rate, 1),
        "device": device_name(),
        "versions": versions(),
        "commit": git_revision(),
    }
    timing.save(options.output, [row])


if __name__ == "__main__":
    main()
