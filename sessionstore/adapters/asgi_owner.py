"""Who a visitor is, for apps without a login: a random cookie that only their browser has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request

from sessionstore.adapters.gradio_owner import needs_cookie, new_cookie, of_cookie

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OK: Final = 200


def owner(connection: HTTPConnection) -> str | None:
    """Return the owner by the cookie that the request brought, None when it does not bring one.

    It is a digest of the cookie, and so may stand in listings and logs. A request that brings the
    cookie twice has no owner.
    """
    return of_cookie(connection)


class OwnerCookie:
    """Middleware: whoever loads a page without the cookie gets one, good for the browser session.

    It is HttpOnly, bound to this very host over https, and counts from the next request on.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (
            scope["type"] == "http" and scope["method"] == "GET" and needs_cookie(Request(scope))
        ):
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _OK:
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.append("set-cookie", new_cookie(Request(scope)))
                    # A shared cache that kept this answer would make everybody one owner.
                    headers["cache-control"] = "private, no-cache"
            await send(message)

        await self.app(scope, receive, sending)


def same_origin(connection: HTTPConnection) -> bool:
    """Whether a request comes from a page of this host, or from no page at all.

    For every route that changes something: a cookie is sent along with what other sites make a
    visitor's browser ask for. Browsers say so in ``Sec-Fetch-Site``; over plain http they leave it
    out, and ``Origin`` is compared with the host. Programs that are no browsers send neither.
    """
    headers = connection.headers
    site = headers.get("sec-fetch-site")
    if site is not None:
        return bool(site in {"same-origin", "none"})
    origin = headers.get("origin")
    if origin is None:
        return True
    # Another site's page cannot send X-Forwarded-Host; a proxy that renames the host does.
    hosts = {headers.get("host", ""), headers.get("x-forwarded-host", "")}
    return urlsplit(origin).netloc in hosts - {""}
