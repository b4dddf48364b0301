"""Per-process caches of store lookups. They save requests; correctness never depends on them alone.

Every cache is bounded and may be lost without harm. Each is used under a rule that holds for any
change that other processes make:

* a *generation* (one copy of a content) and its birth, so that a save can adopt it again. The
  birth rule decides whether that was in time, not the cache;
* the *current version* of a file, for ``RECENT`` seconds. Reads rely on it, saves never do: a save
  acknowledged without a request is lost when another process has deleted the file in between;
* *dead* generations (their bytes are missing) and *bad* ones (their bytes are wrong). No key is
  ever written again, so these entries stay true.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from sessionstore.model import Reference, SessionKey

K = TypeVar("K")
V = TypeVar("V")

RECENT = 2.0
"""Seconds for which a looked-up version counts as the current one."""

SIZE = 1000
"""Entries in each cache: 1000 x at most 1 KB is 1 MB."""

_STRIPES = 256


class Lru(Generic[K, V]):
    """A bounded dictionary that evicts the least recently used entry. Thread-safe."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

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


class Generation(NamedTuple):
    """A copy of a content.

    ``birth`` is a time, by the store's clock, that is not after its creation. ``uploaded``: the
    save that refers to it made it. ``intents``: the key of the intent of a multipart upload.
    """

    id: str
    birth: datetime
    uploaded: bool = False
    intents: tuple[str, ...] = ()


class CachedVersion(NamedTuple):
    """The version that was current at the time ``at`` (in ``elapsed()`` seconds).

    It was saved at ``modified``, or at most a second and one request earlier.
    """

    reference: Reference
    at: float
    modified: datetime


class LookupCache:
    """The caches of one backend."""

    def __init__(self) -> None:
        self.born: Lru[str, Generation] = Lru()  # by digest
        self.dead: Lru[str, bool] = Lru()  # by generation
        self.bad: Lru[str, bool] = Lru()  # by generation
        self.keys: Lru[str, SessionKey] = Lru()  # by sid; they never change
        self.saved: Lru[str, int] = Lru()  # by sid: the time of its newest note by this process

        self._sights: Lru[tuple[str, str], CachedVersion] = Lru()
        self._changes = [0] * _STRIPES
        self._lock = threading.Lock()

    def epoch(self, sid: str) -> int:
        """Return the session's change counter. Take it before a lookup, and pass it to ``add``."""
        return self._changes[_stripe(sid)]

    def changed(self, sid: str, *files: str) -> None:
        """Note that these files of the session were deleted or replaced.

        Results of lookups that started earlier are then not cached.
        """
        with self._lock:
            self._changes[_stripe(sid)] += 1
        for file in files:
            self._sights.pop((sid, file))

    def add(
        self, sid: str, file: str, sight: CachedVersion, ticket: int, *, new: bool = False
    ) -> None:
        """Cache the result of a lookup, unless the session changed since ``epoch`` was taken.

        ``new``: the result comes from a save that replaced a file, so lookups that are still
        running must not be cached.
        """
        with self._lock:
            if self.epoch(sid) == ticket:
                self._sights.put((sid, file), sight)
            else:
                self._sights.pop((sid, file))
            if new:
                self._changes[_stripe(sid)] += 1

    def sight(self, sid: str, file: str) -> CachedVersion | None:
        return self._sights.get((sid, file))


def _stripe(sid: str) -> int:
    # Not hash(): it differs between processes, and an explorer run must be repeatable by its seed.
    return zlib.crc32(sid.encode()) % _STRIPES
