"""The store's two background threads: one that drops ended sessions, one that sweeps.

Both wait with the store's clock, so a test moves them by moving its clock. An error stops neither:
the store emits it as ``sweep_failed``, it is logged here, and the thread continues. A drop that
failed is left to the next sweep.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Self

from sessionstore.clock import Clock
from sessionstore.parsers import check_duration

log: Final = logging.getLogger("sessionstore")


class Timers:
    """Calls back at given times, from one daemon thread that lives only while it is needed.

    One entry for each key: a later ``at`` moves it.
    """

    def __init__(
        self, clock: Clock, now: Callable[[], datetime], call: Callable[[str], datetime | None]
    ) -> None:
        """Configure the timers: ``call(key)`` does the work and returns its next time, or None."""
        self._clock = clock
        self._now = now
        self._call = call
        self._condition = threading.Condition()
        self._due: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, key: str, due: datetime) -> None:
        """Call back with ``key`` at ``due``. Replaces a time set before."""
        with self._condition:
            if self._closed:
                return
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="sessionstore-linger", daemon=True
                )
                self._thread.start()
            self._condition.notify_all()

    def cancel(self, key: str) -> None:
        with self._condition:
            self._due.pop(key, None)

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._due.clear()
            self._heap.clear()
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

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

    def _next(self) -> str | None:
        """Wait for the next key that is due and return it, None if no key is left."""
        with self._condition:
            while self._heap and not self._closed:
                due, key = self._heap[0]
                if self._due.get(key) != due:
                    heapq.heappop(self._heap)  # moved or cancelled since
                    continue
                wait = (due - self._now()).total_seconds()
                if wait <= 0:
                    heapq.heappop(self._heap)
                    del self._due[key]
                    return key
                self._clock.wait(self._condition, wait)
            self._thread = None
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
