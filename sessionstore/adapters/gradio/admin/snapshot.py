"""The data of the dashboard: a snapshot of a store, and the counters of this process."""

from __future__ import annotations

import heapq
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sessionstore.backend import HasFreeSpace
from sessionstore.model import SessionKey, SessionRecord, Stored
from sessionstore.names import is_private

if TYPE_CHECKING:
    from sessionstore.events import Event
    from sessionstore.store import SessionStore

State = Literal["live", "idle", "lingering", "shared", "adapter", "nameless"]

INTERNAL: Final = frozenset({"shared", "adapter"})
"""The states of sessions that are no visitor's."""

SAMPLES: Final = 360
"""The most points of the chart. Beyond it every second point is removed: its memory is bounded."""

DELETIONS: Final = 10
"""The most recent deletions of this process that the page shows."""

_PAUSE: Final = 20
"""Seconds between samples for each second that a sample took, so at most 5 % of the time."""

_THREADS: Final = 16
"""The number of sessions read at a time: a bucket answers each request in some milliseconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of sessions."""

    key: SessionKey
    state: State
    active: datetime
    oldest: datetime | None
    files: int
    bytes: int


class Order(NamedTuple):
    """A way to choose the sessions of a page by their records, and to sort their rows."""

    label: str
    column: str
    chosen: Callable[[SessionRecord], float]
    shown: Callable[[Row], float]
    by_record: bool
    """True if the order holds for the whole store, False if it sorts the rows of the page only."""


def _newest(it: SessionRecord | Row) -> float:
    return it.active.timestamp()


def _idle(it: SessionRecord | Row) -> float:
    return -it.active.timestamp()


def _age(it: SessionRecord | Row) -> float:
    return float("-inf") if it.oldest is None else -it.oldest.timestamp()


ORDERS: Final[Mapping[str, Order]] = {
    "recent": Order("Recently active", "active", _newest, _newest, by_record=True),
    "idle": Order("Longest idle", "active", _idle, _idle, by_record=True),
    "oldest": Order("Oldest files", "oldest", _age, _age, by_record=True),
    "largest": Order("Largest", "bytes", _newest, lambda it: it.bytes, by_record=False),
    "files": Order("Most files", "files", _newest, lambda it: it.files, by_record=False),
}
"""Each order puts the greatest value first."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A store at one moment. The sums are over ``rows``: all sessions if ``whole``."""

    at: datetime
    seconds: float
    sessions: int
    live: int
    rows: list[Row]
    files: int
    bytes: int
    stored: Stored
    free: int | None
    order: Order

    @property
    def whole(self) -> bool:
        """True if the page has every session of the store."""
        return len(self.rows) == self.sessions

    @property
    def own(self) -> int:
        """The number of internal sessions of the page."""
        return sum(row.state in INTERNAL for row in self.rows)


def take_snapshot(store: SessionStore, order: str, limit: int) -> Snapshot:
    """Read ``store`` and return the ``limit`` sessions that come first in ``order``.

    However many sessions the store has, only those of the page take requests: three each on a
    bucket.
    """
    began, now = time.perf_counter(), store.now()
    by = ORDERS.get(order, ORDERS["recent"])
    sessions = live = 0

    def counted(record: SessionRecord) -> SessionRecord:
        nonlocal sessions, live
        sessions += 1
        live += _state(store, record, now) == "live"
        return record

    records = map(counted, store.backend.sessions())
    page = heapq.nlargest(limit, records, key=by.chosen)
    with ThreadPoolExecutor(_THREADS, "sessionstore-dashboard") as pool:
        rows = list(pool.map(lambda record: _row(store, record, now), page))
    rows.sort(key=by.shown, reverse=True)
    if len(rows) == sessions:  # the rows know which sessions are internal
        live = sum(row.state == "live" for row in rows)
    backend = store.backend
    free = backend.free() if isinstance(backend, HasFreeSpace) else None
    stored = _stored(store)
    watch(store).add_sample(now, stored.bytes)
    return Snapshot(
        now, time.perf_counter() - began, sessions, live, rows, sum(row.files for row in rows),
        sum(row.bytes for row in rows), stored, free, by,
    )  # fmt: skip


def _stored(store: SessionStore) -> Stored:
    """Return the size of the content: that of the last sweep if it listed it, else of now."""
    if store.swept is None or store.swept.stored is None:
        return store.backend.stored()
    return store.swept.stored


def _row(store: SessionStore, record: SessionRecord, now: datetime) -> Row:
    files = size = 0
    oldest: datetime | None = None
    for reference in store.backend.files(record.sid):
        files, size = files + 1, size + reference.size
        oldest = reference.created if oldest is None else min(oldest, reference.created)
    key, state = store.backend.identify(record.sid), _state(store, record, now)
    if key is None:  # a crash can leave a session without its id
        key, state = SessionKey.nameless(record.sid), "nameless"
    elif is_private(key):
        state = "adapter"
    return Row(key, state, record.active, oldest, files, size)


def _state(store: SessionStore, record: SessionRecord, now: datetime) -> State:
    if record.sid == store.shared.sid:
        return "shared"
    if record.ended is not None:
        return "lingering"
    return "live" if store.retention.is_live(record, now) else "idle"


class Sample(NamedTuple):
    """The size of all blobs at one moment, in bytes."""

    at: datetime
    bytes: int


@dataclass
class Watch:
    """The counters and samples of one store in this process. The store does not save them."""

    since: datetime
    samples: list[Sample] = field(default_factory=list)
    saved: int = 0
    duplicates: int = 0
    duplicate_bytes: int = 0
    refused: int = 0
    sweep: Event | None = None
    """The newest event ``sweep_finished``, ``sweep_held`` or ``sweep_failed``."""
    deleted: deque[Event] = field(default_factory=lambda: deque(maxlen=DELETIONS))
    """The newest deletions of sessions and files, the newest first."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _not_before: float = 0.0

    def count(self, event: Event) -> None:
        """Add ``event`` to the counters."""
        with self._lock:
            if event.kind == "saved":
                self.saved += 1
            elif event.kind == "deduplicated":
                self.duplicates += 1
                self.duplicate_bytes += event.size
            elif event.kind == "limit_exceeded":
                self.refused += 1
            elif event.kind in {"dropped", "expired", "deleted"}:
                self.deleted.appendleft(event)
            elif event.kind != "sweep_finished" or not self._was_held(event):
                self.sweep = event

    def _was_held(self, finished: Event) -> bool:
        """Return True if the sweep emitted ``sweep_held`` just before."""
        last, second = self.sweep, timedelta(seconds=1)
        return last is not None and last.kind == "sweep_held" and finished.at - last.at < second

    def add_sample(self, at: datetime, size: int) -> None:
        """Add a point to the chart: all blobs took ``size`` bytes at the time ``at``."""
        with self._lock:
            self.samples.append(Sample(at, size))
            if len(self.samples) > SAMPLES:
                del self.samples[1::2]

    def sample(self, store: SessionStore) -> None:
        """Add the present size of ``store``, unless its listing is slow and was done recently."""
        began = time.monotonic()
        if began >= self._not_before:
            self.add_sample(store.now(), _stored(store).bytes)
            ended = time.monotonic()
            self._not_before = ended + _PAUSE * (ended - began)


_COUNTED: Final = (
    "saved", "deduplicated", "limit_exceeded", "dropped", "expired", "deleted", "sweep_finished",
    "sweep_held", "sweep_failed",
)  # fmt: skip
_lock = threading.Lock()
_watches: weakref.WeakKeyDictionary[SessionStore, Watch] = weakref.WeakKeyDictionary()


def watch(store: SessionStore) -> Watch:
    """Return the counters of ``store``. They start at the first call."""
    with _lock:
        found = _watches.get(store)
        if found is None:
            found = _watches[store] = Watch(store.now())
            for kind in _COUNTED:
                store.on(kind, found.count)
            # The callback is kept by the store, so it must not keep the store alive.
            reference, sample = weakref.ref(store), found.sample
            store.on("sweep_finished", lambda _: _sample(reference, sample))
        return found


def _sample(reference: weakref.ref[SessionStore], sample: Callable[[SessionStore], None]) -> None:
    store = reference()
    if store is not None:
        sample(store)
