"""The list of an owner's sessions, by which any replica finds a file that only names its owner."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sessionstore.adapters.gradio.paths import remember
from sessionstore.backend import Forgets
from sessionstore.content import ingest
from sessionstore.names import private_key
from sessionstore.session import Session

if TYPE_CHECKING:
    from sessionstore.model import SessionKey
    from sessionstore.store import SessionStore

_TABS_SEARCHED: Final = 100
"""The most sessions of one owner in which a file is searched; a visitor has a few tabs."""

_SETTLED: Final = timedelta(seconds=2)
"""Lists used more recently are not deleted: some stores count in whole seconds."""

_LOCKS: Final = 64


class OwnerLists:
    """The lists of the owners: private sessions with an empty file for each session."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._listed: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._listing = [threading.Lock() for _ in range(_LOCKS)]

    def newest(self, owner: str) -> list[str]:
        """Return the owner's sessions with files, the newest first."""
        tabs = self._store.backend.files(_tabs(owner).sid)
        newest = sorted(tabs, key=lambda tab: tab.created, reverse=True)
        return [tab.name for tab in newest[:_TABS_SEARCHED]]

    def record(self, owner: str, sid: str) -> None:
        """Record that this session has files of its owner."""
        key, now = (owner, sid), self._store.now()
        with self._listing[hash(key) % _LOCKS]:  # the files of an event are saved together
            with self._lock:
                # A session that was not used for the linger may have been dropped, and its entry.
                listed = self._listed.get(key)
            if listed is None or now - listed >= self._store.retention.linger:
                # Without a look at the first time: an entry has no bytes, so none has others.
                fresh, tabs = listed is None, Session(self._store, _tabs(owner))
                with tabs.pending_save(sid, None, fresh=fresh) as saving:
                    saving.keep(ingest(b"", saving.ingest))
            with self._lock:
                remember(self._listed, key, now)

    def tidy(self, owner: str, sid: str, unclaimed: SessionKey) -> None:
        """Forget a dropped session of the owner, and delete the owner's lists that are empty."""
        if isinstance(self._store.backend, Forgets):  # there a list goes with its last entry
            Session(self._store, _tabs(owner)).delete(sid)
            return
        for key in (_tabs(owner), unclaimed):
            record = self._store.backend.session(key.sid)
            if record is None:
                continue
            others = self._others(key, sid)
            if others:
                Session(self._store, key).delete(sid)
                # Once more: another process may have deleted the other entry at the same time.
                others = self._others(key, sid)
            if not others and self._store.now() - record.active > _SETTLED:
                self._store.drop(key, "its owner left", unless_active_after=record.active)

    def _others(self, key: SessionKey, sid: str) -> bool:
        return any(file.name != sid for file in self._store.backend.files(key.sid))

    def touch(self, owner: str) -> None:
        """Mark the owner's list as used, so that it does not become idle."""
        self._store.backend.touch(_tabs(owner).sid)


def _tabs(owner: str) -> SessionKey:
    return private_key("gradio tabs", owner)
