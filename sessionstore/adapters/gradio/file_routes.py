"""The middleware around Gradio's own routes, as plain ASGI: it buffers and copies no bodies.

Gradio's own code receives, checks the login, chooses type and disposition and sends. But it answers
``Range: bytes=a-b`` with the headers of the *request*, Cookie and Authorization among them
(``route_utils.file_fetch``). It does so for that form alone, so a range is passed on as
``bytes=a-b,``. Starlette reads that as the same range, and answers correctly.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from anyio import CancelScope
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from sessionstore.adapters import cookies
from sessionstore.adapters.asgi.responses import is_known
from sessionstore.adapters.gradio import compat, far_files, offload, server_functions, upload_pieces
from sessionstore.adapters.gradio.mine import route as own_zip
from sessionstore.adapters.gradio.presence import ARRIVED, PresenceTracker, Visitor, mcp_visitor
from sessionstore.adapters.gradio.uploads_in_progress import Upload, uploading
from sessionstore.adapters.visitor_errors import reply_to
from sessionstore.errors import FileNotStored, InvalidName, SessionStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradio.routes import App
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sessionstore.adapters.gradio.attached_store import Service
    from sessionstore.model import Reference

SERVICE: Final = "sessionstore.service"
"""The key of a weak reference to the app's service, in the scope.

An app mounted in it replaces ``scope["app"]``.
"""

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
_MCP_ID: Final = "mcp-session-id"
_mcp_id = re.compile(rb"session_id=([0-9a-f]{32})").search

log: Final = logging.getLogger("sessionstore")


class SessionFiles:
    """The middleware. ``service_of`` returns an app's service, or None if it is not attached."""

    def __init__(self, app: ASGIApp, service_of: Callable[[App], Service | None]) -> None:
        self.app = app
        self.service_of = service_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.service_of(scope["app"]) if scope["type"] == "http" else None
        if service is None:
            await self.app(scope, receive, send)
            return
        service.serving(scope["app"])
        # The queue of a demo that was reloaded away keeps the requests of its last events.
        scope[ARRIVED], scope[SERVICE] = service.presences.moment(), weakref.ref(service)
        kind, given = compat.route_of(_route(scope))
        if kind == "heartbeat":
            heartbeat = _Heartbeat(scope, receive, send, service.presences, given)
            await heartbeat.follow(self.app)
        elif kind == "file" and scope["method"] in {"GET", "HEAD"}:
            await _file(self.app, scope, receive, send, service, given)
        elif kind == "upload" and scope["method"] == "POST":
            await _upload(self.app, scope, receive, send, service)
        elif kind == "pieces":
            await upload_pieces.answer(scope, receive, send, service, given)
        elif kind == "function" and scope["method"] == "POST":
            await _function(self.app, scope, receive, send, service)
        elif kind == "zip" and scope["method"] == "GET" and service.store in own_zip.offered:
            await _zip(scope, receive, send, service)
        elif kind == "mcp":
            await self._mcp(scope, receive, send, service.presences)
        elif _may_be_page(scope):
            # A page that Node renders (SSR) gets its cookie with /config, as programs do.
            browser = Headers(scope=scope).get("user-agent", "").startswith("Mozilla/")
            config = kind == "config"
            mark = cookies.MARK if config and not browser else ""
            send = cookies.with_new_cookie(scope, send, always=config, mark=mark)
            await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _mcp(
        self, scope: Scope, receive: Receive, send: Send, presences: PresenceTracker
    ) -> None:
        """Follow an MCP session, and note it in the request for the events that it causes.

        Over SSE it is as long as the connection, whose first message names it. Over streamable HTTP
        Gradio has none, so a response gives one. Clients send it then, keep a GET open, and DELETE
        it at the end.
        """
        request = Request(scope)
        session_id = request.query_params.get("session_id") or request.headers.get(_MCP_ID)
        given = session_id or secrets.token_hex(16)
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers[compat.MCP_SESSION] = given.encode("latin-1", "replace").decode("latin-1")
        scope = {**scope, "headers": headers.raw}

        async def name(message: Message) -> None:
            if message["type"] == "http.response.start" and session_id is None:
                MutableHeaders(scope=message).setdefault(_MCP_ID, given)
            await send(message)

        if request.method == "GET" and "text/event-stream" in request.headers.get("accept", ""):
            stream = _McpStream(scope, receive, send, presences, session_id or "")
            await stream.follow(self.app)
            return
        if request.method == "DELETE" and session_id is not None:
            visitor = mcp_visitor(session_id)
            presences.opened(visitor)
            presences.closed(visitor, left=True)
        await self.app(scope, receive, name if request.method == "POST" else send)


@dataclass(slots=True)
class _Heartbeat:
    """One heartbeat connection, which either the client or the server ends.

    The client left if the server reported it (``http.disconnect``, or an ``OSError`` from ``send``)
    before the last byte. A server that stops cancels the task, or Gradio ends the response.
    """

    scope: Scope
    wrapped_receive: Receive
    wrapped_send: Send
    presences: PresenceTracker
    session_id: str
    visitor: Visitor | None = None
    finished: bool = False
    left: bool = False

    async def follow(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            if self.visitor is not None:
                self.presences.closed(self.visitor, left=self.left)

    async def receive(self) -> Message:
        message = await self.wrapped_receive()
        if message["type"] == "http.disconnect" and not self.finished:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == _OK:
            await self._open()
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True
        try:
            await self.wrapped_send(message)
        except OSError:
            self.left = True
            raise

    async def _open(self) -> None:
        """Note that the visitor is present.

        Gradio's heartbeat route requires no login: one without it is ignored on an app with a
        login.
        """
        request = Request(self.scope)
        app: App = self.scope["app"]
        name = await compat.login_of(app, request)
        if name is None and compat.needs_login(app):
            return
        visitor = Visitor(self.session_id, compat.owner_of(name, request))
        try:
            self.presences.opened(visitor)
        except InvalidName:
            return
        self.visitor = visitor


class _McpStream(_Heartbeat):
    """The open stream of an MCP client, from the message that names its session on."""

    __slots__ = ()

    async def send(self, message: Message) -> None:
        if self.visitor is None and message["type"] == "http.response.body":
            found = _mcp_id(message.get("body", b""))
            session_id = self.session_id or (found[1].decode() if found else "")
            if session_id:
                visitor = mcp_visitor(session_id)
                self.presences.opened(visitor)
                self.visitor = visitor
        await super().send(message)

    async def _open(self) -> None:
        """Open nothing before the session is known."""


def _route(scope: Scope) -> str:
    """Return the path below the app's own root, wherever it is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _may_be_page(scope: Scope) -> bool:
    wanted = scope["method"] == "GET" and not compat.needs_login(scope["app"])
    return wanted and cookies.needs_cookie(Request(scope))


class Served(NamedTuple):
    """A file that may be sent: by Gradio from the local disk, or by ``response``.

    ``pin`` is a copy to unpin after that.
    """

    reference: Reference
    pin: str | None
    response: ASGIApp | None = None


async def _file(  # noqa: PLR0917 - the first four are ASGI's
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, service: Service, path: str
) -> None:
    name = None if path.startswith(("http://", "https://")) else service.files.paths.relative(path)
    request = Request(scope)
    login = await compat.login_of(scope["app"], request)
    range_ = request.headers.get("range")
    is_ours = name is not None and not compat.is_public(
        scope["app"], path, service.files.paths.root
    )
    if name is None or not is_ours or (login is None and compat.needs_login(scope["app"])):
        await app(_with_range(scope, range_), receive, send)
        return
    try:
        served = await _serving(service, compat.owner_of(login, request), name, path, request)
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
        response = served.response or offload.to_proxy(service.files, scope["app"], path, name)
        await (response or app)(_with_range(scope, answer.range), receive, answer.send)
    finally:
        if served.pin is not None:
            service.files.local.unpin(served.pin)


async def _upload(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, service: Service
) -> None:
    """Answer ``POST`` of files, when they are in the store, or removed from the disk if refused."""
    held: list[Message] = []

    async def hold(message: Message) -> None:
        held.append(message)

    known: list[str | None] = []

    async def owner() -> str | None:
        if not known:
            request = Request(scope)
            known.append(compat.owner_of(await compat.login_of(scope["app"], request), request))
        return known[0]

    refusal: PlainTextResponse | None = None
    incoming = Upload(service.files, owner)
    try:
        with uploading(incoming):
            await app(_with_range(scope, None), receive, hold)
        if held and held[0]["type"] == "http.response.start" and held[0]["status"] == _OK:
            paths = json.loads(b"".join(message.get("body", b"") for message in held))
            names = dict.fromkeys(map(service.files.paths.relative, paths))
            await incoming.keep(name for name in names if name is not None)
    except SessionStoreError as error:
        log.warning("Could not save an upload: %s", error)
        refusal = _failure(error)
    finally:
        with CancelScope(shield=True):
            await incoming.settle()
        incoming.over()
    if refusal is not None:
        await refusal(scope, receive, send)
        return
    for message in held:
        await send(message)


async def _zip(scope: Scope, receive: Receive, send: Send, service: Service) -> None:
    try:
        response = await own_zip.answer(service, Request(scope))
    except SessionStoreError as error:
        log.warning("Could not list a visitor's files for a zip: %s", error)
        response = _failure(error)
    await response(scope, receive, send)


async def _function(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, service: Service
) -> None:
    try:
        await server_functions.call(app, scope, receive, send, service)
    except SessionStoreError as error:
        log.warning("Could not save the files of a component's function: %s", error)
        await _failure(error)(scope, receive, send)


def _failure(error: SessionStoreError) -> PlainTextResponse:
    status, words = reply_to(error)
    return PlainTextResponse(words, status)


async def _serving(
    service: Service, owner: str | None, name: str, path: str, request: Request
) -> Served | None:
    files = service.files
    found = files.known(owner, name)
    if (
        found is not None
        and files.ready(found)
        and not offload.is_for_bucket(files, found, request)
        and files.local.pin(name, wait=False)
    ):
        return Served(found.reference, name)
    return await run_in_threadpool(_fetched, service, owner, name, path, request)


def _fetched(
    service: Service, owner: str | None, name: str, path: str, request: Request
) -> Served | None:
    files = service.files
    copied = service.copies.whose(path)
    if copied is not None:
        allowed = copied.session.owner == owner or copied.session == service.store.shared
        return Served(copied.reference, None) if allowed and copied.is_there() else None
    found = files.find(owner, name)
    if found is not None and offload.is_for_bucket(files, found, request):
        return Served(found.reference, None, offload.to_bucket(files, found, request))
    with suppress(FileNotStored):  # it has moved: ``obtain`` finds it
        far = None if found is None else far_files.response(files, found, path, request)
        if found is not None and far is not None:
            return Served(found.reference, None, far)
    while (found := files.obtain(owner, name)) is not None:
        if files.local.pin(name):  # False if another file's fetch has evicted it: try again
            return Served(found.reference, name)
    return None


class _Answer:
    """Gradio's response with an entity tag that all replicas share, and without scripts."""

    def __init__(self, send: Send, reference: Reference, headers: Headers) -> None:
        self._send = send
        self._tag = far_files.tag(reference)
        self.range = far_files.requested(headers, reference)
        self._is_known = is_known(headers, self._tag)
        self._silent = False

    async def send(self, message: Message) -> None:
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
                for name in ("content-length", "content-type", "content-range", *offload.ORDERS):
                    del headers[name]
        elif self._silent and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _with_range(scope: Scope, wanted: str | None) -> Scope:
    """Return the request with the range ``wanted`` if it is one range, and without conditions."""
    headers = [header for header in scope["headers"] if header[0].lower() not in _NOT_PASSED_ON]
    start, end = far_files.bounds(wanted)
    if start or end:
        headers.append((b"range", f"bytes={start}-{end}{',' if start and end else ''}".encode()))
    return {**scope, "headers": headers}
