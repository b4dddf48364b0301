"""The middleware around Gradio's own routes, as plain ASGI: it buffers and copies no bodies.

* It marks every request with the moment of its arrival.
* It adds the owner cookie to a page for a visitor who has none.
* It follows a heartbeat from its first byte to its end.
* It answers an upload when it is in the store, and serves a file while it is there (see
  ``file_routes``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request

from sessionstore.adapters import cookies
from sessionstore.adapters.gradio import compat, file_routes
from sessionstore.adapters.gradio.presence import PresenceTracker, Visitor
from sessionstore.errors import InvalidName

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradio.routes import App
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sessionstore.adapters.gradio.service import Service

ARRIVED: Final = "sessionstore.arrived"
"""The key of a request's arrival in its scope (see ``PresenceTracker.moment``)."""

_OK: Final = 200


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
        scope[ARRIVED] = service.presences.moment()
        route = _route(scope)
        session_id = compat.heartbeat_of(route)
        file = compat.file_of(route)
        if session_id is not None:
            await self._heartbeat(scope, receive, send, service.presences, session_id)
        elif file is not None and scope["method"] in {"GET", "HEAD"}:
            await file_routes.file(self.app, scope, receive, send, service, file)
        elif compat.is_upload(route) and scope["method"] == "POST":
            await file_routes.upload(self.app, scope, receive, send, service)
        elif _may_be_page(scope):
            await self.app(scope, receive, _with_owner_cookie(scope, send))
        else:
            await self.app(scope, receive, send)

    async def _heartbeat(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        presences: PresenceTracker,
        session_id: str,
    ) -> None:
        heartbeat = _Heartbeat(scope, receive, send, presences, session_id)
        try:
            await self.app(scope, heartbeat.receive, heartbeat.send)
        finally:
            heartbeat.close()


@dataclass(slots=True)
class _Heartbeat:
    """One heartbeat connection, which either the client or the server ends.

    The client left if the server reported it (``http.disconnect``, or an ``OSError`` from ``send``,
    since version 2.4 of ASGI's HTTP specification) before the last byte of the response. When the
    server stops, it cancels the task, or Gradio ends the response: then the visitor did not leave.
    """

    scope: Scope
    wrapped_receive: Receive
    wrapped_send: Send
    presences: PresenceTracker
    session_id: str
    visitor: Visitor | None = None
    finished: bool = False
    left: bool = False

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
        """Note that the visitor is present, if the session's owner is known.

        Gradio's heartbeat route does not require a login. On an app with a login, a heartbeat
        without one is therefore ignored.
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

    def close(self) -> None:
        if self.visitor is not None:
            self.presences.closed(self.visitor, left=self.left)


def _route(scope: Scope) -> str:
    """Return the path below the app's own root, wherever it is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _may_be_page(scope: Scope) -> bool:
    """Return whether the response may be a page for a visitor without an owner cookie."""
    wanted = scope["method"] == "GET" and not compat.needs_login(scope["app"])
    return wanted and cookies.needs_cookie(Request(scope))


def _with_owner_cookie(scope: Scope, send: Send) -> Send:
    """Add the cookie to pages, and to ``/config``, which clients without a page request."""

    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == _OK:
            headers = MutableHeaders(scope=message)
            page = headers.get("content-type", "").startswith("text/html")
            if page or compat.is_config(_route(scope)):
                headers.append("set-cookie", cookies.new_cookie(Request(scope)))
                # A shared cache with this response would give all visitors one owner.
                headers["cache-control"] = "private, no-cache"
        await send(message)

    return send_with_cookie
