"""Whose session it is: the login name, else a random cookie that the request brought.

A session id is chosen by the client and travels in URLs, so it proves nothing. The owner does: a
session is named by both, and another owner's session of the same id is simply another session.

The cookie's name is the same for every app on purpose. Cookies do not know ports (RFC 6265,
section 8.5), so two apps on one host see each other's cookies under any name; with one name they
agree on the visitor, who is the same, where two names that fight over one jar would not. Replicas
and several roots behind one proxy agree too. What the name does say is the scheme: browsers accept
``__Host-`` only over https, without a Domain and for the whole host (RFC 6265bis, section 4.1.3),
so neither a sibling subdomain nor a plain-http page can plant an owner of its own choosing.

That holds only for a server that compares names as browsers do. Starlette strips all that Python
takes for white space, also the no-break space that browsers store as a part of a name. So the
header is parsed here: as bytes, at each semicolon, with space and tab alone as white space
(RFC 6265, section 4.2.1).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

_PLAIN: Final = "sessionstore"
_SECURE: Final = "__Host-sessionstore"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]{43}")  # the form of secrets.token_urlsafe(32)
_SPACE: Final = b" \t"
_VISITOR: Final = "visitor-"
_LOGIN: Final = "login-"


def of_login(name: str) -> str:
    """The owner that a login name is: the name itself, unless it could be taken for a cookie's."""
    return _LOGIN + name if name.startswith((_VISITOR, _LOGIN)) else name


def of_cookie(connection: HTTPConnection) -> str | None:
    """Return the owner by the cookie that the request brought, None when it does not bring one.

    The owner is a digest of the cookie, so that listings, events and logs do not hold a credential.
    A request that brings the cookie twice has no owner: one of the two was planted, and nothing
    says which.
    """
    values = _values(connection)
    if len(values) != 1 or not _TOKEN.fullmatch(values[0]):
        return None
    return _VISITOR + hashlib.sha256(values[0]).hexdigest()[:32]


def needs_cookie(connection: HTTPConnection) -> bool:
    """Return whether a page is to bring the visitor a new cookie.

    Not where two are there: a new one would take the place of the visitor's own, and the planted
    one would stay. The visitor's own counts again as soon as the other is gone.
    """
    return len(_values(connection)) < 2 and of_cookie(connection) is None  # noqa: PLR2004 - see above


def _values(connection: HTTPConnection) -> list[bytes]:
    """Return the values that the request has for our cookie; a browser sends one, or none.

    HTTP/2 may send a header of its own for each cookie (RFC 9113, section 8.2.3).
    """
    name = (_SECURE if _is_https(connection) else _PLAIN).encode()
    headers = connection.scope["headers"]
    whole = b";".join(value for key, value in headers if key.lower() == b"cookie")
    pairs = (each.lstrip(_SPACE).partition(b"=") for each in whole.split(b";"))
    return [value.rstrip(_SPACE) for key, equals, value in pairs if equals and key == name]


def new_cookie(connection: HTTPConnection) -> str:
    """The value of a Set-Cookie header with a fresh random owner, for this browser session.

    Over https it is also sent from a cross-site frame (Spaces shows apps in one), and Partitioned
    keeps the frames of different sites apart; over http browsers allow only Lax.
    """
    token = secrets.token_urlsafe(32)
    if _is_https(connection):
        return f"{_SECURE}={token}; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"
    return f"{_PLAIN}={token}; Path=/; HttpOnly; SameSite=Lax"


def _is_https(connection: HTTPConnection) -> bool:
    """Whether the browser speaks https, also where a proxy in front of the app ends it.

    A client that lies about it only changes the name of its own cookie.
    """
    forwarded = connection.headers.get("x-forwarded-proto", "")
    scheme = forwarded.split(",")[0].strip() or connection.scope["scheme"]
    return bool(scheme == "https")
