"""Stored files over HTTP, for FastAPI, Starlette and every other ASGI program.

docs/asgi.md has an example. Below its mount it answers these requests:

    GET, HEAD  <expiry>.<sid>.<signature>/<name>   a file, by the URL that ``StoredFile.url()`` made
    PUT        upload/<name>                       save the body under that name
    POST       upload                              save the files of a form
    POST       tus                                 begin an upload that resumes, by tus 1.0.0
    HEAD, PATCH, DELETE, GET  tus/<id>             go on with it
    POST       signed                              begin an upload straight to the bucket
    GET, POST, DELETE  signed/<id>                 go on with it, save it, abort it

Every other GET gets a 404. The response is equal to the byte for a missing file, another visitor's
file, a malformed URL and an expired one. Nothing here does I/O on the event loop.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sessionstore import signing
from sessionstore.adapters import tus
from sessionstore.adapters.asgi import responses as replies
from sessionstore.adapters.asgi import signed, upload
from sessionstore.adapters.asgi.upload import Incoming, Malformed
from sessionstore.adapters.cookies import OwnerCookie, owner, same_origin
from sessionstore.adapters.refusal import Receiving, refuse
from sessionstore.adapters.visitor_errors import reply_to
from sessionstore.errors import (
    BackendUnavailable,
    FileNotStored,
    InvalidName,
    LimitExceeded,
    SessionStoreError,
    SettingsError,
)
from sessionstore.model import SessionKey
from sessionstore.session import Session
from sessionstore.signed_uploads import signer
from sessionstore.store import SessionStore
from sessionstore.storedfile import FIVE_MINUTES, StoredFile

__all__ = ["Files", "OwnerCookie", "Visitor", "owner", "same_origin"]

Visitor = Callable[[Request], Session | Awaitable[Session | None] | None]
"""The app's function from a request to the visitor's session. None means no visitor: a 403.

A plain function runs in a worker thread. It may raise an HTTPException of Starlette or FastAPI: for
an upload that is the response; a GET gets the 404 of all others.
"""

log: Final = logging.getLogger("sessionstore")

_NOT_YOU: Final = "This visitor may not upload."
_UPLOAD: Final = "upload"
_TUS: Final = "tus"
_SIGNED: Final = "signed"


class Files(Starlette):
    """The app to mount.

    ``visitor`` returns the session for an upload; without it, all are refused.

    A signed URL gives the file to every client that has it. With ``private`` only the visitor of
    the file's session gets it, so that a leaked URL is useless.

    With ``signed_uploads`` visitors may upload straight to the bucket, by presigned URLs.
    """

    def __init__(
        self,
        store: SessionStore,
        visitor: Visitor | None = None,
        *,
        private: bool = False,
        signed_uploads: bool = False,
    ) -> None:
        """Read the store's secret. Raises SettingsError when it has no secret.

        Raises ValueError for ``private`` or ``signed_uploads`` without a ``visitor``; SettingsError
        for ``signed_uploads`` of a store whose backend cannot.
        """
        for name, wanted in {"private": private, "signed_uploads": signed_uploads}.items():
            if wanted and visitor is None:
                raise ValueError(
                    f"{name}=True needs a visitor: a function from request to Session."
                )
        if signed_uploads:
            signer(store)
        super().__init__()
        self.router.default = self._answer  # any path, also one that no pattern matches
        self.store = store
        self._visitor = visitor
        self._private = private
        self._signed = signed_uploads
        self._secret = store.secret()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.router.not_found(scope, receive, send)
            return
        body = Receiving(receive)
        request = Request(scope, body)
        path = _path(scope)
        if path == _TUS or path.startswith(f"{_TUS}/"):
            response = await self._resume(request, path[len(_TUS) + 1 :])
            if response.status_code >= 400 and request.method != "HEAD":  # noqa: PLR2004 - as below
                await refuse(response, scope, body, send)
                return
        elif self._signed and (path == _SIGNED or path.startswith(f"{_SIGNED}/")):
            response = await self._sign(request, path[len(_SIGNED) + 1 :])
            if response.status_code >= 400:  # noqa: PLR2004 - as below
                await refuse(response, scope, body, send)
                return
        elif request.method in {"GET", "HEAD"}:
            response = await self._serve(request, path)
        elif request.method in {"PUT", "POST"} and self._visitor is not None:
            response = await self._take(request, path)
            if response.status_code >= 400:  # noqa: PLR2004 - HTTP's errors begin here
                await refuse(response, scope, body, send)
                return
        else:
            allowed = "GET, HEAD" if self._visitor is None else "GET, HEAD, POST, PUT"
            response = replies.refused(405, "Method Not Allowed", {"Allow": allowed})
        await response(scope, receive, send)

    # Serving

    async def _serve(self, request: Request, path: str) -> Response:
        only = None
        if self._private:
            try:
                session = await self._session(request)
            except HTTPException:
                session = None  # a GET has one response for every refusal
            if session is None:
                return replies.not_found()
            only = session.sid
        try:
            return await run_in_threadpool(self._find, request, path, only)
        except (FileNotStored, InvalidName):
            return replies.not_found()
        except BackendUnavailable as error:
            log.warning("A file could not be served: %s", error)
            return replies.refused(*reply_to(error), {"Retry-After": "5"})
        except SessionStoreError as error:
            log.error("A file could not be served: %s", error)  # noqa: TRY400 - the text has all of it
            return replies.refused(500, "Internal Server Error")

    def _find(self, request: Request, path: str, only: str | None) -> Response:
        """Return the response to a GET or HEAD, with its first bytes read.

        With ``only``, a file of any other session is not found.
        """
        place = signing.opens(self._secret, quote(path), self.store.now())
        if place is None or (only is not None and place[0] != only):
            return replies.not_found()
        sid, name = place
        # Id and owner are not needed to read, and would cost a request to a bucket.
        file = Session(self.store, SessionKey(sid, sid, None)).get(name)
        etag = replies.etag_of(file)
        if replies.is_known(request.headers, etag):
            return Response(None, 304, replies.headers_of(file))
        if request.method == "HEAD":
            length = {"Content-Length": str(file.size)}
            return Response(None, 200, replies.headers_of(file) | length)
        try:
            span = replies.wanted(request.headers, etag, file.size)
        except replies.Unsatisfiable:
            size = {"Content-Range": f"bytes */{file.size}"}
            return replies.refused(416, "Range Not Satisfiable", size)
        body = replies.Body(file, span or replies.Span(0, file.size))
        return replies.FileResponse(file, span, body)

    # Uploads

    async def _take(self, request: Request, path: str) -> Response:
        place, _, name = path.partition("/")
        if place != _UPLOAD:
            return replies.not_found()
        if not same_origin(request):
            return _error(403, "Uploads are accepted only from pages of this site.")
        session = await self._session(request)
        if session is None:
            return _error(403, _NOT_YOU)
        incoming: Incoming | None = None
        try:
            self._refuse_announced(request)
            incoming = await run_in_threadpool(_incoming, request, session, name)
            saved = await upload.receive(request, incoming)
        except (SessionStoreError, Malformed, ClientDisconnect) as error:
            return _failure(error, incoming)
        described = await run_in_threadpool(
            lambda: [self._described(request, session, file) for file in saved]
        )
        return replies.as_json(201, described)

    async def _resume(self, request: Request, id: str) -> Response:  # noqa: A002 - the field's name
        """Return the response to a request of tus."""
        if self._visitor is None:
            return replies.not_found()
        if request.method not in {"GET", "HEAD", "OPTIONS"} and not same_origin(request):
            return _error(403, "Uploads are accepted only from pages of this site.")
        session = None if request.method == "OPTIONS" else await self._session(request)

        def describe(file: StoredFile) -> list[dict[str, Any]]:
            return [] if session is None else [self._described(request, session, file)]

        place = tus.Place(session, describe, self.store.limits.max_file)
        return await tus.answer(request, place, id)

    async def _sign(self, request: Request, id: str) -> Response:  # noqa: A002 - the field's name
        """Return the response to a request about an upload straight to the bucket."""
        if request.method not in signed.METHODS if id else request.method != "POST":
            return replies.refused(405, "Method Not Allowed", {"Allow": ", ".join(signed.METHODS)})
        if request.method != "GET" and not same_origin(request):
            return _error(403, "Uploads are accepted only from pages of this site.")
        session = await self._session(request)
        if session is None and not id:
            return _error(403, _NOT_YOU)
        try:
            if session is None:
                raise FileNotStored(id)
            return await self._signed_upload(request, session, id)
        except (SessionStoreError, Malformed, ClientDisconnect) as error:
            return _failure(error, None)

    async def _signed_upload(self, request: Request, session: Session, id: str) -> Response:  # noqa: A002 - as above
        if not id:
            return replies.as_json(201, await signed.begin(request, session))
        done = await run_in_threadpool(signed.go_on, request.method, session, id)
        if done is None:
            return Response(None, 204, replies.SAFE)
        if not isinstance(done, StoredFile):
            return replies.as_json(200, done)
        described = await run_in_threadpool(self._described, request, session, done)
        return replies.as_json(201, [described])

    def _described(self, request: Request, session: Session, file: StoredFile) -> dict[str, Any]:
        url = self._url(request, session, file)
        return {"name": file.name, "size": file.size, "media_type": file.media_type, "url": url}

    def _refuse_announced(self, request: Request) -> None:
        """Raise LimitExceeded for a PUT whose Content-Length is over ``max_file``."""
        most = self.store.ledger.limits.max_file
        length = request.headers.get("content-length", "")
        if request.method != "PUT" or most is None or not length.isdecimal():
            return
        if int(length) > most:
            raise LimitExceeded(
                f"The file has {int(length)} bytes, more than max_file={most}: send a smaller one.",
                limit="max_file",
            )

    async def _session(self, request: Request) -> Session | None:
        visitor: Any = self._visitor
        if inspect.iscoroutinefunction(visitor):
            session = await visitor(request)
        else:
            session = await run_in_threadpool(visitor, request)
            session = await session if inspect.isawaitable(session) else session
        return session if isinstance(session, Session) else None

    def _url(self, request: Request, session: Session, file: StoredFile) -> str:
        """Return ``file.url()``, or a URL below this app's mount without a ``base_url``."""
        try:
            return file.url()
        except (SettingsError, FileNotStored):  # FileNotStored: it was deleted or replaced since
            root = request.scope.get("root_path", "").rstrip("/")
            until = self.store.now() + FIVE_MINUTES
            return f"{root}/{signing.sign(self._secret, session.sid, file.name, until)}"


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    below = path[len(root) :] if root and path.startswith(f"{root}/") else path
    return below.removeprefix("/")


def _incoming(request: Request, session: Session, name: str) -> Incoming:
    content_type = request.headers.get("content-type", "")
    if request.method == "POST" and not name:
        if content_type.startswith("multipart/form-data"):
            return upload.Form(session, content_type)
        raise Malformed("POST a form with files, or PUT one file to upload/<name>.")
    whole = Incoming()
    whole.begin(session, name)
    return whole


def _failure(
    error: SessionStoreError | Malformed | ClientDisconnect, incoming: Incoming | None
) -> Response:
    match error:
        case Malformed():
            return _error(400, str(error), incoming)
        case ClientDisconnect():
            return _error(400, "The client left.")  # it is never read
    status, words = reply_to(error)
    if status >= 500:  # noqa: PLR2004 - HTTP's server errors begin here
        log.warning("An upload could not be saved: %s", error)
    limit = error.limit if isinstance(error, LimitExceeded) else None
    return _error(status, words, incoming, limit=limit)


def _error(
    status: int, why: str, incoming: Incoming | None = None, *, limit: str | None = None
) -> Response:
    """Return an error response. It lists the files of a form that were saved before the error."""
    saved = [] if incoming is None else [file.name for file in incoming.saved]
    return replies.as_json(status, {"error": why, "limit": limit, "saved": saved})
