"""The answers: their headers, and a body that is read in worker threads.

What visitors upload is hostile: no answer lets a browser run it, sniff another type out of it, keep
it in a shared cache or show it inside another site.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from sessionstore.content import CHUNK
from sessionstore.disposition import INLINE, disposition
from sessionstore.errors import BackendUnavailable
from sessionstore.media import UNKNOWN

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from sessionstore.adapters.asgi_ranges import Span
    from sessionstore.storedfile import StoredFile

PIECE: Final = CHUNK // 4
"""Bytes that are read and sent at a time."""

SAFE: Final[Mapping[str, str]] = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the URL is what lets its reader in
    "X-Content-Type-Options": "nosniff",
}
"""On every answer, whatever it says."""


def not_found() -> Response:
    """The one answer for what is missing, foreign, malformed, expired or gone."""
    return Response("Not Found", 404, SAFE, "text/plain")


def refused(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says nothing of any file."""
    return Response(why, status, {**SAFE, **(headers or {})}, "text/plain")


def as_json(status: int, value: object) -> Response:
    """An answer to a program."""
    return JSONResponse(value, status, SAFE)


def etag_of(file: StoredFile) -> str:
    """A strong validator: equal for equal bytes and for no others."""
    return f'"{file.digest}"'


def headers_of(file: StoredFile) -> dict[str, str]:
    """What every answer about a file says of it.

    Only types on our own list are shown, in the type that the name stands for. All others are
    saved, as bytes of no type.
    """
    kind = file.media_type
    shown = kind in INLINE
    headers = {
        **SAFE,
        "Accept-Ranges": "bytes",
        "Content-Disposition": disposition(file.name, kind),
        "Content-Type": _with_charset(kind) if shown else UNKNOWN,
        "ETag": etag_of(file),
    }
    return headers if shown else {**headers, "X-Frame-Options": "DENY"}


def head(file: StoredFile) -> Response:
    """The answer to a HEAD: a GET's, without the bytes."""
    return Response(None, 200, {**headers_of(file), "Content-Length": str(file.size)})


def not_modified(file: StoredFile) -> Response:
    """The client has these bytes."""
    return Response(None, 304, headers_of(file))


def unsatisfiable(file: StoredFile) -> Response:
    """The range has no byte of the file."""
    return refused(416, "Range Not Satisfiable", {"Content-Range": f"bytes */{file.size}"})


class Body:
    """Bytes of a stored file, on their way to a client.

    ``open`` is to be called in a worker thread: what makes reading impossible is raised there,
    while another answer can still be given.
    """

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self.stream = stream
        self.length = length
        self.first = b""

    @classmethod
    def open(cls, file: StoredFile, span: Span) -> Body:
        """The bytes of ``span``, the first of them read. Raises as ``StoredFile.read``."""
        whole = span.length == file.size
        body = cls(file.stream(span.start, None if whole else span.length), span.length)
        try:
            body.first = body.read(span.length)
        except BaseException:
            body.stream.close()
            raise
        return body

    def read(self, left: int) -> bytes:
        """The next bytes of those left. Raises BackendUnavailable when there are none."""
        piece = self.stream.read(min(PIECE, left)) if left else b""
        if left and not piece:
            raise BackendUnavailable("A stored file ended before its length: read it again.")
        return piece

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of them, each but the first read in a worker thread."""
        piece, left = self.first, self.length
        while left:
            yield piece
            left -= len(piece)
            piece = await run_in_threadpool(self.read, left)

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):  # a client that left is no reason to leak the stream
            await run_in_threadpool(self.stream.close)


class FileResponse(StreamingResponse):
    """A file, or a part of it.

    An error after the first bytes can only break the connection off, which the client sees: the
    length was announced.
    """

    def __init__(self, file: StoredFile, span: Span | None, body: Body) -> None:
        """``span`` is what was asked for, None for the whole file.

        A range that is the whole file is a 206 all the same: players look for that to seek.
        """
        headers = {**headers_of(file), "Content-Length": str(body.length)}
        if span is not None:
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.size}"
        super().__init__(body.pieces(), 200 if span is None else 206, headers)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._body.close()


def _with_charset(media_type: str) -> str:
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
