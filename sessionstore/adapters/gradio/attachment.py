"""Gradio: each visitor's files are in a session of their own, and deleted when the visitor left.

def draw(prompt, request: gr.Request):
    return session(request).add(make(prompt), suffix=".webp")

with gr.Blocks() as demo: ...
attach(demo, SessionStore.open())
demo.launch()
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
import weakref
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI

from sessionstore.adapters.gradio import compat, events, patches
from sessionstore.adapters.gradio.admin.page import dashboard
from sessionstore.adapters.gradio.attached_store import (
    CACHE_SIZE,
    LEAST_PIECE,
    UPLOAD_PIECES,
    Service,
)
from sessionstore.adapters.gradio.events import sender_of
from sessionstore.adapters.gradio.file_routes import SERVICE
from sessionstore.adapters.gradio.presence import Visitor
from sessionstore.adapters.gradio.recent_saves import VisitorSession
from sessionstore.adapters.gradio.resume import Resumed
from sessionstore.adapters.gradio.state import STATE_SIZE, page
from sessionstore.errors import InvalidName, SettingsError
from sessionstore.parsers import check_duration

if TYPE_CHECKING:
    from gradio.routes import App

    from sessionstore.session import Session
    from sessionstore.store import SessionStore

__all__ = ["Attachment", "Resumed", "attach", "dashboard", "resumed", "session"]

_lock = threading.RLock()
_attachments: weakref.WeakKeyDictionary[gr.Blocks | App, Attachment] = weakref.WeakKeyDictionary()
_served: weakref.WeakKeyDictionary[FastAPI, gr.Blocks] = weakref.WeakKeyDictionary()
"""The demo that each app serves, or served before a hot reload."""


class Attachment:
    """The link between a demo and its store. ``attach`` makes it, ``detach`` removes it."""

    def __init__(self, demo: gr.Blocks | App, service: Service) -> None:
        self._demo = weakref.ref(demo)
        self._delete_cache = getattr(demo, "delete_cache", None)
        self._app_id: int = getattr(demo, "app_id", 0)
        self.service = service
        """The adapter's internal service for the store."""

    @property
    def store(self) -> SessionStore:
        """The store that the demo is attached to."""
        return self.service.store

    def detach(self) -> None:
        """Put the demo and Gradio back as they were. Files stay. Detaching twice is no error.

        An app of the demo that is being served goes on without the store.
        """
        demo = self._demo()
        with _lock:
            if demo is None or _attachments.get(demo) is not self:
                return
            del _attachments[demo]
            made = demo.blocks if isinstance(demo, FastAPI) else None
            if made is not None and made in _attachments:
                _attachments[made].detach()
            if not any(other.service is self.service for other in _attachments.values()):
                self.service.close()
            patches.free(demo)
            if isinstance(demo, gr.Blocks):
                demo.delete_cache = self._delete_cache
                demo.app_id = self._app_id
            if not _attachments:
                patches.uninstall()
        if isinstance(demo, gr.Blocks) and not compat.is_being_built(demo):
            patches.rebuild(demo)


def attach(
    demo: gr.Blocks | App,
    store: SessionStore,
    *,
    sweep_every: timedelta | None = None,
    cache_size: int | None = CACHE_SIZE,
    keep_local: bool = True,
    share: bool = False,
    history: timedelta | None = None,
    state: bool = False,
    state_size: int = STATE_SIZE,
    upload_pieces: int | None = UPLOAD_PIECES,
    resume: timedelta | None = None,
) -> Attachment:
    """Save the demo's files in ``store``, and its visitors' files in sessions of their own.

    ``demo`` is any ``gr.Blocks``, or a ``gr.Server``. Call it before the demo is launched or
    mounted, in its ``with`` block or after it. Calling it
    again with the same store changes nothing. Demos that share a store share one sweeper and one
    cache, with the options of the first ``attach``.

    The sweeper runs every ``sweep_every``; the default is that of ``SessionStore.sweeping``: 60
    seconds, on a bucket up to an hour, by what a sweep costs. Gradio's own sweeper, which
    ``delete_cache=(frequency, age)`` would start, is off: ``frequency`` is the default of
    ``sweep_every``, and ``age`` the default of the store's ``max_age``.

    Gradio's cache directory holds local copies of at most ``cache_size`` bytes (4 GiB; None for no
    limit). The least recently used ones are evicted; copies in use are never evicted. With
    ``keep_local=False`` a copy is removed as soon as it is in the store and nothing uses it.

    A page's files can be fetched by its visitor only. With ``share=True`` the URL of an output is a
    link: everyone who has it can fetch the file while its session lives, as always with the results
    of other clients than pages (MCP tools, ``gradio_client``, calls over HTTP).

    Gradio's run history (from 6.24 on) lists a visitor's runs in the browser. The files in it are
    deleted with their session, so after a reload of the page older ones cannot be shown. With
    ``history`` they are kept for this time, at most 256 MiB for each visitor.

    With ``state=True`` the values of ``gr.State`` are files of the visitor's session too: an event
    on another replica gets them, and they are deleted with the session. They are pickled and signed
    with the store's secret. One whose pickle is larger than ``state_size`` bytes (16 MiB), or that
    cannot be pickled, stays in the memory of the process; the log says so.

    With ``resume`` a visitor who comes back with a new page within this time of the last save may
    go on: see ``resumed``. The store's ``linger`` is then at least as long.

    Pages send a file of more than ``upload_pieces`` bytes (8 MiB) in pieces of that size, which
    continue after a cut, also at another replica; None sends each file in one request, as Gradio
    does. Set it below the largest body that each proxy allows.

    Raises SettingsError when the demo is running, or is attached to another store; when another
    process uses this store with another cache directory; when replicas would need a ``secret`` that
    is not set; and when this version of Gradio is unknown. Raises ValueError when ``sweep_every``
    is not longer than zero, or longer than a hundred years, and when ``upload_pieces`` is below
    64 KiB. Raises BackendUnavailable or
    LimitExceeded when the demo's own files cannot be saved.
    """
    compat.check(demo)
    with _lock:
        present = _attachments.get(demo)
        if present is not None and present.store is store:
            return present
        _refuse_bad_moment(demo, present)
        every, age = _sweeping(demo, sweep_every)
        for name, time in (("history", history), ("resume", resume)):
            if time is not None:
                check_duration(name, time)
        if upload_pieces is not None and upload_pieces < LEAST_PIECE:
            raise ValueError(
                f"invalid upload_pieces={upload_pieces}: at least {LEAST_PIECE} bytes."
            )
        service = _service(
            demo,
            store,
            sweep_every=every,
            cache_size=cache_size,
            keep_local=keep_local,
            share=share,
            history=history,
            state_size=state_size if state else None,
            upload_pieces=upload_pieces,
            resume=resume,
        )
        attachment = Attachment(demo, service)
        _attachments[demo] = attachment
        seed = hmac.new(service.secret, b"gradio hash seed", hashlib.sha256).hexdigest()
        patches.install(_service_of, seed.encode())
        if isinstance(demo, FastAPI):
            patches.at_launch(demo, lambda made: attach(made, store))
            return attachment
        try:
            patches.equip(demo, service.upload_pieces)
            demo.delete_cache = None
            demo.app_id = compat.app_id(demo, service.secret)
            if age is not None:
                service.keep_for(age)
            if not compat.is_being_built(demo):  # else Gradio makes the app after the with block
                service.pin(demo)
                patches.rebuild(demo)
        except BaseException:
            attachment.detach()
            raise
    return attachment


def _sweeping(
    demo: gr.Blocks | App, every: timedelta | None
) -> tuple[timedelta | None, timedelta | None]:
    """Return the interval of the sweeper, and the maximum age that ``delete_cache`` sets."""
    delete_cache = getattr(demo, "delete_cache", None)
    if delete_cache is None:
        return every, None
    try:
        frequency, age = (timedelta(seconds=count) for count in delete_cache)
    except OverflowError as error:
        raise ValueError(
            f"invalid delete_cache={delete_cache}: at most a hundred years are allowed."
        ) from error
    return frequency if every is None else every, age


def session(request: gr.Request, store: SessionStore | None = None) -> Session:
    """Return the session of the visitor who sent the event, in the store of the app.

    It creates nothing. The owner of the session is the visitor's login name, else the cookie that
    came with the page. A client without either shares a session with every such client that knows
    its id. The call counts as activity: a session that had ended is resumed.

    An MCP client has a session of its own, which ends with its MCP session.

    Raises InvalidName when the client sent no session id or an invalid one. Raises SettingsError
    outside an event, and when the app is not attached and no ``store`` is given.
    """
    connection = compat.connection_of(request)
    if connection is None:
        raise SettingsError(
            "session(request) needs the gr.Request of an event that a visitor sent; files for "
            "everyone, such as cached examples, go to store.shared."
        )
    known = connection.scope.get(SERVICE, lambda: None)()
    service = known or _service_of(connection.scope.get("app"))
    if store is None:
        if service is None:
            raise SettingsError(
                "This app is not attached to a store: call attach(demo, store) before launch(), "
                "or pass a store: session(request, store)."
            )
        store = service.store
    sender = sender_of(request)
    if sender is None or sender.visitor is None:
        raise InvalidName(
            "The request has no session_hash, so it has no session: send one with each event."
        )
    mine = store.session(*sender.visitor)
    if service is not None and service.store is store:
        if not sender.arrived:
            raise SettingsError(
                "This app was made before its demo was attached: call attach(demo, store) before "
                "mount_gradio_app() or App.create_app()."
            )
        service.presences.used(sender.visitor, sender.arrived, wait=not _on_event_loop())
        return VisitorSession(store, mine.key, service.files.recent)
    return mine


def resumed(request: gr.Request) -> Resumed | None:
    """Let the visitor go on: take the owner's newest session of this app over into this page's.

    For ``demo.load``. The session of the page gets the files of the other one, by reference, and
    its values of ``gr.State``. Return None if the owner has no session of this app with anything in
    it, or if its last save is longer ago than ``attach(..., resume=...)``; if the page's session
    has files or values already; and for a client without an owner. It waits for the store: in an
    async handler call ``await asyncio.to_thread(resumed, request)``.

    Raises SettingsError without ``attach(..., resume=...)``, BackendUnavailable, and the errors of
    ``session``.
    """
    visitor = session(request)
    event, shown = events.current.get(), page.get()
    if event is None or shown is None or event.service.resuming is None:
        raise SettingsError(
            "resumed(request) needs attach(demo, store, resume=timedelta(...)), and an event of "
            "that app."
        )
    return event.service.resuming.resumed(Visitor(visitor.id, visitor.owner), shown)


def _refuse_bad_moment(demo: gr.Blocks | App, present: Attachment | None) -> None:
    if present is not None:
        raise SettingsError(
            "The demo is attached to another store: call detach() of that attachment first."
        )
    if demo.blocks is not None if isinstance(demo, FastAPI) else demo.is_running:
        raise SettingsError("The demo is running: call attach(demo, store) before launch().")


def _service(demo: gr.Blocks | App, store: SessionStore, **options: Any) -> Service:
    for attachment in _attachments.values():
        if attachment.store is store:
            return attachment.service
    cache = demo.uploaded_file_dir if isinstance(demo, FastAPI) else demo.GRADIO_CACHE
    return Service(store, Path(cache), **options)


def _service_of(app_or_demo: Any) -> Service | None:
    demo = app_or_demo
    if isinstance(app_or_demo, FastAPI):
        demo = getattr(app_or_demo, "blocks", None)
        if demo is not None and (served := _served.get(app_or_demo)) is not demo:
            _served[app_or_demo] = demo
            if served is not None:
                _reloaded(served, demo, app_or_demo)
    attachment = _attachments.get(demo) if demo is not None else None
    return attachment.service if attachment is not None else None


def _reloaded(before: gr.Blocks, demo: gr.Blocks, app: Any) -> None:
    """Let go of a demo that a hot reload replaced: its visitors are those of the new one."""
    with _lock:
        old, new = _attachments.pop(before, None), _attachments.get(demo)
        if old is None or (new is not None and new.service is old.service):
            return
        old.service.stopped(app)
        if all(other.service is not old.service for other in _attachments.values()):
            if new is not None:
                new.service.presences.take_over(old.service.presences)
            old.service.close()


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
