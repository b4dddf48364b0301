"""A clock that a test moves."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""The default start time of a ``FakeClock``."""


_POLL: Final = 0.005
"""Real seconds between checks for ended threads: a thread's end notifies no condition."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """A thread in ``FakeClock.wait``."""

    condition: threading.Condition
    until: datetime
    thread: threading.Thread


class FakeClock:
    """A ``sessionstore.clock.Clock`` for tests: its time moves only with ``advance``.

    A test of a background thread needs no sleep::

        clock = FakeClock()
        store = SessionStore.open("memory://", clock=clock)
        with store.sweeping(every=timedelta(minutes=1)):
            clock.settle()                          # the sweeper waits
            clock.advance(timedelta(minutes=1))
            clock.settle()                          # it has swept, and waits again

    ``patience`` is a timeout in real seconds. A wait or a ``settle`` that takes longer raises
    AssertionError, so that a mistake fails a test and never hangs it. No test measures time by it.
    """

    def __init__(self, start: datetime = START, *, patience: float = 1800.0) -> None:
        if start.tzinfo is None:
            raise ValueError(
                f"The start {start} has no time zone: write datetime(..., tzinfo=UTC)."
            )
        self._now = start.astimezone(UTC)
        self._patience = patience
        self._changed = threading.Condition()
        self._waiters: set[_Waiter] = set()
        self._woken: set[threading.Thread] = set()
        self._seen = threading.local()
        """``now``: the time that the current thread has seen last, if it has seen any."""

    def now(self) -> datetime:
        self._seen.now = now = self._now
        return now

    def advance(self, by: timedelta | float) -> None:
        """Move the time forward ``by`` a timedelta or seconds; wake the threads that are due.

        Raises ValueError for a negative time: to simulate clock skew, use a second FakeClock.
        """
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta(0):
            raise ValueError(f"Time cannot go back by {-step}: advance by zero or more.")
        with self._changed:
            self._now += step
            due = [waiter for waiter in self._waiters if waiter.until <= self._now]
        self._wake(due)

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait on ``condition``, which the caller holds, for ``seconds`` of this clock.

        As with any condition the wait may end early: the caller checks again and may wait again. It
        does if the time has moved since this thread last called ``now``: ``seconds`` may be the
        time that was left until something then.
        """
        with self._changed:
            seen, self._seen.now = getattr(self._seen, "now", self._now), self._now
            until = self._now + timedelta(seconds=seconds)
            if until <= self._now or seen != self._now:
                return
            waiter = _Waiter(condition, until, threading.current_thread())
            self._waiters.add(waiter)
            self._woken.discard(waiter.thread)
            self._changed.notify_all()
        try:
            notified = condition.wait(self._patience)
        finally:
            self._forget([waiter])
        if not notified:
            raise AssertionError(
                f"A thread waited {self._patience} real seconds for a FakeClock to advance by "
                f"{seconds} s: call advance() in the test."
            )

    def settle(self, threads: int = 1) -> None:
        """Return when ``threads`` threads are in ``wait`` and the others have ended.

        First each waiting thread is woken once, so that it also sees changes that were made without
        moving the clock. Each woken thread must wait again or end. Raises AssertionError if that
        does not happen.
        """
        with self._changed:
            waiting = list(self._waiters)
        self._wake(waiting)
        end = time.monotonic() + self._patience
        with self._changed:
            while len(self._waiters) != threads or self._working():
                if time.monotonic() > end:
                    raise AssertionError(
                        f"{len(self._waiters)} threads wait on the clock and {self._working()} "
                        f"still run: settle() expected {threads} to wait and the others to end."
                    )
                self._changed.wait(_POLL)

    def _working(self) -> int:
        self._woken = {thread for thread in self._woken if thread.is_alive()}
        return len(self._woken - {threading.current_thread()})

    def _wake(self, waiters: list[_Waiter]) -> None:
        # Remove the waiters before waking them: from here on settle() counts them as running.
        self._forget(waiters)
        for waiter in waiters:
            with waiter.condition:
                waiter.condition.notify_all()

    def _forget(self, waiters: list[_Waiter]) -> None:
        with self._changed:
            gone = self._waiters.intersection(waiters)
            self._waiters -= gone
            self._woken |= {waiter.thread for waiter in gone}
            self._changed.notify_all()
