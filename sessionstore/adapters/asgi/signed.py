"""Uploads straight to the bucket, over HTTP: the app signs the URLs and saves the file.

    POST    signed          begin; the body is {"name": "film.mp4", "size": 123, "digest": null}
    GET     signed/<id>     how many parts are missing, and URLs for the next ones
    POST    signed/<id>     all parts are there: save the file
    DELETE  signed/<id>     abort

An id is of use to its own session alone: for any other it is the 404 of nothing.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from sessionstore.adapters.asgi.upload import Malformed
from sessionstore.errors import SessionStoreError
from sessionstore.names import fresh_name

if TYPE_CHECKING:
    from starlette.requests import Request

    from sessionstore.session import Session
    from sessionstore.signed_uploads import SignedUpload
    from sessionstore.storedfile import StoredFile

METHODS: Final = ("DELETE", "GET", "POST")

_AT_ONCE: Final = 8  # URLs in a response: more would expire on a slow line before they are used
_LONGEST: Final = 1 << 14  # bytes of a body


async def begin(request: Request, session: Session) -> dict[str, Any]:
    """Begin an upload, and return its state. Raises Malformed and the errors of the store."""
    name, size, digest = _wanted(await _body(request))
    begun = partial(session.begin_signed_upload, name or fresh_name(), size, digest=digest)
    try:
        return state(await run_in_threadpool(begun))
    except SessionStoreError:
        raise
    except ValueError as error:
        raise Malformed(str(error)) from error


def state(upload: SignedUpload) -> dict[str, Any]:
    """Return what a client needs to go on. It asks the bucket, and may wait for it."""
    missing = upload.missing()
    return {
        "id": upload.id,
        "size": upload.size,
        "parts": upload.parts,
        "part_size": upload.part_size,
        "missing": len(missing),
        "urls": upload.urls(missing[:_AT_ONCE]) if missing else {},
        "expires": upload.expires.isoformat(),
    }


def go_on(method: str, session: Session, id: str) -> dict[str, Any] | StoredFile | None:  # noqa: A002 - the field's name
    """Return the state, the file that a POST saves, or None after a DELETE. It waits."""
    upload = session.signed_upload(id)
    match method:
        case "GET":
            return state(upload)
        case "POST":
            return upload.finish()
    upload.abort()
    return None


async def _body(request: Request) -> object:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST:
            raise Malformed(f"The body has more than {_LONGEST} bytes: send name and size only.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("The body is not JSON.") from error


def _wanted(value: object) -> tuple[str, int, str | None]:
    fields = value if isinstance(value, dict) else {}
    name, size, digest = fields.get("name", ""), fields.get("size"), fields.get("digest")
    if not isinstance(name, str) or type(size) is not int or not isinstance(digest, str | None):
        raise Malformed('Send {"name": "film.mp4", "size": 123}, and maybe a "digest" in hex.')
    return name, size, digest
