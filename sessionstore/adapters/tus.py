"""The server side of tus 1.0.0, the protocol of uploads that resume (https://tus.io).

With its extensions creation, creation-with-upload, expiration, checksum and termination. What is
kept is an ``Upload`` of the store, so any replica answers any request.

An adapter calls ``answer`` with the visitor's session and the part of the path after its own. The
address of an upload is of use to its own session alone: for any other it is the 404 of nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sessionstore.adapters.visitor_errors import reply_to
from sessionstore.content import CHUNK
from sessionstore.errors import FileNotStored, LimitExceeded, SessionStoreError
from sessionstore.names import fresh_name
from sessionstore.uploads import PIECE, continued

if TYPE_CHECKING:
    from sessionstore.session import Session
    from sessionstore.storedfile import Copying, StoredFile
    from sessionstore.upload_writer import UploadWriter
    from sessionstore.uploads import Upload

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,expiration,checksum,termination"
CHECKSUMS: Final = ("sha1", "sha256", "md5")
BODY: Final = "application/offset+octet-stream"
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST")

_BUFFERED: Final = CHUNK  # bytes that are handed to a worker thread at a time
_WHOLE: Final = 1 << 62  # the piece of a body with a checksum: it is kept only when it is complete
_DIGITS: Final = 18  # the most in a number of bytes
_MISMATCH: Final = 460  # Checksum Mismatch, a status of tus alone

log: Final = logging.getLogger("sessionstore")


@dataclass(frozen=True, slots=True)
class Place:
    """Where uploads go: the visitor's session, None if this visitor may not upload.

    ``describe`` returns the JSON about a finished file. ``most`` bytes may have a file. ``named``
    returns the file's name in the session for that of the client, and ``ttl`` is its time to live.
    ``copying`` is ``Upload.copying``.
    """

    session: Session | None
    describe: Callable[[StoredFile], Any]
    most: int | None = None
    named: Callable[[str], str] = lambda name: name or fresh_name()
    ttl: timedelta | None = None
    copying: Copying | None = None

    def finish(self, upload: Upload) -> StoredFile:
        upload.copying = self.copying
        return upload.finish()


class _Refused(Exception):
    """The request cannot be answered as the client wants it."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.response = _error(status, why, None, headers)


async def answer(request: Request, place: Place, id: str) -> Response:  # noqa: A002 - the field's name
    """Return the response to a request for the upload ``id``, empty for the creation of one."""
    try:
        return await _answered(request, place, id)
    except _Refused as refused:
        return refused.response
    except FileNotStored:
        return _gone()
    except ClientDisconnect:
        return _error(400, "The client left.")  # it is never read
    except SessionStoreError as error:
        status, words = reply_to(error)
        if status >= 500:  # noqa: PLR2004 - HTTP's server errors begin here
            log.warning("An upload could not be saved: %s", error)
        return _error(status, words, error.limit if isinstance(error, LimitExceeded) else None)


async def _answered(request: Request, place: Place, id: str) -> Response:  # noqa: A002 - as above
    method = request.headers.get("x-http-method-override", request.method).upper()
    if method == "OPTIONS":
        return _options(place)
    if request.headers.get("tus-resumable") != VERSION and method != "GET":
        raise _Refused(412, f"Send Tus-Resumable: {VERSION}.", {"Tus-Version": VERSION})
    if method != "POST" if not id else method not in {"PATCH", *_OF_AN_UPLOAD}:
        raise _Refused(405, "Method Not Allowed", {"Allow": ", ".join(METHODS)})
    if not id:
        return await _create(request, place)
    if place.session is None:
        return _gone()
    if method == "PATCH":
        offset = _number(request, "upload-offset")
        known = await run_in_threadpool(continued, place.session, id, offset)
        return await _append(request, known, place, offset)
    upload = await run_in_threadpool(place.session.upload, id)
    return await run_in_threadpool(_OF_AN_UPLOAD[method], upload, place)


def _response(status: int, headers: Mapping[str, str]) -> Response:
    return Response(
        None, status, {"Cache-Control": "no-store", "Tus-Resumable": VERSION, **headers}
    )


def _error(
    status: int, why: str, limit: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    told = {"Cache-Control": "no-store", "Tus-Resumable": VERSION, **(headers or {})}
    return JSONResponse({"error": why, "limit": limit}, status, told)


def _gone() -> Response:
    return _error(404, "There is no such upload.")


def _options(place: Place) -> Response:
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
    }
    if place.most is not None:
        headers["Tus-Max-Size"] = str(place.most)
    return _response(204, headers)


async def _create(request: Request, place: Place) -> Response:
    if place.session is None:
        raise _Refused(403, "This visitor may not upload.")
    size = _number(request, "upload-length")
    if place.most is not None and size > place.most:
        why = f"The file has {size} bytes, more than {place.most}: send a smaller one."
        return _error(413, why, "max_file")
    written = request.headers.get("upload-metadata", "")
    name, begin = place.named(_name_in(written)), place.session.begin_upload
    upload = await run_in_threadpool(partial(begin, name, size, metadata=written, ttl=place.ttl))
    here = request.url.path.rstrip("/")
    headers = {"Location": f"{here}/{upload.id}", "Upload-Expires": _expires(upload)}
    if request.headers.get("content-type") == BODY:
        await _take(request, upload, place, 0)
        headers["Upload-Offset"] = str(upload.offset)
    elif not size:
        await run_in_threadpool(place.finish, upload)
    return _response(201, headers)


async def _append(request: Request, upload: Upload, place: Place, offset: int) -> Response:
    if request.headers.get("content-type") != BODY:
        raise _Refused(415, f"Send the bytes with Content-Type: {BODY}.")
    await _take(request, upload, place, offset)
    return _response(204, {"Upload-Offset": str(upload.offset), "Upload-Expires": _expires(upload)})


async def _take(request: Request, upload: Upload, place: Place, offset: int) -> None:
    """Keep the body of a request, and finish the upload if it is complete."""
    length = request.headers.get("content-length", "")
    if upload.size is not None and length.isdecimal() and offset + int(length) > upload.size:
        raise _Refused(413, f"The body is longer than the {upload.size} bytes of the upload.")
    checksum = _Checksum.of(request)
    most = PIECE if checksum is None else _WHOLE
    writer = await run_in_threadpool(upload.writing, offset, most)
    buffer, size = memoryview(bytearray(_BUFFERED)), 0
    try:
        async for chunk in request.stream():
            left = chunk
            while left:
                part = left[: _BUFFERED - size]
                buffer[size : size + len(part)] = part
                size, left = size + len(part), left[len(part) :]
                if size == _BUFFERED:
                    size = 0  # before the call: a cancelled one has taken the bytes too
                    await run_in_threadpool(_write, writer, buffer, checksum)
    except BaseException as error:
        with CancelScope(shield=True):  # what came before the connection was cut is kept
            await run_in_threadpool(_end, writer, buffer[:size], checksum, error)
        raise
    await run_in_threadpool(_end, writer, buffer[:size], checksum, None)
    if upload.offset == upload.size:
        await run_in_threadpool(place.finish, upload)


def _write(writer: UploadWriter, data: memoryview, checksum: _Checksum | None) -> None:
    if checksum is not None:
        checksum.sum.update(data)
    writer.write(data)


def _end(
    writer: UploadWriter, rest: memoryview, checksum: _Checksum | None, error: BaseException | None
) -> None:
    """End the ``writer``, after an error or with the last bytes."""
    if isinstance(error, SessionStoreError):
        writer.__exit__(type(error), error, error.__traceback__)
        return
    with writer:
        if checksum is None or error is None:
            _write(writer, rest, checksum)
        if checksum is None:
            return
        matches = checksum.is_right()
        if error is not None or not matches:
            writer.discard()
    if error is None and not matches:
        raise _Refused(_MISMATCH, "The bytes do not have the Upload-Checksum: send them again.")


class _Checksum:
    """The checksum that a body must have."""

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self.sum = hashlib.new(algorithm, usedforsecurity=False)
        self.expected = expected

    @classmethod
    def of(cls, request: Request) -> _Checksum | None:
        written = request.headers.get("upload-checksum")
        if written is None:
            return None
        algorithm, _, value = written.partition(" ")
        if algorithm not in CHECKSUMS:
            raise _Refused(400, f"Send an Upload-Checksum of {', '.join(CHECKSUMS)}.")
        return cls(algorithm, _decoded("Upload-Checksum", value))

    def is_right(self) -> bool:
        return hmac.compare_digest(self.sum.digest(), self.expected)


def _head(upload: Upload, place: Place) -> Response:
    """Return the state. A complete upload is finished first, if no request did that."""
    if upload.offset == upload.size and not upload.finished:
        place.finish(upload)
    headers = {"Upload-Offset": str(upload.offset), "Upload-Expires": _expires(upload)}
    if upload.size is not None:
        headers["Upload-Length"] = str(upload.size)
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    return _response(200, headers)


def _get(upload: Upload, place: Place) -> Response:
    """Return what is known of the finished file; a 404 before that."""
    if not upload.finished:
        return _gone()
    headers = {"Cache-Control": "no-store", "Tus-Resumable": VERSION}
    return JSONResponse(place.describe(place.finish(upload)), 200, headers)


def _delete(upload: Upload, place: Place) -> Response:
    del place
    upload.abort()
    return _response(204, {})


_OF_AN_UPLOAD: Final[dict[str, Callable[[Upload, Place], Response]]] = {
    "DELETE": _delete, "GET": _get, "HEAD": _head,
}  # fmt: skip


def _expires(upload: Upload) -> str:
    return format_datetime(upload.expires, usegmt=True)


def _number(request: Request, header: str) -> int:
    written = request.headers.get(header, "")
    if not (written.isascii() and written.isdecimal() and len(written) <= _DIGITS):
        raise _Refused(400, f"Send {header.title()} as a number of bytes.")
    return int(written)


def _name_in(metadata: str) -> str:
    """Return the file's name in ``Upload-Metadata``, empty without it."""
    pairs = (pair.strip().partition(" ") for pair in metadata.split(","))
    found = {key: value for key, _, value in pairs}
    written = found.get("filename") or found.get("name")
    try:
        return _decoded("Upload-Metadata", written or "").decode()
    except UnicodeDecodeError:
        raise _Refused(400, "The file name in Upload-Metadata is not UTF-8.") from None


def _decoded(header: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _Refused(400, f"A value in {header} is not Base64.") from None
