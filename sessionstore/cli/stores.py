"""Lookups for the command line: the store, a session in it, the local path for a file."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sessionstore import settings
from sessionstore.audit import acting
from sessionstore.cli.output import count, plain
from sessionstore.errors import SessionStoreError, SettingsError
from sessionstore.limits import Limits
from sessionstore.model import SessionKey, SessionRecord
from sessionstore.names import is_sid, shared_key
from sessionstore.session import Session
from sessionstore.settings.location import redacted
from sessionstore.store import SessionStore
from sessionstore.verification import is_nameless
from sessionstore.wrapping import Call, HasClient, wrap_methods

SHARED = "@shared"  # the name of the app's own session on the command line


class NotThere(SessionStoreError):
    """The session or file does not exist: exit status 3."""


class Ambiguous(SessionStoreError):
    """The arguments fit several sessions or files: exit status 2."""


def settings_of(url: str | None) -> settings.Settings:
    """Return the settings that ``SessionStore.open(url)`` would use here. Raises SettingsError."""
    return settings.resolve(url, {}, os.environ, Path.cwd())


@contextlib.contextmanager
def opened(url: str | None, *, make: bool = False, saves: bool = False) -> Iterator[SessionStore]:
    """Open the store for one command and close it afterwards.

    ``make`` creates the store if it does not exist; without it, SettingsError is raised. ``saves``
    applies the limits of the settings. The setting ``restart`` is for the app and is ignored:
    opening the store for a command never drops a session.
    """
    resolved = settings_of(url)
    if not make and not _exists(resolved):
        raise SettingsError(
            f"There is no store at {plain(redacted(resolved.location.url))}: check the URL, or "
            "save a file first."
        )
    limits = {} if saves else {"limits": Limits()}
    with (
        acting(f"{user()}, on the command line"),
        SessionStore.open(url, restart="keep", **limits) as store,  # type: ignore[arg-type]  # mypy takes limits for any option
    ):
        yield store


def counted(store: SessionStore, advance: Callable[[int], None]) -> None:
    """Call ``advance(1)`` for each session that the store lists from now on."""

    def counting(call: Call) -> Call:
        def sessions() -> Iterator[SessionRecord]:
            for record in call():
                advance(1)
                yield record

        return sessions

    store.wrap(lambda backend: wrap_methods(backend, {"sessions": counting}))


def reads(store: SessionStore) -> int | None:
    """Return about how many reads a verification of all content takes.

    None for a backend without a client: its reads cannot be counted.
    """
    if not isinstance(store.backend, HasClient):
        return None
    return store.backend.stored().blobs + sum(1 for _ in store.backend.sessions())


def counted_reads(store: SessionStore, advance: Callable[[int], None]) -> None:
    """Call ``advance(1)`` for each read from a bucket from now on."""

    def counting(call: Call) -> Call:
        def get(*args: Any, **options: Any) -> Any:
            advance(1)
            return call(*args, **options)

        return get

    if isinstance(store.backend, HasClient):
        store.backend.wrap_client(lambda client: wrap_methods(client, {"get": counting}))


def _exists(resolved: settings.Settings) -> bool:
    """Return whether the store exists already.

    Each store has a file ``layout``. Opening the store to find out would create it.
    """
    if resolved.location.scheme == "file":
        return os.path.exists(os.path.join(resolved.location.path, "layout"))
    open_client = getattr(resolved.backend, "open_client", None)
    if open_client is None:
        return True  # a third-party backend: only that backend could find out
    from sessionstore.backends.objects.client import NotFound

    with contextlib.closing(open_client(resolved.location, resolved.backend_options)) as client:
        try:
            client.get("layout").stream.close()
        except NotFound:
            return False
    return True


def find(store: SessionStore, text: str, owner: str | None) -> Session:
    """Return the existing session for ``text``: an id, a stored name or ``@shared``.

    Without an ``owner``, an id is enough if only one owner has a session of it. Raises NotThere,
    Ambiguous, InvalidName.
    """
    session = named(store, text, owner)
    if store.backend.session(session.sid) is not None:
        return session
    if owner is None:
        owned = [session for session in store.sessions() if session.id == text]
        if len(owned) == 1:
            return owned[0]
        if owned:
            raise Ambiguous(
                f"{count(len(owned), 'owner')} have a session of this id: choose one with --owner, "
                "or by its stored name, which `sessionstore sessions` shows."
            )
    raise NotThere(f"There is no session {text!r}: `sessionstore sessions` lists all sessions.")


def named(store: SessionStore, text: str, owner: str | None) -> Session:
    """Return the session for ``text`` as ``find`` does, also if it does not exist yet."""
    if text in {SHARED, shared_key().sid}:
        return store.shared
    found = identified(store, text) if is_sid(text) and owner is None else None
    return found or store.session(text, owner)


def identified(store: SessionStore, sid: str) -> Session | None:
    """Return the session of a stored name, also without a readable id; None if it is gone."""
    key = store.backend.identify(sid)
    if key is None and is_nameless(store.backend, sid):
        key = SessionKey.nameless(sid)
    return None if key is None else Session(store, key)


def target(folder: Path, name: str) -> Path:
    """Return the local path below ``folder`` for a stored file.

    Raises SessionStoreError for a name that this system cannot have, or that leads through a link.
    ``names`` has refused absolute names and names that lead upwards.
    """
    parts = name.split("/")
    # Other systems have other separators and reserved characters.
    if os.sep != "/" and any(set(part) & set('\\:*?"<>|') for part in parts):
        raise SessionStoreError(
            f"{plain(name)!r} cannot be a file name on this system: use `cat` and choose a name."
        )
    for depth in range(1, len(parts)):
        # An existing folder can be a link to a directory outside of ``folder``.
        if folder.joinpath(*parts[:depth]).is_symlink():
            raise SessionStoreError(
                f"{plain(name)!r} would be written through a link: choose another --to."
            )
    return folder.joinpath(*parts)


def user() -> str:
    """Return the user who runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
