"""Responses without bytes: another server sends them, the bucket or the proxy in front of the app.

Both are off unless a setting names them. The bucket gets a visitor by a redirect to a presigned URL
(``redirect``). The proxy gets the place of a local copy in a header (``sendfile``), which it
removes, and answers in the app's place, with ranges.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.responses import Response

from sessionstore.adapters.asgi.responses import is_known
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.cache_files import LARGE
from sessionstore.adapters.gradio.far_files import tag
from sessionstore.settings.resolver import X_SENDFILE
from sessionstore.storedfile import FIVE_MINUTES

if TYPE_CHECKING:
    from gradio.routes import App
    from starlette.requests import Request

    from sessionstore.adapters.gradio.cache_files import CacheFiles, FoundFile

_ACCEL: Final = "X-Accel-Redirect"
ORDERS: Final = (_ACCEL, X_SENDFILE)
"""The headers that a proxy obeys."""

_DOWNLOADS: Final = "navigate"
_FOLLOWS: Final = {_DOWNLOADS, "no-cors"}
"""The values of Sec-Fetch-Mode of a browser that needs no permission of the other server (CORS).

A link and an element such as ``<img>``; not ``fetch()``, and no program: some follow no redirect.
"""


_is_plain: Final = re.compile(r"[\w/.~-]+", re.ASCII).fullmatch


def is_for_bucket(files: CacheFiles, found: FoundFile, request: Request) -> bool:
    """Return whether the bucket is to send this file: a large one, whole, to a browser.

    A player, which requests ranges, would use the presigned URL again after it has expired.
    """
    headers, reference = request.headers, found.reference
    return (
        files.store.redirects
        and reference.size > LARGE
        and request.method == "GET"
        and "range" not in headers
        and headers.get("sec-fetch-mode") in _FOLLOWS
        and not is_known(headers, tag(reference))
    )


def to_bucket(files: CacheFiles, found: FoundFile, request: Request) -> Response:
    """Return the redirect. Raises SettingsError if the backend lacks a library to sign it.

    A link is saved by the browser, also a picture: after a redirect to another site a browser
    ignores that a link is for a download, and would leave the app's page.
    """
    attachment = request.headers.get("sec-fetch-mode") == _DOWNLOADS
    url = files.store.presigned(found.sid, found.reference, FIVE_MINUTES, attachment=attachment)
    headers = {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(None, 307, headers)


def to_proxy(files: CacheFiles, app: App, path: str, name: str) -> Response | None:
    """Return the response that tells the proxy to send a local file, None if there is none."""
    place = files.store.sendfile
    headers = compat.file_headers(app, path, files.local.root) if place else None
    if place is None or headers is None or not files.local.keep:
        return None
    del headers["accept-ranges"]  # the proxy adds its own
    if place != X_SENDFILE:
        headers[_ACCEL] = place + quote(name)
        return Response(None, 200, headers)
    # mod_xsendfile 1.0 decodes the path, 0.12 does not: only one that is equal decoded is safe.
    headers[X_SENDFILE] = str(files.local.path(name))
    return Response(None, 200, headers) if _is_plain(headers[X_SENDFILE]) else None
