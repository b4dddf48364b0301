"""The store's background threads: those that drop ended sessions, and the one that sweeps.

They wait with the store's clock, so a test moves them by moving its clock. An error stops none:
the store emits it as ``sweep_failed``, it is logged here, and the thread continues. A drop that
failed is left to the next sweep.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Generic, Self, TypeVar

from sessionstore.clock import Clock
from sessionstore.parsers import check_duration

K = TypeVar("K")

log: Final = logging.getLogger("sessionstore")


class Timers(Generic[K]):
    """Calls back at given times, from daemon threads that live only while they are needed.

    One entry for each key: a later ``at`` moves it. One thread waits for the next key. While it
    makes its call another one waits, so keys that are due together are called side by side.
    """

    def __init__(
        self,
        clock: Clock,
        now: Callable[[], datetime],
        call: Callable[[K], datetime | None],
        at_once: int = 1,
    ) -> None:
        """Configure the timers: ``call(key)`` does the work and returns its next time, or None.

        ``at_once`` is the most calls at the same time.
        """
        self._clock = clock
        self._now = now
        self._call = call
        self._at_once = at_once
        self._condition = threading.Condition()
        self._due: dict[K, datetime] = {}
        self._heap: list[tuple[datetime, K]] = []
        self._threads: set[threading.Thread] = set()
        self._waiter: threading.Thread | None = None
        """The thread that waits for the next key, or will at once."""
        self._closed = False

    def at(self, key: K, due: datetime) -> None:
        """Call back with ``key`` at ``due``. Replaces a time set before."""
        with self._condition:
            if self._closed:
                return
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._have_a_waiter()
            self._condition.notify_all()

    def cancel(self, key: K) -> None:
        with self._condition:
            self._due.pop(key, None)

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._due.clear()
            self._heap.clear()
            self._condition.notify_all()
            threads = set(self._threads)
        if threading.current_thread() not in threads:  # two callbacks would wait for each other
            for thread in threads:
                thread.join()

    def _have_a_waiter(self) -> None:
        """Start a thread if none waits, unless as many as are allowed make calls."""
        self._threads = {thread for thread in self._threads if thread.is_alive()}  # after a fork
        if self._waiter in self._threads or len(self._threads) >= self._at_once:
            return
        self._waiter = threading.Thread(target=self._run, name="sessionstore-linger", daemon=True)
        self._waiter.start()
        self._threads.add(self._waiter)

    def _run(self) -> None:
        while (key := self._next()) is not None:
            try:
                due = self._call(key)
            except Exception:
                # The sweep of this or another process will find the session.
                log.exception("Could not drop an ended session in time; the sweep will.")
                continue
            if due is not None:
                self.at(key, due)

    def _next(self) -> K | None:
        """Wait for the next key that is due and return it; None when the thread is not needed."""
        me = threading.current_thread()
        with self._condition:
            if self._waiter not in {None, me}:
                self._threads.discard(me)
                return None
            self._waiter = me
            while self._heap and not self._closed:
                due, key = self._heap[0]
                if self._due.get(key) != due:
                    heapq.heappop(self._heap)  # moved or cancelled since
                    continue
                wait = (due - self._now()).total_seconds()
                if wait <= 0:
                    heapq.heappop(self._heap)
                    del self._due[key]
                    self._waiter = None
                    if self._due:
                        self._have_a_waiter()
                    return key
                self._clock.wait(self._condition, wait)
            self._waiter = None
            self._threads.discard(me)
            return None


class Sweeping:
    """A thread that calls ``sweep`` again and again, the first time at once.

    ``sweep`` may return the time until the next call; else it is ``every``.

    A context manager; ``start`` and ``stop`` do the same where a ``with`` cannot be used.
    """

    def __init__(
        self, clock: Clock, sweep: Callable[[], object], every: timedelta, name: str = "sweep"
    ) -> None:
        """Configure the thread. ``name`` is used for the thread and in the log."""
        check_duration("every", every)
        self._clock = clock
        self._sweep = sweep
        self._name = name
        self._every = every.total_seconds()
        self._condition = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._stopped = False
            self._thread = threading.Thread(
                target=self._run, name=f"sessionstore-{self._name}", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread after its current sweep."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopped:
            wait = self._every
            try:
                after = self._sweep()
                if isinstance(after, timedelta):
                    wait = after.total_seconds()
            except Exception:
                log.exception("A %s failed; the next comes in %s seconds.", self._name, wait)
            with self._condition:
                if not self._stopped:
                    self._clock.wait(self._condition, wait)
