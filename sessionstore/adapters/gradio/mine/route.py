"""The route of the zip with everything kept of a visitor, which is made while it is sent."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.mine.listing import OwnFiles
from sessionstore.adapters.zips import zipped

if TYPE_CHECKING:
    from starlette.requests import Request

    from sessionstore.adapters.gradio.attached_store import Service
    from sessionstore.store import SessionStore

offered: Final[weakref.WeakSet[SessionStore]] = weakref.WeakSet()
"""The stores with a page of the visitor's own files: only they have the route."""


def offer(store: SessionStore) -> None:
    """Have the store list the sessions of each owner, and serve the zip."""
    store.owners.complete = True
    offered.add(store)


async def answer(service: Service, request: Request) -> Response:
    """Return the zip of the sender's files; 404 for one without any, and for an unknown sender."""
    app = request.scope["app"]
    login = await compat.login_of(app, request)
    owner = compat.owner_of(login, request)
    if owner is None or (login is None and compat.needs_login(app)):
        return _NOTHING
    entries = OwnFiles(service.files, owner).entries()
    first = await run_in_threadpool(next, entries, None)
    if first is None:
        return _NOTHING
    name = f"my-files-{service.store.now():%Y-%m-%d}.zip"
    return StreamingResponse(
        zipped(each for some in ([first], entries) for each in some),
        media_type="application/zip",
        headers={
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "private, no-store",
            "x-content-type-options": "nosniff",
        },
    )


_NOTHING: Final = PlainTextResponse("Nothing of yours is kept here.", 404)
