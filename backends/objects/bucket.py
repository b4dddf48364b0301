"""The requests of the protocol, on top of a client; each response's Date updates the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from sessionstore._threads import WAITS, Deferred, run_together
from sessionstore.errors import BackendUnavailable, SessionStoreError

from . import keys
from .client import (
    BATCH,
    Download,
    Entry,
    Multipart,
    NotFound,
    ObjectClient,
    Part,
    Payload,
    TakesSeveral,
)
from .keys import EPOCH

Elapsed = Callable[[], float]
"""Returns the seconds since a fixed moment, including the time that the machine was suspended."""

RESOLUTION = 1.0
"""The resolution of a Date in seconds (RFC 9110, section 5.6.7)."""

_WINDOW = 300.0
"""Seconds after which bounds are renewed. Clocks may run at different speeds, by up to 500 ppm (the
rate at which NTP may slew); so they stay within 0.3 s of each other."""


boot_time: Elapsed = time.monotonic  # macOS and Windows: there it also counts while asleep
"""Returns the seconds since this machine started, including the time it was suspended."""
if hasattr(time, "CLOCK_BOOTTIME"):
    boot_time = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class _Bounds(NamedTuple):
    """Bounds of the store's time minus ``elapsed()``, in seconds, collected from ``since`` on."""

    low: float
    high: float
    since: float


class StoreClock:
    """An estimate of the store's clock, as a lower and an upper bound. Thread-safe.

    The protocol never uses this machine's time of day. The ``Date`` of a response and the time
    elapsed here since then bound the store's time from both sides:

    * it was at least ``Date`` when the response arrived, so now it is at least ``Date`` plus the
      time elapsed since the response;
    * it was less than ``Date`` + 1 s (a Date is truncated to the second) when the store made the
      response, which was after the request was sent. So now it is less than ``Date`` + 1 s plus the
      time elapsed since the request.

    The best bounds of the last minutes are kept, and used pessimistically. A check that something
    is still young uses ``latest``; births and the times of files use ``now``.
    """

    def __init__(self, elapsed: Elapsed = boot_time) -> None:
        self.elapsed = elapsed
        self._lock = threading.Lock()
        self._bounds: tuple[_Bounds, ...] = ()
        self._low = self._high = 0.0  # the tightest bounds of all ``_bounds``

    def add(self, date: datetime | None, sent: float) -> None:
        """Update the bounds by a response's Date; ``sent``: ``elapsed()`` before the request."""
        if date is None:
            return
        now = self.elapsed()
        seconds = (date - EPOCH).total_seconds()
        new = _Bounds(seconds - now, seconds + RESOLUTION - sent, now)
        # Without the lock, for speed: after a stale read one Date more or less is used.
        if self._bounds:
            newest = self._bounds[0]
            fresh = new.since - newest.since <= _WINDOW
            if fresh and new.low <= newest.low and new.high >= newest.high:
                return  # no tighter, the usual case
        with self._lock:
            bounds = _renewed(self._bounds, new)
            self._low = max(item.low for item in bounds)
            # If the store's own clock was set back, the bounds do not overlap: use the later one.
            self._high = max(min(item.high for item in bounds), self._low)
            self._bounds = bounds  # last: readers take no lock and need matching _low and _high

    def age(self) -> float:
        """Return the age of the current bounds in seconds; infinity if no bounds are known."""
        return self.elapsed() - self._bounds[0].since if self._bounds else float("inf")

    def now(self) -> datetime:
        """Return the lower bound of the store's time. Call ``add`` first."""
        return _time(self._low + self.elapsed())

    def reached(self, at: float) -> datetime:
        """Return a lower bound of the store's time at ``at`` (``elapsed()``); EPOCH if unknown."""
        return _time(self._low + at) if self._bounds else EPOCH

    def latest(self) -> datetime:
        """Return the upper bound of the store's time. Call ``add`` first."""
        return _time(self._high + self.elapsed())


def _renewed(bounds: tuple[_Bounds, ...], new: _Bounds) -> tuple[_Bounds, ...]:
    """Return the bounds of the current window, then those of the window before it."""
    if not bounds or new.since - bounds[0].since > 2 * _WINDOW:
        return (new,)
    newest, *before = bounds
    if new.since - newest.since > _WINDOW:
        return (new, newest)
    tighter = _Bounds(max(newest.low, new.low), min(newest.high, new.high), newest.since)
    return (tighter, *before)


def _time(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


T = TypeVar("T")

READS = 3
"""Reads of a small object that cannot be parsed, before it counts as invalid."""

LISTINGS = 16
"""The most listings of one sweep at the same time: visitors use the same threads."""

SOON = 0.02
"""Seconds for which deletes that no one waits for are collected: one request for all of them.

Not longer, because each save under a name lists the versions that wait for their delete.
"""

_PROBE_AFTER = 300.0
"""Seconds after which the time is requested again, with a client that sees no Date."""


class Waits:
    """Requests side by side and in the background, in threads.

    Not ``parallel``: one after the other, in the calling thread. That is for a client that does not
    wait for a network, where threads cost more than they save.
    """

    def __init__(self, *, parallel: bool) -> None:
        self.parallel = parallel
        self._deferred = Deferred()
        self.drain: Final = self._deferred.drain

    def together(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        """Call the tasks; return their results when all have ended, or raise an error of them."""
        return run_together(tasks, WAITS if self.parallel else 1)

    def later(self, task: Callable[[], object]) -> None:
        """Call a task that raises nothing, ``SOON``, without a wait for it; see ``drain``."""
        if self.parallel:
            self._deferred.call(task, SOON)
        else:
            task()


class Bucket:
    """One client and one clock. Errors of the client pass through."""

    def __init__(self, client: ObjectClient, clock: StoreClock, waits: Waits | None = None) -> None:
        self.client = client
        self.clock = clock
        self._lock = threading.Lock()
        self._doomed: dict[str, None] = {}
        self.waits: Final = waits or Waits(parallel=isinstance(client, TakesSeveral))

    def now(self) -> datetime:
        self.sync()
        return self.clock.now()

    def sync(self) -> None:
        """Request the store's time if it is unknown, or old and not renewed by every response."""
        age, dated = self.clock.age(), self.client.shows_date
        if age < float("inf") and (dated or age <= _PROBE_AFTER):
            return
        sent = self.clock.elapsed()
        self.put(keys.PROBE, b"")
        if not dated or self.clock.age() == float("inf"):
            # A client that shows dates got none here: with moto's decorator only listings have one.
            probe = self.find(keys.PROBE)
            if probe is None:
                raise BackendUnavailable(
                    "The bucket does not list an object that was just written: it is not strongly "
                    "consistent, and cannot hold a store; use a strongly consistent bucket."
                )
            # Another process may have written the probe after us, but never later than now.
            self.clock.add(probe.modified, sent)

    def put(self, key: str, payload: Payload | bytes) -> None:
        sent = self.clock.elapsed()
        whole = Payload.of(payload) if isinstance(payload, bytes) else payload
        self.clock.add(self.client.put(key, whole), sent)

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        """Get an object or a part of it. Raises NotFound."""
        sent = self.clock.elapsed()
        download = self.client.get(key, start, length)
        self.clock.add(download.date, sent)
        return download

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object, or None if it does not exist."""
        try:
            with self.get(key).stream as stream:
                return stream.read()
        except NotFound:
            return None

    def load(self, key: str, parse: Callable[[bytes], T]) -> T | None:
        """Return a small object parsed by ``parse``, or None if it is missing or invalid.

        Invalid data is read again, up to ``READS`` times: it may have been damaged in transit.
        """
        for _ in range(READS):
            data = self.read(key)
            if data is None:
                return None
            with suppress(ValueError, KeyError, TypeError):
                return parse(data)
        return None

    def pages(
        self, prefix: str, *, start_after: str = "", page_size: int = BATCH
    ) -> Iterator[tuple[Sequence[Entry], datetime]]:
        """Yield each page of a listing, with a lower bound of the store's time when it was made.

        Each is one request, made when it is needed.
        """
        pages = self.client.list(prefix, start_after=start_after, page_size=page_size)
        while True:
            sent = self.clock.elapsed()
            page = next(pages, None)
            if page is None:
                return
            self.clock.add(page.date, sent)
            # Without a Date: a lower bound from before the request, so nothing seems too old.
            yield page.entries, page.date or self.clock.reached(sent)

    def pages_of(self, prefixes: Iterable[str]) -> Iterator[tuple[str, Sequence[Entry], datetime]]:
        """Yield the pages of several listings, each with its prefix.

        ``LISTINGS`` of them are made at the same time. A page is yielded in the calling thread.
        """
        waiting = ((prefix, self.pages(prefix)) for prefix in prefixes)
        running: list[tuple[str, Iterator[tuple[Sequence[Entry], datetime]]]] = []
        while running := [*running, *islice(waiting, LISTINGS - len(running))]:
            pages = self.waits.together([partial(next, listing, None) for _, listing in running])
            for (prefix, _), page in zip(running, pages, strict=True):
                if page is not None:
                    yield prefix, *page
            running = [one for one, page in zip(running, pages, strict=True) if page is not None]

    def entries(
        self, prefix: str, *, start_after: str = "", page_size: int = BATCH
    ) -> Iterator[Entry]:
        """Yield all objects with a key prefix, after the key ``start_after``."""
        for page, _ in self.pages(prefix, start_after=start_after, page_size=page_size):
            yield from page

    def find(self, key: str) -> Entry | None:
        """Return the object of that key as listed, or None if it does not exist."""
        return next((entry for entry in self.entries(key) if entry.key == key), None)

    def delete(self, doomed: Iterable[str]) -> int:
        """Delete these keys in order, ``BATCH`` in each request; return their number."""
        waiting, count = iter(doomed), 0
        while batch := list(islice(waiting, BATCH)):
            sent = self.clock.elapsed()
            self.clock.add(self.client.delete(batch), sent)
            count += len(batch)
        return count

    def delete_later(self, doomed: Sequence[str]) -> None:
        """Delete keys that no one waits for. After a failure a sweep finds them.

        No key is used twice, so that a late delete takes nothing newer.
        """
        with self._lock:
            begins = bool(doomed) and not self._doomed
            self._doomed |= dict.fromkeys(doomed)
            many = len(self._doomed) >= BATCH  # the child of a fork may inherit some
        if begins or many:
            self.waits.later(self._delete_doomed)

    def _delete_doomed(self) -> None:
        with self._lock:
            doomed, self._doomed = self._doomed, {}
        with suppress(SessionStoreError):
            self.delete(doomed)

    def upload(self, key: str, payload: Payload, part_size: int) -> None:
        """Upload an object in parts. After an error, try to abort the upload."""
        client = self.client
        if not isinstance(client, Multipart):
            self.put(key, payload)
            return
        upload = client.begin(key)
        try:

            def send(number: int, start: int) -> Part:
                part = payload.part(start, min(part_size, payload.size - start))
                return client.upload_part(key, upload, number, part)

            starts = enumerate(range(0, payload.size, part_size), start=1)
            tasks = [partial(send, number, start) for number, start in starts]
            parts = run_together(tasks, client.at_once if isinstance(client, TakesSeveral) else 1)
            sent = self.clock.elapsed()
            self.clock.add(client.complete(key, upload, parts), sent)
        except NotFound as error:
            raise BackendUnavailable(
                f"The upload of {key} was aborted by another program; save the file again."
            ) from error
        except Exception:
            with suppress(BackendUnavailable):  # a sweep aborts it when it is old
                client.abort(key, upload)
            raise
