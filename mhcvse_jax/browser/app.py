"""The server of the page: what a browser may ask of an index, and nothing else.

It stores nothing that it is sent, and serves three things: the files of `page/`, read at the start and known by name;
JSON; and pictures of the index, requested by their place and re-encoded.
"""

import contextlib
import functools
import hashlib
import importlib.resources
import ipaddress
import traceback
import urllib.parse
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mhcvse_jax.browser.explanation import Explainer
from mhcvse_jax.browser.files import MAX_UPLOAD_BYTES, MAX_UPLOAD_PIXELS, PictureFiles, read_upload
from mhcvse_jax.data.lines import MAX_CAPTION
from mhcvse_jax.data.text import SPECIAL_TOKENS
from mhcvse_jax.errors import InputError
from mhcvse_jax.indexing.index import Hit, Index
from mhcvse_jax.indexing.reranking import TOP_K, Reranker

MOST, DEFAULT = 100, 24  # answers to a query
CAPTIONS = 3  # of the index, that are answered to a picture
PAGE = {"": "index.html", **{name: name for name in ("page.css", "common.js", "page.js", "picture.js")}}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer. The page may load from its own server alone, and run no script but its own."""
Answer = dict[str, Any]
Result = TypeVar("Result")


class Site:
    """The answers to a browser about one index."""

    def __init__(self, index: Index, reranker: Reranker | None = None):
        """Takes what is searched, and what re-ranks the results for words."""
        self._index, self._reranker = index, reranker
        self._explainer, self._files = Explainer(index, reranker), PictureFiles(index)
        # One query at a time: each has all cores, so that several at once would only make all of them late.
        self._turn = anyio.CapacityLimiter(1)

    def app(self, host: str) -> ASGIApp:
        """Returns the application of a server that listens at `host`.

        If that is this machine alone, requests under another name are refused: no other website can point a name of its
        own here and read the answers.
        """
        routes = [
            *(Route(f"/{path}", _page_file(name)) for path, name in PAGE.items()),
            Route("/api/index", self._describe),
            Route("/api/search", self._search_picture, methods=["POST"]),
            Route("/api/search", self._search),
            Route("/api/explain", self._explain),
            Route("/thumbnails/{place:int}", functools.partial(self._picture, self._files.thumbnail)),
            Route("/pictures/{place:int}", functools.partial(self._picture, self._files.whole)),
        ]
        names = {host.lower(), "localhost", "127.0.0.1", "::1"} if is_this_machine(host) else None
        refusals = {InputError: _bad_request, HTTPException: _refused, ClientDisconnect: _gone, Exception: _failed}
        return Starlette(routes=routes, middleware=[Middleware(Guard, names=names)], exception_handlers=refusals)

    def warm_up(self) -> None:
        """Compiles what the first queries need, so that none of them waits for it.

        Raises:
          InputError: the index has no pictures, or its model cannot be loaded.
        """
        words = self._index.model.experiment.language.vocabulary.words[len(SPECIAL_TOKENS) :]
        text = next((word for word in words if word.isalpha()), "a")
        self._by_text(text, DEFAULT)
        with contextlib.suppress(InputError):  # features that are gone: said to who asks for them
            self._explained(0, text)

    def _description(self) -> Answer:
        index = self._index
        return {
            "pictures": len(index),
            "captions": index.header.num_captions,
            "model": index.header.model,
            "fingerprint": hashlib.sha256(repr(index.header).encode()).hexdigest()[:12],
            "reranked_by": self._reranker.name if self._reranker else None,
            "takes_pictures": index.model.source is not None,
            "examples": [index.pictures[place].captions[:1] for place in _spread(len(index), 3)],
            "limits": {
                "k": MOST,
                "query_characters": MAX_CAPTION,
                "picture_bytes": MAX_UPLOAD_BYTES,
                "picture_pixels": MAX_UPLOAD_PIXELS,
            },
        }

    def _by_text(self, text: str, k: int) -> Answer:
        model = self._index.model
        model.check_query(text)
        vectors = model.encode_texts([text])
        if self._reranker:
            (first,) = self._index.search_pictures(vectors, TOP_K)
            hits = [self._hit(hit) for hit in self._reranker.pictures(self._index, text, first)[:k]]
        else:
            hits = self._hits(vectors, k)
        return {"query": text, "unknown_words": model.unknown_words(text), "hits": hits}

    def _by_place(self, place: int, k: int) -> Answer:
        hits = self._hits(self._index.vectors([place]), k + 1)
        picture = self._index.pictures[place]
        return {"like": place, "file": _shown_name(picture), "hits": [hit for hit in hits if hit["place"] != place][:k]}

    def _by_picture(self, content: bytes, k: int) -> Answer:
        vectors = self._index.model.encode_images([read_upload(content)])
        captions = self._index.search_captions(vectors, CAPTIONS) if self._index.header.num_captions else [[]]
        return {"captions": [hit.caption for hit in captions[0]], "hits": self._hits(vectors, k)}

    def _hits(self, vectors: np.ndarray, k: int) -> list[Answer]:
        # Always as many: another number would be another compilation.
        scores, places = self._index.search_vectors(vectors, MOST + 1)
        found = zip(scores[0][:k].tolist(), places[0][:k].tolist(), strict=True)
        return [self._hit(Hit(score, place, self._index.pictures[place])) for score, place in found]

    def _hit(self, hit: Hit) -> Answer:
        picture = hit.picture
        return {
            "place": hit.place,
            "score": round(hit.score, 4),
            "id": picture.id,
            "file": _shown_name(picture),
            "size": picture.size,
            "captions": picture.captions,
        }

    def _explained(self, place: int, text: str) -> Answer:
        answer = {"place": place, "file": _shown_name(self._index.pictures[place]), **self._explainer(place, text)}
        if answer["size"] is None:
            with contextlib.suppress(InputError):  # a picture that is gone: there is nothing to show the boxes on
                answer["size"] = self._files.size(place)
        return answer

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(self._description())

    async def _search(self, request: Request) -> Response:
        k = _number(request, "k", 1, MOST, DEFAULT)
        if "like" in request.query_params:
            return await self._answered(self._by_place, _number(request, "like", 0, len(self._index) - 1), k)
        return await self._answered(self._by_text, _text(request), k)

    async def _search_picture(self, request: Request) -> Response:
        k = _number(request, "k", 1, MOST, DEFAULT)
        return await self._answered(self._by_picture, await _body(request), k)

    async def _explain(self, request: Request) -> Response:
        return await self._answered(
            self._explained, _number(request, "picture", 0, len(self._index) - 1), _text(request)
        )

    async def _answered(self, answer: Callable[..., Answer], *arguments: Any) -> Response:
        return JSONResponse(await anyio.to_thread.run_sync(answer, *arguments, limiter=self._turn))

    async def _picture(self, read: Callable[[int], bytes], request: Request) -> Response:
        place = request.path_params["place"]
        if place >= len(self._index):
            raise HTTPException(404, f"there is no picture {place}; expected 0 to {len(self._index) - 1}")
        try:
            content = await anyio.to_thread.run_sync(read, place)
        except InputError as error:
            raise HTTPException(404, str(error)) from error
        # The page names the index's fingerprint in the address: another index has other addresses.
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})


class Guard:
    """Refuses requests by a name that is not ours, and puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, names: Collection[str] | None):
        """Takes the application behind it, and the names of this machine; None: any."""
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self._app
        if scope["type"] == "http" and self._names is not None:
            name = urllib.parse.urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
            if name not in self._names:
                app = JSONResponse({"error": f"this server is not {name}; expected localhost"}, 403)
        await app(scope, receive, guarded)


def is_this_machine(host: str) -> bool:
    """Returns whether only this machine reaches a server at this address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _page_file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = importlib.resources.files("mhcvse_jax.browser").joinpath("page", name).read_bytes()
    media_type = TYPES[name.rpartition(".")[2]]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return answer


def _shown_name(picture: Any) -> str:
    """Returns the name of a picture's file, or its id: no path of this machine."""
    return picture.id if picture.file is None else picture.file.replace("\\", "/").rpartition("/")[2]


def _spread(number: int, parts: int) -> list[int]:
    return [number * part // parts for part in range(parts)]


def _text(request: Request) -> str:
    if "q" not in request.query_params:
        raise InputError("there is no query; expected q=WORDS")
    return request.query_params["q"]


def _number(request: Request, name: str, least: int, most: int, default: int | None = None) -> int:
    text = request.query_params.get(name, default)
    try:
        number = int(text)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        number = None
    if number is None or not least <= number <= most:
        found = "missing" if text is None else str(text)[:20]
        raise InputError(f"{name} is {found}; expected a whole number from {least} to {most}")
    return number


async def _body(request: Request) -> bytes:
    """Returns what was sent, never holding more than `MAX_UPLOAD_BYTES` of it."""
    too_large = HTTPException(413, f"the picture has too many bytes; expected {MAX_UPLOAD_BYTES:,} at most")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > MAX_UPLOAD_BYTES:
        raise too_large
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_UPLOAD_BYTES:
            raise too_large
    if not content:
        raise InputError("there is no picture; expected one as the body of the request")
    return bytes(content)


async def _bad_request(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    plain = {404: "there is nothing here; the page is at /", 405: "only GET is answered here"}
    has_own = error.detail not in ("Not Found", "Method Not Allowed")
    sentence = error.detail if has_own else plain.get(error.status_code, error.detail)
    return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _failed(request: Request, error: Exception) -> Response:
    traceback.print_exception(error)
    return JSONResponse({"error": "the server failed; its terminal says how"}, 500)
