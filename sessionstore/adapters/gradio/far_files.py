"""Responses with a large file that this replica has not got: its bytes come from the store at once.

They are sent as they arrive, while the local copy is written (``fetches``). A range that begins far
behind them does not wait for them: it is read from the store by itself. It has the right length,
but no digest shows that its bytes are right, as everywhere in the library.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from sessionstore.adapters.asgi.responses import Body, BodyResponse, Span, is_known
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.fetches import CAN_FOLLOW
from sessionstore.model import SessionKey
from sessionstore.session import Session
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request

    from sessionstore.adapters.gradio.cache_files import CacheFiles, FoundFile
    from sessionstore.adapters.gradio.fetches import Following
    from sessionstore.model import Reference

AHEAD: Final = 8 << 20
"""The most bytes that a range waits for: 0.4 s at 20 MB/s."""

_one_range = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII).fullmatch


def tag(reference: Reference) -> str:
    """Return the entity tag of a file, which all replicas share."""
    return f'"{reference.digest[:32]}"'


def requested(headers: Headers, reference: Reference) -> str | None:
    """Return the Range header, None when the client has a part of another version."""
    same = headers.get("if-range") in (None, tag(reference))
    return headers.get("range") if same else None


def bounds(wanted: str | None) -> tuple[str, str]:
    """Return the first and last position of a Range header as written; none if it is not one."""
    match = None if wanted is None else _one_range(wanted.strip())
    start, end = match.groups() if match else ("", "")
    return ("", "") if start and end and int(start) > int(end) else (start, end)


def response(files: CacheFiles, found: FoundFile, path: str, request: Request) -> Response | None:
    """Return the response to a GET or HEAD whose bytes come from the store, if any.

    Return None for a request that the local disk is to answer. Raises FileNotStored and the other
    errors of the store.
    """
    if not files.is_far(found):
        return None
    reference = found.reference
    headers = compat.file_headers(request.scope["app"], path, files.local.root)
    if headers is None:
        return None
    headers["Content-Length"] = str(reference.size)
    if request.method == "HEAD" or is_known(request.headers, tag(reference)):
        return Response(None, 200, headers)
    start, end = bounds(requested(request.headers, reference))
    if not (start or end):
        return _response(files, found, Span(0, reference.size), 200, headers)
    first = int(start) if start else max(reference.size - int(end), 0)
    span = Span(first, min(int(end) + 1, reference.size) if start and end else reference.size)
    if span.length <= 0:
        return Response(None, 416, {"Content-Range": f"bytes */{reference.size}"})
    headers["Content-Length"] = str(span.length)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{reference.size}"
    return _response(files, found, span, 206, headers)


def _response(
    files: CacheFiles, found: FoundFile, span: Span, status: int, headers: dict[str, str]
) -> BodyResponse | None:
    fetch = files.fetching(found)
    body: Body | Following | None
    if CAN_FOLLOW and fetch is not None and span.start <= fetch.length + AHEAD:
        body = fetch.follow(span)
    else:
        session = Session(files.store, SessionKey(found.sid, found.sid, None))
        body = Body(StoredFile(session, found.reference), span)
    return None if body is None else BodyResponse(body, status, headers)
