"""The responses: their headers, the requested range, and a body that is read in worker threads.

Uploads of visitors are hostile: no response lets a browser run one, guess another type for it, keep
it in a shared cache or show it inside another site.

One range is served (RFC 9110). A request for several gets the whole file, which section 14.2
allows: requests with thousands of ranges have been used to overload servers.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import BinaryIO, Final, NamedTuple, Protocol

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sessionstore.content import CHUNK
from sessionstore.errors import BackendUnavailable
from sessionstore.media import INLINE, UNKNOWN, disposition
from sessionstore.storedfile import StoredFile

PIECE: Final = CHUNK // 4  # the number of bytes that are read and sent at a time

SAFE: Final[Mapping[str, str]] = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the URL gives access to the file
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every response."""

LONGEST: Final = 256  # the most characters of a Range header; a longer one is ignored

_one_range = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*").fullmatch
_tags = re.compile(r'(?:W/)?("[^"]*")').findall


class Span(NamedTuple):
    """Bytes of a file, from ``start`` up to but not including ``stop``."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Unsatisfiable(Exception):
    """The range has no byte of the file."""


def wanted(headers: Mapping[str, str], etag: str, size: int) -> Span | None:
    """Return the range that a GET requests, None for the whole file.

    Raises Unsatisfiable, also for a range whose end is before its start; section 14.2 leaves that
    case open.
    """
    written = headers.get("range", "")
    if not 0 < len(written) <= LONGEST or headers.get("if-range", etag) != etag:
        return None
    match = _one_range(written)
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start, stop = int(match[1]), min(int(match[2] or size) + 1, size)
    else:
        start, stop = max(size - int(match[2]), 0), size
    if start >= stop:
        raise Unsatisfiable
    return Span(start, stop)


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Return whether the client has these bytes by If-None-Match (a weak comparison)."""
    written = headers.get("if-none-match", "")
    return written.strip() == "*" or etag in _tags(written)


def not_found() -> Response:
    """Return the 404 for a file that is missing, deleted, expired or another visitor's."""
    return Response("Not Found", 404, SAFE, "text/plain")


def refused(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error response with no information about any file."""
    return Response(why, status, {**SAFE, **(headers or {})}, "text/plain")


def as_json(status: int, value: object) -> Response:
    """Return a JSON response."""
    return JSONResponse(value, status, SAFE)


def etag_of(file: StoredFile) -> str:
    """Return a strong validator: equal only for equal bytes."""
    return f'"{file.digest}"'


def headers_of(file: StoredFile) -> dict[str, str]:
    """Return the headers that describe a file in every response about it.

    Browsers show only the types of ``INLINE``; the type is that of the file's name. They save all
    others, as bytes without a type.
    """
    kind = file.media_type
    shown = kind in INLINE
    headers = {
        **SAFE,
        "Accept-Ranges": "bytes",
        "Content-Disposition": disposition(file.name, kind),
        "Content-Type": kind if shown else UNKNOWN,
        "ETag": etag_of(file),
    }
    if not shown:
        headers["X-Frame-Options"] = "DENY"
    elif kind.startswith("text/"):
        headers["Content-Type"] += "; charset=utf-8"
    return headers


class Body:
    """Bytes of a stored file for a client.

    Make it in a worker thread. It reads the first bytes, so an error is raised while another
    response can still be sent.
    """

    def __init__(self, file: StoredFile, span: Span) -> None:
        """Open the bytes of ``span`` and read the first ones. Raises as ``StoredFile.read``."""
        self.length: int = span.length
        whole = span.length == file.size
        self.stream: BinaryIO = file.stream(span.start, None if whole else span.length)
        try:
            self.first: bytes = self.read(span.length)
        except BaseException:
            self.stream.close()
            raise

    def read(self, left: int) -> bytes:
        """Read the next bytes of ``left``. Raises BackendUnavailable when the file ends early."""
        piece = self.stream.read(min(PIECE, left)) if left else b""
        if left and not piece:
            raise BackendUnavailable("A stored file ended before its length: read it again.")
        return piece

    async def pieces(self) -> AsyncIterator[bytes]:
        piece, left = self.first, self.length
        while left:
            yield piece
            left -= len(piece)
            piece = await run_in_threadpool(self.read, left)

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):  # close it also when the client has left
            await run_in_threadpool(self.stream.close)


class Pieces(Protocol):
    """The bytes of a response; the first ones are there."""

    def pieces(self) -> AsyncIterator[bytes]: ...
    async def close(self) -> None: ...


class BodyResponse(StreamingResponse):
    """A response with bytes of a stored file.

    An error after the first bytes can only break the connection. The client notices it, since the
    response has a Content-Length.
    """

    def __init__(self, body: Pieces, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(body.pieces(), status, headers)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._body.close()


class FileResponse(BodyResponse):
    """A file, or a part of it."""

    def __init__(self, file: StoredFile, span: Span | None, body: Body) -> None:
        """Make the response. ``span`` is the requested range, None for the whole file.

        A range that covers the whole file still gets a 206: players need that to seek.
        """
        headers = {**headers_of(file), "Content-Length": str(body.length)}
        if span is not None:
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.size}"
        super().__init__(body, 200 if span is None else 206, headers)
