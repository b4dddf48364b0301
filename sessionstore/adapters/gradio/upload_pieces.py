"""Large uploads of an attached page: in pieces, by tus, from the script ``upload.js`` in the page.

A finished one is what Gradio's own upload would be: an unclaimed file of the owner, with a path in
Gradio's cache. Its directory there is a random number in place of the hash of its bytes: so the
name is known before the bytes, and they need not be read once more. The replica that finishes it
makes its local copy from the bytes that it saves; another one when an event or a request needs it.
"""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sessionstore.adapters import cookies, tus
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.cache_files import UNCLAIMED, FoundFile
from sessionstore.adapters.refusal import Receiving, refuse
from sessionstore.names import HIDDEN

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from sessionstore.adapters.gradio.attached_store import Service
    from sessionstore.content import Content
    from sessionstore.model import Reference
    from sessionstore.storedfile import StoredFile

_HASH: Final = 32  # bytes of the random number: as many as Gradio's hash has


@cache
def script(pieces: int) -> str:
    """Return the script for a page that sends files of more than ``pieces`` bytes in pieces."""
    code = Path(__file__).with_name("upload.js").read_text("utf-8")
    return f"<script>{code.replace('__LARGE__', str(pieces))}</script>"


async def answer(scope: Scope, receive: Receive, send: Send, service: Service, given: str) -> None:
    """Answer a request for ``given``, which is "pieces", or that and the id of an upload."""
    body = Receiving(receive)
    response = await _answered(scope, Request(scope, body), service, given.partition("/")[2])
    if response.status_code >= 400 and scope["method"] != "HEAD":  # noqa: PLR2004 - HTTP's errors
        await refuse(response, scope, body, send)
    else:
        await response(scope, body, send)


async def _answered(scope: Scope, request: Request, service: Service, id_: str) -> Response:
    app, files = scope["app"], service.files
    login = await compat.login_of(app, request)
    if login is None and compat.needs_login(app):
        return JSONResponse({"error": "Not authenticated"}, 401)
    if request.method not in {"GET", "HEAD"} and not cookies.same_origin(request):
        return JSONResponse({"error": "Uploads are accepted only from pages of this site."}, 403)
    owner = compat.owner_of(login, request)
    home = files.unclaimed(owner)

    def named(name: str) -> str:
        return f"{secrets.token_hex(_HASH)}/{compat.cache_name(name) or 'file'}"

    def describe(file: StoredFile) -> str:
        name = file.name.removeprefix(HIDDEN)
        files.seen.add(owner, name, home.sid, file.reference)
        return str(files.paths.absolute(name))

    def copying(reference: Reference, content: Content) -> None:
        files.copy(FoundFile(reference.name.removeprefix(HIDDEN), home.sid, reference), content)

    most = getattr(app.get_blocks(), "max_file_size", None)
    place = tus.Place(home, describe, most, named, UNCLAIMED, copying)
    return await tus.answer(request, place, id_)
