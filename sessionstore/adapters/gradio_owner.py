"""Whose session it is: the login name, else a random cookie that the request brought.

A session id is chosen by the client and travels in URLs, so it proves nothing. The owner does: a
session is named by both, and another owner's session of the same id is simply another session.

The cookie's name is the same for every app on purpose. Cookies do not know ports (RFC 6265,
section 8.5), so two apps on one host see each other's cookies under any name; with one name they
agree on the visitor, who is the same, where two names that fight over one jar would not. Replicas
and several roots behind one proxy agree too. What the name does say is the scheme: browsers accept
``__Host-`` only over https, without a Domain and for the whole host (RFC 6265bis, section 4.1.3),
so neither a sibling subdomain nor a plain-http page can plant an owner of its own choosing.
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
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # the form of secrets.token_urlsafe(32)
_VISITOR: Final = "visitor-"
_LOGIN: Final = "login-"


def of_login(name: str) -> str:
    """The owner that a login name is: the name itself, unless it could be taken for a cookie's."""
    return _LOGIN + name if name.startswith((_VISITOR, _LOGIN)) else name


def of_cookie(connection: HTTPConnection) -> str | None:
    """The owner by the cookie that the request brought, None when it brought none of ours.

    The owner is a digest of the cookie, so that listings, events and logs do not hold a credential.
    """
    name = _SECURE if _is_https(connection) else _PLAIN
    token = connection.cookies.get(name, "")
    if not _TOKEN.fullmatch(token):
        return None
    return _VISITOR + hashlib.sha256(token.encode()).hexdigest()[:32]


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
