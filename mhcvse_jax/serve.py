"""Shows an index in the browser: search by words or by a picture, and see what matched and why.

    mhcvse index --workdir runs/demo --out runs/demo/index
    mhcvse serve runs/demo/index

Then open http://localhost:8000. Ctrl-C stops it. No request leaves this machine, and other machines get no answer
unless --host allows it. docs/serve.md describes the JSON interface and what is safe.
"""

import argparse
import contextlib
import errno
import os
import pathlib
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mhcvse_jax.errors import InputError
from mhcvse_jax.run import command_line

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

REQUEST_LINE_BYTES = 1 << 21  # so that a query of a million characters is refused in words, not by a closed line


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.serve") -> int:
    """Returns the exit code: 0 stopped by Ctrl-C, 2 bad input."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    add = parser.add_argument
    add("index", type=path, metavar="INDEX", help="a directory that `mhcvse index` made")
    add("--port", type=_port, default=8000, help="0 picks a free port (default %(default)s)")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default %(default)s: only this machine)",
    )
    add(
        "--rerank",
        type=path,
        metavar="RUN",
        help="a run whose model scores pairs: it reorders results, and its attention is shown",
    )
    add("--workdir", type=path, metavar="RUN", help="the run that made the index, if it has moved")
    add(
        "--encoder_weights",
        type=path,
        metavar="FILE",
        help="weights of the picture encoder, if no package provides them",
    )
    arguments = command_line.parse(parser, argv)
    return command_line.run(lambda: serve(arguments))


def serve(arguments: argparse.Namespace) -> None:
    """Answers until Ctrl-C.

    Raises:
      InputError: the index or its model cannot be read, or the address cannot be used.
    """
    listener = _listen(arguments.host, arguments.port)
    with listener:
        print(f"reading   {arguments.index}", flush=True)
        import uvicorn  # here, as JAX, so that the line above need not wait for them

        from mhcvse_jax.browser.app import Site, is_this_machine
        from mhcvse_jax.indexing.index import Index
        from mhcvse_jax.indexing.reranking import Reranker

        index = Index.open_for(arguments.index, arguments.workdir, arguments.encoder_weights)
        reranker = Reranker(arguments.rerank, index.header.source) if arguments.rerank else None
        site = Site(index, reranker)
        print(f"index     {len(index):,} pictures; compiling", flush=True)
        site.warm_up()
        host, port = arguments.host, listener.getsockname()[1]
        if not is_this_machine(host):
            print(
                f"warning: everyone who reaches {host}:{port} can search and see these pictures; there is no password",
                file=sys.stderr,
                flush=True,
            )
        name = "localhost" if host == "127.0.0.1" else f"[{host}]" if ":" in host else host
        print(f"serving   http://{name}:{port}    (Ctrl-C stops)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands the signal on when it has stopped
            uvicorn.Server(settings(site.app(host))).run(sockets=[listener])
    print("stopped", flush=True)
    os._exit(0)  # neither a query that nobody waits for any more nor JAX, which takes its time to end, is waited for


def settings(app: "ASGIApp") -> "uvicorn.Config":
    """Returns how the server answers: as little as is needed, and no longer than it is wanted."""
    import uvicorn

    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,  # its own resets the logging of the whole process, and absl then closes the stream it wrote to
        log_level="critical",  # a query that Ctrl-C cuts short is no error, and what is one the application prints
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=REQUEST_LINE_BYTES,
    )


def _port(text: str) -> int:
    port = command_line.whole_number(text)
    if not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError(f"{port}; expected 0 to {(1 << 16) - 1}")
    return port


def _listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens, before anything slow is done."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except socket.gaierror as error:
        raise InputError(f"--host {host}: no such address; expected one of this machine") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"--port {port} is in use; expected a free one: --port {port + 1}, or 0 for any"
            ) from error
        reason = os.strerror(error.errno or 0)
        raise InputError(f"--host {host} --port {port}: {reason}; expected an address of this machine") from error


if __name__ == "__main__":
    sys.exit(main())
