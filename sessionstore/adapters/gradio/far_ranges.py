"""Ranges of large files that this replica has not fetched: they come from the store at once.

A player asks for ranges of a video. It would wait until the whole video is on this replica's disk;
so the range is read from the store, and the whole is fetched in the background. A range has the
right length, but no digest shows that its bytes are right, as everywhere in the library.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sessionstore.adapters.asgi.responses import Body, BodyResponse, Span
from sessionstore.adapters.gradio import compat
from sessionstore.model import SessionKey
from sessionstore.session import Session
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request

    from sessionstore.adapters.gradio.cache_files import CacheFiles, FoundFile
    from sessionstore.model import Reference

LARGE: Final = 8 << 20
"""The most bytes of a file that is fetched before a range of it is sent: 0.4 s at 20 MB/s."""

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


def response(
    files: CacheFiles, found: FoundFile, path: str, request: Request
) -> BodyResponse | None:
    """Return the range that a GET requests, from the store, and have the whole file fetched.

    Return None for a request that the local disk is to answer. Raises FileNotStored.
    """
    reference = found.reference
    if reference.size <= LARGE or not files.is_far(found) or "if-none-match" in request.headers:
        return None
    start, end = bounds(requested(request.headers, reference))
    first = int(start) if start else max(reference.size - int(end or 0), 0)
    span = Span(first, min(int(end) + 1, reference.size) if start and end else reference.size)
    headers = compat.file_headers(request.scope["app"], path, files.local.root)
    if headers is None or span.length <= 0:
        return None
    session = Session(files.store, SessionKey(found.sid, found.sid, None))
    body = Body(StoredFile(session, reference), span)
    files.fetch_later(found)
    headers["Content-Length"] = str(span.length)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{reference.size}"
    return BodyResponse(body, 206, headers)
