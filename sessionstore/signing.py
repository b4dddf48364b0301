"""URLs that carry their own permission: for one file of one session, until a moment.

    <base_url>/<expiry>.<sid>.<signature>/<name>

The signature is HMAC-SHA-256 (RFC 2104) with the store's secret over expiry, session and name, cut
to 128 bits (RFC 2104, section 5). The URL has no digest of content, and no list of URLs is kept:
any process with the secret can check a URL.

In the name, "%" and control characters are percent-encoded twice. A server decodes a path once
before its app gets it, so no router and no proxy ever sees a line break in it.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from datetime import datetime
from urllib.parse import quote, unquote

from sessionstore.clock import EPOCH
from sessionstore.names import is_sid

_escape = re.compile(r"[%\x00-\x1f\x7f]").sub


def sign(secret: bytes, sid: str, name: str, expires: datetime) -> str:
    """Return the path of a URL for the file, without a leading slash."""
    until = f"{math.ceil((expires - EPOCH).total_seconds()):x}"
    return f"{until}.{sid}.{_signature(secret, until, sid, name)}/{_spelled(name)}"


def opens(secret: bytes, path: str, now: datetime) -> tuple[str, str] | None:
    """Return the (sid, name) of a valid path made by ``sign``, None for any other path."""
    token, _, quoted = path.partition("/")
    until, _, rest = token.partition(".")
    sid, _, signature = rest.partition(".")
    name = unquote(unquote(quoted, errors="surrogateescape"))
    if not is_sid(sid) or not until.isalnum():
        return None
    expected = _signature(secret, until, sid, name)
    if not hmac.compare_digest(signature.encode(errors="replace"), expected.encode()):
        return None
    alive = int(until, 16) > (now - EPOCH).total_seconds()
    return (sid, name) if alive else None


def _spelled(name: str) -> str:
    return quote(_escape(lambda match: f"%{ord(match[0]):02X}", name))


def _signature(secret: bytes, until: str, sid: str, name: str) -> str:
    # Only the last part can contain the separator.
    text = f"sessionstore url 1\n{until}\n{sid}\n{name}".encode(errors="surrogatepass")
    return hmac.new(secret, text, hashlib.sha256).hexdigest()[:32]
