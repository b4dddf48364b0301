"""The list of an owner's sessions, by which any process finds them without listing the store.

It is a private session of the owner with an empty file for each session, written with the session's
first save. ``max_owner``, ``max_owner_files`` and ``my_files`` have each session recorded; the
Gradio adapter records those with files under paths of Gradio's.
"""

from __future__ import annotations

import contextvars
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sessionstore._threads import run_together
from sessionstore.backend import Backend
from sessionstore.content import HASHERS, Content
from sessionstore.model import Saved, SessionKey
from sessionstore.names import is_private, is_sid, private_key
from sessionstore.retention import Retention

_NEWEST: Final = 100
"""The most sessions of one owner that are looked at; a visitor has a few tabs."""

_REMEMBERED: Final = 20_000
_HOUR: Final = timedelta(hours=1)
_LOCKS: Final = 64


class OwnerLists:
    """The lists of all owners. ``backend`` and ``retention`` return the store's present ones."""

    def __init__(self, backend: Callable[[], Backend], retention: Callable[[], Retention]) -> None:
        self._backend = backend
        self._retention = retention
        self._lock = threading.Lock()
        self._listed: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._listing = [threading.Lock() for _ in range(_LOCKS)]
        self.complete = False
        """Whether each session of an owner is recorded at its first save, whoever saves."""
        self.tidied = False
        """Whether an adapter deletes the entries of dropped sessions."""
        self.seen = False
        """Whether a sweep has listed such lists: another process may keep them."""
        self.private: set[str] = set()
        """The purposes of an adapter's private sessions that have files of an owner."""

    def newest(self, owner: str) -> list[str]:
        """Return the owner's sessions with files, the newest first; at most 100."""
        return self._listing_of(owner)[:_NEWEST]

    def sids(self, owner: str) -> list[str]:
        """Return all sessions with files of the owner, with an adapter's private ones."""
        private = [private_key(purpose, owner).sid for purpose in sorted(self.private)]
        return [*private, *self._listing_of(owner)]

    def _listing_of(self, owner: str) -> list[str]:
        entries = self._backend().files(list_key(owner).sid)
        newest = sorted(entries, key=lambda entry: entry.created, reverse=True)
        return [entry.name for entry in newest if is_sid(entry.name)]

    def has(self, owner: str, sid: str, trusted: timedelta) -> bool:
        """Return whether this process has recorded the session within the time ``trusted``."""
        with self._lock:
            listed = self._listed.get((owner, sid))
        return listed is not None and self._backend().now() - listed < trusted

    def _is_recent(self, owner: str, sid: str) -> bool:
        """Return whether the entry need not be written again. The list must not become idle."""
        policy = self._retention()
        seldom = _HOUR if policy.idle is None else min(policy.idle / 3, _HOUR)
        return self.has(owner, sid, max(seldom, policy.linger))

    def listing(self, key: SessionKey, put: Callable[[], Saved]) -> Saved:
        """Save a file by ``put()``, and record its session, on a bucket at the same time."""
        owner, sid = key.owner, key.sid
        if owner is None or is_private(key) or self._is_recent(owner, sid):
            return put()
        saved: list[Saved] = []
        tasks = [lambda: saved.append(put()), lambda: self.record(owner, sid)]
        calls = [partial(contextvars.copy_context().run, task) for task in tasks]
        run_together(calls, getattr(self._backend(), "at_once", 1))
        return saved[0]

    def record(self, owner: str, sid: str) -> None:
        """Record that this session has files of its owner."""
        pair, backend = (owner, sid), self._backend()
        now = backend.now()
        with self._listing[hash(pair) % _LOCKS]:  # files of one event are saved at the same time
            # A session that was not used for the linger may have been dropped, and its entry.
            if self.has(owner, sid, self._retention().linger):
                return
            with self._lock:
                # Without a look at the first time: an entry has no bytes, so none has others.
                fresh = pair not in self._listed
            backend.put(list_key(owner), sid, _empty(backend.digest), fresh=fresh)
            with self._lock:
                self._listed[pair] = now
                while len(self._listed) > _REMEMBERED:
                    self._listed.popitem(last=False)

    def forget(self, owner: str, sid: str) -> None:
        """Delete the entry of a session that was dropped."""
        self.forgotten(owner, sid)
        self._backend().delete(list_key(owner).sid, [sid])

    def forgotten(self, owner: str, sid: str) -> None:
        """Trust the entry no longer: another process or an adapter deletes it."""
        with self._lock:
            self._listed.pop((owner, sid), None)

    def touch(self, owner: str) -> None:
        """Mark the owner's list as used, so that it does not become idle."""
        self._backend().touch(list_key(owner).sid)


def list_key(owner: str) -> SessionKey:
    """Return the key of the owner's list."""
    return private_key("gradio tabs", owner)  # the name that the lists of older versions have


def may_be_list(sid: str) -> bool:
    """Return whether a stored name is that of an owner's list, or of a session of the same id."""
    return sid.startswith(_LIST)


_LIST: Final = f"{list_key('any').sid.rpartition('-')[0]}-"


def _empty(digest: str) -> Content:
    return Content(HASHERS[digest](b"").hexdigest(), 0, memoryview(b""))
