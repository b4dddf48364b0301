"""Finding things for the command line: the store, a session in it, a file's way to the disk."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sessionstore import settings
from sessionstore.audit import acting
from sessionstore.backend import SessionKey, SessionRecord
from sessionstore.cli_text import count, plain
from sessionstore.errors import SessionStoreError, SettingsError
from sessionstore.limits import Limits
from sessionstore.names import is_sid, shared_key
from sessionstore.session import Session
from sessionstore.store import SessionStore
from sessionstore.urls import shown
from sessionstore.verification import is_nameless
from sessionstore.wrapping import Call, HasClient, around

SHARED = "@shared"
"""How the command line calls the app's own session."""


class NotThere(SessionStoreError):
    """There is no such session or file: exit status 3."""


class Ambiguous(SessionStoreError):
    """It is not clear which one is meant: exit status 2."""


def settings_of(url: str | None) -> settings.Settings:
    """The settings that ``SessionStore.open(url)`` would use here. Raises SettingsError."""
    return settings.resolve(url, {}, os.environ, Path.cwd())


@contextlib.contextmanager
def opened(url: str | None, *, make: bool = False, saves: bool = False) -> Iterator[SessionStore]:
    """The store, for one command.

    It is not made by a command that only looks, unless with ``make``. The limits of the settings
    are those of a command that ``saves``. What ``restart`` says is for the app: no command drops
    anything by opening the store.
    """
    found = settings_of(url)
    if not make and not _is_there(found):
        raise SettingsError(
            f"There is no store at {plain(shown(found.location.url))}: check the place, or save "
            "something first."
        )
    limits = {} if saves else {"limits": Limits()}
    with (
        acting(f"{user()}, on the command line"),
        SessionStore.open(url, restart="keep", **limits) as store,  # type: ignore[arg-type]  # mypy takes limits for any option
    ):
        yield store


def counted(store: SessionStore, advance: Callable[[int], None]) -> None:
    """From now on, advance by one for each session that the store looks at in a listing."""

    def counting(call: Call) -> Call:
        def listing() -> Iterator[SessionRecord]:
            for record in call():
                advance(1)
                yield record

        return listing

    store.wrap(lambda backend: around(backend, {"sessions": counting}))


def reads(store: SessionStore) -> int | None:
    """About how many reads of content a look at all of it takes; None where they are not seen."""
    if not isinstance(store.backend, HasClient):
        return None
    return store.backend.stored().blobs + sum(1 for _ in store.backend.sessions())


def counted_reads(store: SessionStore, advance: Callable[[int], None]) -> None:
    """From now on, advance by one for each read from a bucket."""

    def counting(call: Call) -> Call:
        def get(*args: Any, **options: Any) -> Any:
            advance(1)
            return call(*args, **options)

        return get

    if isinstance(store.backend, HasClient):
        store.backend.wrap_client(lambda client: around(client, {"get": counting}))


def _is_there(found: settings.Settings) -> bool:
    """Whether there is a store already, by the ``layout`` that each has: opening would make one."""
    if found.location.scheme == "file":
        return os.path.exists(os.path.join(found.location.path, "layout"))
    open_client = getattr(found.backend, "open_client", None)
    if open_client is None:
        return True  # another package's backend: nobody knows but itself
    from sessionstore.backends.objects_client import NotFound

    with contextlib.closing(open_client(found.location, found.backend_options)) as client:
        try:
            client.get("layout").stream.close()
        except NotFound:
            return False
    return True


def find(store: SessionStore, text: str, owner: str | None) -> Session:
    """The session that is meant by an id, a stored name or ``@shared``. It has to be there.

    Without an owner, an id that only one owner has a session of is enough. Raises NotThere,
    Ambiguous, InvalidName.
    """
    session = named(store, text, owner)
    if store.backend.session(session.sid) is not None:
        return session
    if owner is None:
        owned = [each for each in store.sessions() if each.id == text]
        if len(owned) == 1:
            return owned[0]
        if owned:
            raise Ambiguous(
                f"{count(len(owned), 'owner')} have a session of this id: say which with --owner, "
                "or by its stored name, which `sessionstore sessions` shows."
            )
    raise NotThere(f"There is no session {text!r}; `sessionstore sessions` lists what there is.")


def named(store: SessionStore, text: str, owner: str | None) -> Session:
    """As ``find``, for a session that need not be there yet."""
    if text in {SHARED, shared_key().sid}:
        return store.shared
    if is_sid(text) and owner is None:
        key = store.backend.identify(text)
        if key is None and is_nameless(store.backend, text):
            key = SessionKey.nameless(text)
        if key is not None:
            return Session(store, key)
    return store.session(text, owner)


def target(folder: Path, name: str) -> Path:
    """Where a stored file goes below a folder. Raises SessionStoreError where it cannot.

    A name cannot be absolute or lead upwards (``names`` has refused that), but a folder that is
    there already may be a link to elsewhere, and other systems have other separators.
    """
    parts = name.split("/")
    if os.sep != "/" and any(set(part) & set('\\:*?"<>|') for part in parts):
        raise SessionStoreError(f"{plain(name)!r} cannot be a file here: use `cat` and a name.")
    for at in range(1, len(parts)):
        if folder.joinpath(*parts[:at]).is_symlink():
            raise SessionStoreError(
                f"{plain(name)!r} would go through a link: choose another --to."
            )
    return folder.joinpath(*parts)


def user() -> str:
    """Who runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
