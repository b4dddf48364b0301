"""What the dashboard shows: one look at a store, and what this process heard of it meanwhile.

A look is bounded in the number of sessions whose files it counts, whatever the number in the store:
the page of sessions is chosen from the records that a listing gives, and only their files are read.
"""

from __future__ import annotations

import heapq
import threading
import time
import weakref
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

State = Literal["live", "quiet", "lingering", "shared", "adapter", "nameless"]

SAMPLES: Final = 360
"""Points of the chart. With one more, every second one goes: the span grows, memory does not."""

_SPARED: Final = 20
"""A measurement that took a second is not repeated within this many: at most 5 % of the time."""

_THREADS: Final = 16
"""Sessions whose files are asked for at once: a bucket answers each after some milliseconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One session of the page."""

    key: SessionKey
    state: State
    active: datetime
    oldest: datetime | None
    files: int
    bytes: int


class Order(NamedTuple):
    """A way to sort: which sessions a page takes by their records, then how it shows them."""

    label: str
    column: str
    chosen: Callable[[SessionRecord], float]
    shown: Callable[[Row], float]
    by_record: bool
    """Whether the order holds for the whole store, and not for the page alone."""


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
"""Each puts the greatest first."""


@dataclass(frozen=True, slots=True)
class Look:
    """A store at one moment. The sums are over ``rows``: all sessions when ``whole``."""

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
        """Whether the page has every session of the store."""
        return len(self.rows) == self.sessions

    @property
    def own(self) -> int:
        """How many of the page's sessions are no visitor's: the shared one, an adapter's."""
        return sum(row.state in {"shared", "adapter"} for row in self.rows)


def look(store: SessionStore, order: str, most: int) -> Look:
    """Look at the store; ``most`` sessions have their files counted.

    One listing of the sessions, one of the content, and the files and ids of ``most`` sessions,
    three requests each on an object store. Raises what the backend raises.
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
    page = heapq.nlargest(most, records, key=by.chosen)
    with ThreadPoolExecutor(_THREADS, "sessionstore-dashboard") as pool:
        rows = list(pool.map(lambda record: _row(store, record, now), page))
    rows.sort(key=by.shown, reverse=True)
    if len(rows) == sessions:  # who is a visitor's is known by now
        live = sum(row.state == "live" for row in rows)
    backend = store.backend
    free = backend.free() if isinstance(backend, HasFreeSpace) else None
    stored = backend.stored()
    watch(store).measured(now, stored.bytes)
    return Look(
        now, time.perf_counter() - began, sessions, live, rows, sum(row.files for row in rows),
        sum(row.bytes for row in rows), stored, free, by,
    )  # fmt: skip


def _row(store: SessionStore, record: SessionRecord, now: datetime) -> Row:
    files = size = 0
    oldest: datetime | None = None
    for reference in store.backend.files(record.sid):
        files, size = files + 1, size + reference.size
        oldest = reference.created if oldest is None else min(oldest, reference.created)
    key, state = store.backend.identify(record.sid), _state(store, record, now)
    if key is None:  # a crash can leave a session that does not know its id
        key, state = SessionKey.nameless(record.sid), "nameless"
    elif is_private(key):
        state = "adapter"
    return Row(key, state, record.active, oldest, files, size)


def _state(store: SessionStore, record: SessionRecord, now: datetime) -> State:
    if record.sid == store.shared.sid:
        return "shared"
    if record.ended is not None:
        return "lingering"
    return "live" if store.retention.is_live(record, now) else "quiet"


class Sample(NamedTuple):
    """What all content took at one moment, in bytes."""

    at: datetime
    bytes: int


@dataclass
class Watch:
    """What this process saw of a store since it was first asked; the store keeps nothing of it."""

    since: datetime
    samples: list[Sample] = field(default_factory=list)
    saved: int = 0
    saved_bytes: int = 0
    spared: int = 0
    spared_bytes: int = 0
    refused: int = 0
    sweep: Event | None = None
    """The newest of ``sweep_finished``, ``sweep_held`` and ``sweep_failed``."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _not_before: float = 0.0

    def heard(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            if event.kind == "saved":
                self.saved, self.saved_bytes = self.saved + 1, self.saved_bytes + event.size
            elif event.kind == "deduplicated":
                self.spared, self.spared_bytes = self.spared + 1, self.spared_bytes + event.size
            elif event.kind == "limit_exceeded":
                self.refused += 1
            elif event.kind != "sweep_finished" or not self._is_the_same_sweep(event):
                self.sweep = event

    def _is_the_same_sweep(self, finished: Event) -> bool:
        """A sweep that held back says so just before it is finished."""
        last, second = self.sweep, timedelta(seconds=1)
        return last is not None and last.kind == "sweep_held" and finished.at - last.at < second

    def measured(self, at: datetime, size: int) -> None:
        """Add a point to the chart."""
        with self._lock:
            self.samples.append(Sample(at, size))
            if len(self.samples) > SAMPLES:
                del self.samples[1::2]

    def measure(self, store: SessionStore) -> None:
        """Ask the store what its content takes, unless asking is slow and was done lately."""
        began = time.monotonic()
        if began >= self._not_before:
            self.measured(store.now(), store.backend.stored().bytes)
            ended = time.monotonic()
            self._not_before = ended + _SPARED * (ended - began)


_HEARD: Final = (
    "saved", "deduplicated", "limit_exceeded", "sweep_finished", "sweep_held", "sweep_failed",
)  # fmt: skip
_lock = threading.Lock()
_watches: weakref.WeakKeyDictionary[SessionStore, Watch] = weakref.WeakKeyDictionary()


def watch(store: SessionStore) -> Watch:
    """The store's watch, which begins when it is first asked for."""
    with _lock:
        found = _watches.get(store)
        if found is None:
            found = _watches[store] = Watch(store.now())
            for kind in _HEARD:
                store.on(kind, found.heard)
            here = weakref.ref(store)  # the store holds the callback, which must not hold the store
            measure = found.measure
            store.on("sweep_finished", lambda _: _measured(here, measure))
        return found


def _measured(here: weakref.ref[SessionStore], measure: Callable[[SessionStore], None]) -> None:
    store = here()
    if store is not None:
        measure(store)
