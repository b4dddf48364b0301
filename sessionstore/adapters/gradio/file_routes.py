"""Gradio's routes for uploads and files, with the store around them.

Gradio's own code receives, checks the login, chooses type and disposition and sends. The code here
sends the response to an upload when the upload is in the store. It lets a file be sent only to
visitors who have it in the store, from the local disk, and fetches it first if it is not there.

Gradio answers ``Range: bytes=a-b`` with the headers of the *request*, Cookie and Authorization
among them (``route_utils.file_fetch``). It does so for that form alone, so a range is passed on as
``bytes=a-b,``. Starlette reads that as the same range, and answers correctly.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from anyio import CancelScope
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from sessionstore.adapters.gradio.compat import is_public, login_of, needs_login, owner_of
from sessionstore.adapters.gradio.uploads import Upload, uploading
from sessionstore.adapters.visitor_errors import reply_to
from sessionstore.errors import SessionStoreError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sessionstore.adapters.gradio.files import CacheFiles
    from sessionstore.adapters.gradio.service import Service
    from sessionstore.model import Reference

_OK: Final = 200
_PARTIAL: Final = 206
_NOT_MODIFIED: Final = 304
_NOT_PASSED_ON: Final = {
    b"range",
    b"if-range",
    b"if-none-match",
    b"if-modified-since",
    b"accept-encoding",
}
_one_range = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII).fullmatch

log = logging.getLogger("sessionstore")


class Served(NamedTuple):
    """A file on the local disk that may be sent. ``pin`` is a copy to unpin after that."""

    reference: Reference
    pin: str | None


async def file(  # noqa: PLR0917 - the first four are ASGI's
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, service: Service, path: str
) -> None:
    """Answer ``GET`` and ``HEAD`` of a file."""
    name = None if path.startswith(("http://", "https://")) else service.files.paths.relative(path)
    request = Request(scope)
    login = await login_of(scope["app"], request)
    range_ = request.headers.get("range")
    is_ours = name is not None and not is_public(scope["app"], path, service.files.paths.root)
    if name is None or not is_ours or (login is None and needs_login(scope["app"])):
        await app(_with_range(scope, range_), receive, send)
        return
    try:
        served = await _serving(service, owner_of(login, request), name, path)
    except SessionStoreError as error:
        log.exception("Could not fetch a file for a visitor.")
        await _failure(error)(scope, receive, send)
        return
    if served is None:
        # Gradio's response for a missing file, so a client cannot tell whether another has one.
        refusal = JSONResponse({"detail": f"File not allowed: {path}."}, 403)
        await refusal(scope, receive, send)
        return
    try:
        answer = _Answer(send, served.reference, request.headers)
        await app(_with_range(scope, answer.range), receive, answer.send)
    finally:
        if served.pin is not None:
            service.files.local.unpin(served.pin)


async def upload(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, service: Service
) -> None:
    """Answer ``POST`` of files, when they are in the store.

    The files of a refused or interrupted upload are removed from the disk before the response.
    """
    held: list[Message] = []

    async def hold(message: Message) -> None:
        held.append(message)

    async def owner() -> str | None:
        request = Request(scope)
        return owner_of(await login_of(scope["app"], request), request)

    refusal: PlainTextResponse | None = None
    incoming = Upload(service.files, owner)
    try:
        with uploading(incoming):
            await app(_with_range(scope, None), receive, hold)
        if held and held[0]["type"] == "http.response.start" and held[0]["status"] == _OK:
            body = b"".join(message.get("body", b"") for message in held)
            await run_in_threadpool(_keep, incoming, service.files, await owner(), body)
    except SessionStoreError as error:
        log.warning("Could not save an upload: %s", error)
        refusal = _failure(error)
    finally:
        with CancelScope(shield=True):
            await run_in_threadpool(incoming.count_no_more)
        incoming.over()
    if refusal is not None:
        await refusal(scope, receive, send)
        return
    for message in held:
        await send(message)


def _keep(upload: Upload, files: CacheFiles, owner: str | None, body: bytes) -> None:
    upload.count_no_more()  # each save counts for itself
    for path in json.loads(body):
        name = files.paths.relative(path)
        if name is not None:
            files.keep_upload(owner, name)
    upload.kept = True


def _failure(error: SessionStoreError) -> PlainTextResponse:
    """Return a response that a visitor may read; the details are in the log."""
    status, words = reply_to(error)
    return PlainTextResponse(words, status)


async def _serving(service: Service, owner: str | None, name: str, path: str) -> Served | None:
    files = service.files
    found = files.known(owner, name)
    if found is not None and files.ready(found) and files.local.pin(name, wait=False):
        return Served(found.reference, name)
    return await run_in_threadpool(_fetched, service, owner, name, path)


def _fetched(service: Service, owner: str | None, name: str, path: str) -> Served | None:
    files = service.files
    copied = service.copies.whose(path)
    if copied is not None:
        allowed = copied.session.owner == owner or copied.session == service.store.shared
        return Served(copied.reference, None) if allowed and copied.is_there() else None
    while (found := files.obtain(owner, name)) is not None:
        if files.local.pin(name):  # False if another file's fetch has evicted it: try again
            return Served(found.reference, name)
    return None


class _Answer:
    """Gradio's response with other validators, and with headers that forbid scripts in a browser.

    The entity tag is made from the digest. So it is equal on all replicas, unlike a file's time.
    """

    def __init__(self, send: Send, reference: Reference, headers: Headers) -> None:
        self._send = send
        self._tag = f'"{reference.digest[:32]}"'
        same = headers.get("if-range") in (None, self._tag)
        self.range = headers.get("range") if same else None
        known = {
            tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")
        }
        self._is_known = bool(known & {self._tag, "*"})
        self._silent = False

    async def send(self, message: Message) -> None:
        """Send one message, changed where it starts a response."""
        if message["type"] == "http.response.start" and message["status"] in (_OK, _PARTIAL):
            headers = MutableHeaders(scope=message)
            headers["etag"] = self._tag
            headers["cache-control"] = "private, no-cache"
            headers["x-content-type-options"] = "nosniff"
            headers["content-security-policy"] = "sandbox"
            del headers["last-modified"]
            if self._is_known:
                self._silent = True
                message["status"] = _NOT_MODIFIED
                for name in ("content-length", "content-type", "content-range"):
                    del headers[name]
        elif self._silent and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _with_range(scope: Scope, wanted: str | None) -> Scope:
    """Return the request with the range ``wanted`` if it is one range, and without conditions."""
    headers = [header for header in scope["headers"] if header[0].lower() not in _NOT_PASSED_ON]
    match = None if wanted is None else _one_range(wanted.strip())
    if match is not None and _is_in_order(match):
        start, end = match.groups()
        headers.append((b"range", f"bytes={start}-{end}{',' if start and end else ''}".encode()))
    return {**scope, "headers": headers}


def _is_in_order(match: re.Match[str]) -> bool:
    start, end = match.groups()
    return int(start) <= int(end) if start and end else bool(start or end)
