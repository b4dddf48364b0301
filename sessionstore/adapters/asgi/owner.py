"""The owner of a visitor's session in an app without a login: a random cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request

from sessionstore.adapters.cookies import needs_cookie, new_cookie, of_cookie

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OK: Final = 200


def owner(connection: HTTPConnection) -> str | None:
    """Return the owner for the cookie in the request, None without a cookie.

    It is a digest of the cookie, so it may appear in listings and logs. A request that has the
    cookie twice has no owner.
    """
    return of_cookie(connection)


class OwnerCookie:
    """Middleware that sets the cookie when a client without it loads a page.

    The cookie lasts for the browser session. It is HttpOnly, bound to this host over https, and
    counts from the next request on.
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
                    # A shared cache with this response would give all visitors one owner.
                    headers["cache-control"] = "private, no-cache"
            await send(message)

        await self.app(scope, receive, sending)


def same_origin(connection: HTTPConnection) -> bool:
    """Return whether a request comes from a page of this host, or from no page.

    Use it in every route that changes something: other sites can make a visitor's browser send
    requests, with the cookie. Browsers report that in ``Sec-Fetch-Site``. Over plain http they do
    not send it, so ``Origin`` is compared with the host. Programs other than browsers send neither.
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
