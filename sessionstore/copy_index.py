"""The index of a cache of local copies: sizes, last uses, pins. No I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

HELD = 600.0
"""Seconds for which a copy stays after ``local_path`` returned it, even above the cap."""

RECHECK = 2.0
"""Seconds for which a check that a file still exists is trusted."""

_SLACK = 0.9
"""The part of the cap that an eviction leaves, so that not every new copy needs an eviction."""


class CopyKey(NamedTuple):
    """One copy: session, and folders of name and version."""

    sid: str
    name: str
    version: str


@dataclass(slots=True)
class _Copy:
    size: int
    used: float
    checked: float
    pins: int = 0


class CopyIndex:
    """The copies of one process. Sizes are in bytes; ``cap`` is None for no limit."""

    def __init__(
        self, cap: int | None = None, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.cap = cap
        self._seconds = seconds
        self._lock = threading.Lock()
        self._by_session: dict[str, dict[CopyKey, _Copy]] = {}
        self._total = 0

    def made(self, place: CopyKey, size: int) -> None:
        """Note that a copy of an existing file was made."""
        with self._lock:
            self._forget(place)
            now = self._seconds()
            self._by_session.setdefault(place.sid, {})[place] = _Copy(size, now, now)
            self._total += size

    def use(self, place: CopyKey) -> bool:
        """Note a use; return True if the file was checked within the last ``RECHECK`` seconds."""
        with self._lock:
            copy = self._by_session.get(place.sid, {}).get(place)
            if copy is None:
                return False
            copy.used = self._seconds()
            return copy.used - copy.checked < RECHECK

    def checked(self, place: CopyKey) -> None:
        """Note that the file was checked and exists."""
        with self._lock:
            copy = self._by_session.get(place.sid, {}).get(place)
            if copy is not None:
                copy.checked = self._seconds()

    @contextmanager
    def pinned(self, place: CopyKey) -> Iterator[None]:
        """Keep the copy from being evicted inside the block."""
        self._pin(place, 1)
        try:
            yield
        finally:
            self._pin(place, -1)

    def _pin(self, place: CopyKey, by: int) -> None:
        with self._lock:
            copy = self._by_session.get(place.sid, {}).get(place)
            if copy is not None:
                copy.pins += by
                copy.used = self._seconds()

    def forget(self, sid: str, name: str | None = None) -> bool:
        """Forget a session's copies, or those of one file; whether there were any."""
        with self._lock:
            places = [it for it in self._by_session.get(sid, {}) if name in (None, it.name)]
            for place in places:
                self._forget(place)
            return bool(places)

    def drop(self, place: CopyKey) -> None:
        """Forget one copy."""
        with self._lock:
            self._forget(place)

    def _forget(self, place: CopyKey) -> None:
        copies = self._by_session.get(place.sid, {})
        copy = copies.pop(place, None)
        if copy is not None:
            self._total -= copy.size
        if not copies:
            self._by_session.pop(place.sid, None)

    def over(self, coming: int) -> list[CopyKey]:
        """Return the copies to remove, least recently used first, to fit ``coming`` more bytes.

        Copies that are pinned, or were used within ``HELD`` seconds, are never evicted, so the
        cache can exceed the cap while all copies are in use.
        """
        with self._lock:
            if self.cap is None or self._total + coming <= self.cap:
                return []
            excess = self._total + coming - int(self.cap * _SLACK)
            idle = self._seconds() - HELD
            free = sorted(
                (copy.used, place, copy.size)
                for copies in self._by_session.values()
                for place, copy in copies.items()
                if not copy.pins and copy.used <= idle
            )
            doomed: list[CopyKey] = []
            for _, place, size in free:
                if excess <= 0:
                    break
                excess -= size
                doomed.append(place)
                self._forget(place)
            return doomed

    def sessions(self) -> list[str]:
        """Return the sessions that have copies."""
        with self._lock:
            return list(self._by_session)

    def of(self, sid: str) -> list[CopyKey]:
        """Return the copies of a session."""
        with self._lock:
            return list(self._by_session.get(sid, ()))

    def clear(self) -> None:
        """Forget all copies."""
        with self._lock:
            self._by_session.clear()
            self._total = 0
