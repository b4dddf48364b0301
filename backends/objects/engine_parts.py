"""Parts that engines share: a client for all threads, error rows, the check of empty listings."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sessionstore.errors import BackendUnavailable, LimitExceeded, SessionStoreError, SettingsError

from . import keys
from .client import Download, NotFound

Client = Any
"""A client of a cloud library; ``Any``, because botocore creates its methods at run time."""


class Connection:
    """One client, created on first use and again after a fork. Thread-safe."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: Client | None = None
        _connections.add(self)

    @property
    def client(self) -> Client:
        if self._client is None:
            with self._lock:  # boto3 cannot create clients from several threads at once
                if self._client is None:
                    self._client = self._make()
        return self._client

    def close(self) -> None:
        """Close the client, if any; the next use creates a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def forget(self) -> Client | None:
        """Return the client, and create another one at the next use.

        The lock is replaced: after a fork, a thread that exists only in the parent may hold it.
        """
        self._lock = threading.Lock()
        client, self._client = self._client, None
        return client


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_parents: list[Client] = []
"""The clients of the parent, in the child of a fork: to free them would touch their connections."""


def _after_fork() -> None:
    _parents.extend(filter(None, [connection.forget() for connection in _connections]))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Errors


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """The reason of a failure and its remedy, as the end of the sentence "Could not ...: ...".

    ``why`` may hold the names of facts in braces, such as ``{detail}``. ``setting``: another
    setting would cure it, so it is a SettingsError while the store is being opened. ``full``: there
    is no space left, so it is a LimitExceeded. Any other failure is a BackendUnavailable.
    """

    why: str
    setting: bool = False
    full: bool = False

    def error(
        self, doing: str, url: str, facts: Mapping[str, str], *, opening: bool
    ) -> SessionStoreError:
        """Return the error to raise. ``doing`` completes "Could not ..."; ``url`` is the store.

        ``opening``: the store is being opened.
        """
        kind: type[SessionStoreError] = LimitExceeded if self.full else BackendUnavailable
        if opening:
            doing, kind = "open the store", SettingsError if self.setting else kind
        return kind(f"Could not {doing} in {url}: {self.why.format_map(facts)}.")


CLOSED = ErrorRow("the store is closed")


def by_class(rows: Mapping[str, ErrorRow], error: BaseException) -> ErrorRow:
    """Return the row for the class of ``error`` or its nearest base class, by name.

    ``rows`` must have a row "Exception".
    """
    names = (kind.__name__ for kind in type(error).__mro__)
    return next(rows[name] for name in names if name in rows)


def one_line(error: BaseException) -> str:
    """Return the message of ``error`` on one line, without its full stop; else its class name."""
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


# Empty listings

_RECENT = 60.0
"""Seconds for which one read of the marker is enough, for listings that lead to no deletion."""

_SIGN = b'"version"'
"""A part of every ``layout`` object."""


class Marker:
    """Verifies an empty listing by reading the store's own marker, the object ``layout``.

    Some libraries do not show the HTTP response. For them a web page in place of the store, or a
    bucket that is gone for a moment, looks like an empty listing. A sweep that believes it would
    delete referenced content. ``get`` is the client's.
    """

    def __init__(self, get: Callable[[str], Download], url: str) -> None:
        self._get = get
        self._url = url
        self._seen = -_RECENT

    def confirm(self, prefix: str, *, opening: bool) -> None:
        """Raise BackendUnavailable if the marker is missing, so an empty listing is not believed.

        ``opening``: the store is being opened, and may have no marker yet.
        """
        if is_harmless(prefix) and time.monotonic() - self._seen < _RECENT:
            return
        data: bytes | None = None
        with suppress(NotFound), self._get(keys.LAYOUT).stream as stream:
            data = stream.read()
        if data is None and opening:
            return
        if data is None or _SIGN not in data:
            raise BackendUnavailable(
                f"Could not list the objects in {self._url}: the listing is empty, and the store's "
                "own object 'layout' is not there either; see what answers at this URL."
            )
        self._seen = time.monotonic()


def is_harmless(prefix: str) -> bool:
    """Return whether an empty listing of ``prefix`` can cause no deletion.

    That holds for the copies of one content and for the versions of one file, listed by a save.
    """
    return prefix.endswith("/") and prefix not in {keys.BLOBS, keys.SESSIONS, keys.INTENTS}
