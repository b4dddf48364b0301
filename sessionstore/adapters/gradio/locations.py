"""A cache of the versions of files and the sessions that they are in, for one process. No I/O."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sessionstore.copy_index import RECHECK
from sessionstore.model import Reference

REMEMBERED: Final = 20_000
"""The most file names in the cache. Others are looked up in the store again."""


@dataclass(slots=True)
class _Location:
    reference: Reference
    at: float


class LocationCache:
    """Files by name, owner and session: the last seen ones, at most ``REMEMBERED`` names."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._by_name: OrderedDict[str, dict[str | None, dict[str, _Location]]] = OrderedDict()
        self._by_session: dict[str, set[str]] = {}

    def add(self, owner: str | None, name: str, sid: str, reference: Reference) -> None:
        """Note that the session has this version of the file now."""
        with self._lock:
            sights = self._by_name.setdefault(name, {}).setdefault(owner, {})
            sights[sid] = _Location(reference, self.seconds())
            self._by_session.setdefault(sid, set()).add(name)
            self._by_name.move_to_end(name)
            if len(self._by_name) > REMEMBERED:
                self._forget(next(iter(self._by_name)))

    def fresh(self, owner: str | None, name: str) -> tuple[str, Reference] | None:
        """Return session and version of the owner's file, if seen within ``RECHECK`` seconds."""
        now = self.seconds()
        with self._lock:
            for sid, sight in self._by_name.get(name, {}).get(owner, {}).items():
                if now - sight.at < RECHECK:
                    return sid, sight.reference
        return None

    def sessions(self, owner: str | None, name: str) -> list[str]:
        """Return the sessions that the owner's file was seen in, except where it was deleted."""
        with self._lock:
            return list(self._by_name.get(name, {}).get(owner, ()))

    def recent(self, owner: str | None, name: str, sid: str) -> Reference | None:
        """Return the version in that session, if it was seen within ``RECHECK`` seconds."""
        now = self.seconds()
        with self._lock:
            sight = self._by_name.get(name, {}).get(owner, {}).get(sid)
            return None if sight is None or now - sight.at >= RECHECK else sight.reference

    def discard(self, sid: str, name: str) -> None:
        """Note that the session no longer has the file."""
        with self._lock:
            self._gone(sid, name)

    def discard_session(self, sid: str) -> None:
        """Note that the session was deleted."""
        with self._lock:
            for name in list(self._by_session.get(sid, ())):
                self._gone(sid, name)

    def _gone(self, sid: str, name: str) -> None:
        owners = self._by_name.get(name, {})
        for owner in [owner for owner, sights in owners.items() if sid in sights]:
            del owners[owner][sid]
            if not owners[owner]:
                del owners[owner]
        if not owners:
            self._by_name.pop(name, None)
        names = self._by_session.get(sid, set())
        names.discard(name)
        if not names:
            self._by_session.pop(sid, None)

    def _forget(self, name: str) -> None:
        for sights in list(self._by_name[name].values()):
            for sid in list(sights):
                self._gone(sid, name)
        self._by_name.pop(name, None)
