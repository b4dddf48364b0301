"""What one process remembers of the store, so that it need not ask again. Never the only proof.

Everything here is bounded, is lost without harm, and is used under a rule that holds whatever
other processes did meanwhile:

* a *generation* (a copy of a content) and its birth, for adopting it again: the birth rule decides
  whether that was in time, not the memory;
* that a version *is the file*, for ``RECENT`` seconds, which is how late this process may notice
  what another one did. Reads rely on it, saves never do: a save that is acknowledged without a
  request is lost when another process has deleted the file meanwhile;
* *dead* generations, whose bytes are not there, and *bad* ones, whose bytes are wrong: a key is
  never written again, so that stays true.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar, overload

from sessionstore.backend import Reference, SessionKey

K = TypeVar("K")
V = TypeVar("V")

RECENT = 2.0
"""Seconds for which a version that was seen to be the file is taken to be it still."""

SIZE = 1000
"""Entries kept of each kind: 1000 x at most 1 KB is 1 MB."""

_STRIPES = 256


class Lru(Generic[K, V]):
    """A dictionary that forgets what was not asked for the longest. Thread-safe."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._items: OrderedDict[K, V] = OrderedDict()

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V) -> V: ...
    def get(self, key: K, default: V | None = None) -> V | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key, default)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            if len(self._items) > self._size:
                self._items.popitem(last=False)

    def pop(self, key: K) -> None:
        with self._lock:
            self._items.pop(key, None)

    def __len__(self) -> int:
        return len(self._items)


class Born(NamedTuple):
    """A generation and the time it was there at the latest, by the store's clock."""

    generation: str
    birth: datetime


class Sight(NamedTuple):
    """A version that was the file at ``at`` (``elapsed()``)."""

    reference: Reference
    at: float


class Recall:
    """The memory of one backend."""

    def __init__(self) -> None:
        self.born: Lru[str, Born] = Lru()
        """By digest."""

        self.dead: Lru[str, bool] = Lru()
        """By generation."""

        self.bad: Lru[str, bool] = Lru()
        """By generation."""

        self.keys: Lru[str, SessionKey] = Lru()
        """By ``sid``: the id and owner behind it, which never change."""

        self.saved: Lru[str, int] = Lru()
        """By session: the time of the newest ``saved`` that was written here."""

        self._sights: Lru[tuple[str, str], Sight] = Lru()
        self._changes = [0] * _STRIPES
        self._lock = threading.Lock()

    def ticket(self, sid: str) -> int:
        """To be taken before a look at a session, and shown with what was seen."""
        return self._changes[_stripe(sid)]

    def changed(self, sid: str) -> None:
        """Files of the session were deleted or replaced: looks that began before count no more."""
        with self._lock:
            self._changes[_stripe(sid)] += 1

    def saw(self, sid: str, file: str, sight: Sight, ticket: int, *, new: bool = False) -> None:
        """Remember the outcome of a look, unless something was changed here since it began.

        ``new``: it was a save that replaced what others may just be looking at.
        """
        with self._lock:
            if self.ticket(sid) == ticket:
                self._sights.put((sid, file), sight)
            else:
                self._sights.pop((sid, file))
            if new:
                self._changes[_stripe(sid)] += 1

    def sight(self, sid: str, file: str) -> Sight | None:
        """What the file was when it was last looked at, None when that is not known."""
        return self._sights.get((sid, file))

    def forget(self, sid: str, file: str) -> None:
        self._sights.pop((sid, file))


def _stripe(sid: str) -> int:
    return zlib.crc32(sid.encode()) % _STRIPES  # not hash(): a run must be repeatable by its seed
