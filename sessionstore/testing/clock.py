"""A clock that a test moves."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""When a ``FakeClock`` starts unless told otherwise."""


_GLANCE: Final = 0.005
"""Real seconds between looks whether a thread has ended, which notifies nobody."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """A thread in ``FakeClock.wait``."""

    condition: threading.Condition
    until: datetime
    thread: threading.Thread


class FakeClock:
    """Time that stands still until ``advance``; a ``sessionstore.clock.Clock`` for tests.

    A test of something that waits in a thread of its own needs no sleep::

        clock = FakeClock()
        store = SessionStore.open("memory://", clock=clock)
        with store.sweeping(every=timedelta(minutes=1)):
            clock.settle()                          # the sweeper waits
            clock.advance(timedelta(minutes=1))
            clock.settle()                          # it has swept, and waits again

    ``patience`` is real seconds: a wait or a ``settle`` that takes longer raises AssertionError, so
    that a mistake is a failed test and never one that hangs. No test is measured by it.
    """

    def __init__(self, start: datetime = START, *, patience: float = 1800.0) -> None:
        if start.tzinfo is None:
            raise ValueError("The start has no time zone; write datetime(..., tzinfo=UTC).")
        self._now = start.astimezone(UTC)
        self._patience = patience
        self._changed = threading.Condition()
        self._waiters: set[_Waiter] = set()
        self._woken: set[threading.Thread] = set()

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta | float) -> None:
        """Let time pass (a timedelta or seconds) and wake every thread whose wait is over.

        Raises ValueError for a negative time: use another FakeClock for a clock that runs wrong.
        """
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta(0):
            raise ValueError("Time does not go back; advance by zero or more.")
        with self._changed:
            self._now += step
            due = [waiter for waiter in self._waiters if waiter.until <= self._now]
        self._wake(due)

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait on ``condition``, which the caller holds, for ``seconds`` of this clock.

        As with any condition the wait may end early; callers look again whether they are done.
        """
        with self._changed:
            until = self._now + timedelta(seconds=seconds)
            if until <= self._now:
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
                f"{seconds} s; nobody advanced it."
            )

    def settle(self, threads: int = 1) -> None:
        """Return when all is quiet: ``threads`` threads are in ``wait``, the others have ended.

        Every thread that is waiting is woken once, so that it also sees what was changed without
        moving the clock. A thread that has waited must come to wait again, or end. Raises
        AssertionError when that does not happen.
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
                        f"go on; settle() expected {threads} to wait and the others to end."
                    )
                self._changed.wait(_GLANCE)

    def _working(self) -> int:
        """The number of threads that have waited, and neither wait again nor have ended."""
        self._woken = {thread for thread in self._woken if thread.is_alive()}
        return len(self._woken - {threading.current_thread()})

    def _wake(self, waiters: list[_Waiter]) -> None:
        # Forgotten before they are woken: from here on settle() counts them as working.
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
