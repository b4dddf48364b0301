"""The owner of a session: the login name, else a random cookie in the request.

A session id is chosen by the client and appears in URLs, so it proves nothing. The owner does. A
session is named by both: the same id with another owner is another session.

Cookies do not know ports (RFC 6265, section 8.5). So the name is the same for every app: two apps
on one host, replicas and several root paths behind one proxy agree on the visitor. Only over https,
without a Domain and for the whole host do browsers accept ``__Host-`` (RFC 6265bis, section 4.1.3),
so no sibling subdomain or plain-http page can plant an owner of its own choosing.

That holds only for a server that compares names as browsers do. Starlette strips all characters
that Python counts as white space, and browsers store one of them, the no-break space, as part of a
name. So the header is parsed here, with only space and tab as white space (section 4.2.1).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PLAIN: Final = "sessionstore"
_SECURE: Final = "__Host-sessionstore"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]{43}(~?)")  # secrets.token_urlsafe(32), and a mark
MARK: Final = "~"
"""Ends the cookie of a program: a client that did not load a page."""

_SPACE: Final = b" \t"
_OK: Final = 200
_VISITOR: Final = "visitor-"
_PROGRAM: Final = _VISITOR + "program-"
_LOGIN: Final = "login-"


def of_login(name: str) -> str:
    """Return the owner for a login name: the name, with a prefix if it looks like a cookie's."""
    return _LOGIN + name if name.startswith((_VISITOR, _LOGIN)) else name


def owner(connection: HTTPConnection) -> str | None:
    """Return the owner for the cookie in the request, None without a cookie.

    The owner is a digest of the cookie, so it may appear in listings, events and logs. A request
    with two such cookies has no owner: one of them was planted, and it is unknown which.
    """
    values = _values(connection)
    match = _TOKEN.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    return (_PROGRAM if match[1] else _VISITOR) + hashlib.sha256(values[0]).hexdigest()[:32]


def is_program(owner: str | None) -> bool:
    """Return whether the owner is a client that did not load a page; None is one."""
    return owner is None or owner.startswith(_PROGRAM)


def of_secret(kind: str, secret: str) -> str:
    """Return the owner for a secret of another kind than a cookie."""
    return f"{_VISITOR}{kind}-{hashlib.sha256(secret.encode()).hexdigest()[:32]}"


def needs_cookie(connection: HTTPConnection) -> bool:
    """Return whether a page must set a new cookie.

    It must not when the request has two: a new one would replace the visitor's own, and the planted
    one would stay. The visitor's own counts again as soon as the other is gone.
    """
    return len(_values(connection)) < 2 and owner(connection) is None  # noqa: PLR2004 - see above


def _values(connection: HTTPConnection) -> list[bytes]:
    """Return the values of our cookie in the request; a browser sends one or none."""
    name = (_SECURE if _is_https(connection) else _PLAIN).encode()
    headers = connection.scope["headers"]
    whole = b";".join(value for key, value in headers if key.lower() == b"cookie")
    pairs = (pair.lstrip(_SPACE).partition(b"=") for pair in whole.split(b";"))
    return [value.rstrip(_SPACE) for key, equals, value in pairs if equals and key == name]


def new_cookie(connection: HTTPConnection, mark: str = "") -> str:
    """Return the value of a Set-Cookie header with a new random owner, for this browser session.

    Spaces shows apps in a cross-site frame, so over https it is sent from one; Partitioned keeps
    the frames of different sites apart. Over http browsers allow only Lax.
    """
    token = secrets.token_urlsafe(32) + mark
    if _is_https(connection):
        return f"{_SECURE}={token}; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"
    return f"{_PLAIN}={token}; Path=/; HttpOnly; SameSite=Lax"


def _is_https(connection: HTTPConnection) -> bool:
    """Return whether the browser uses https, also when a proxy before the app ends it.

    A client that forges the header only changes the name of its own cookie.
    """
    forwarded = connection.headers.get("x-forwarded-proto", "")
    scheme = forwarded.split(",")[0].strip() or connection.scope["scheme"]
    return bool(scheme == "https")


def with_new_cookie(scope: Scope, send: Send, *, always: bool = False, mark: str = "") -> Send:
    """Return a ``send`` that adds a new cookie to a 200, with ``always`` also if it is no page."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == _OK:
            headers = MutableHeaders(scope=message)
            if always or headers.get("content-type", "").startswith("text/html"):
                headers.append("set-cookie", new_cookie(HTTPConnection(scope), mark))
                # A shared cache with this response would give all visitors one owner.
                headers["cache-control"] = "private, no-cache"
        await send(message)

    return sending


class OwnerCookie:
    """Middleware that sets the cookie when a client without it loads a page.

    The cookie lasts for the browser session. It is HttpOnly, bound to this host over https, and
    counts from the next request on.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = scope["type"] == "http" and scope["method"] == "GET"
        if wanted and needs_cookie(HTTPConnection(scope)):
            send = with_new_cookie(scope, send)
        await self.app(scope, receive, send)


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
