"""The store's time, as far as a client can know it.

No decision of the protocol looks at this machine's idea of the time of day. A ``Date`` that came
with an answer, and what has elapsed here since, bound the store's time from both sides:

* it was at least ``Date`` when the answer arrived, so it is at least ``Date`` + elapsed now;
* it was less than ``Date`` + 1 s (a Date is cut to the second) when the request went out at the
  earliest, so it is less than ``Date`` + 1 s + elapsed-since-then now.

The best bounds of the last minutes are kept. They are used pessimistically: who must know that
something is still young asks ``latest``; a birth, and the time that files are dated by, is ``now``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from sessionstore.backends.objects_keys import EPOCH

Elapsed = Callable[[], float]
"""Seconds since some fixed moment, sleep of the machine included."""

RESOLUTION = 1.0
"""Seconds that a Date is cut by (RFC 9110, section 5.6.7)."""

_WINDOW = 300.0
"""Seconds after which bounds are renewed, so that two clocks of different pace (up to 500 ppm, what
NTP may slew by) stay within 0.3 s of each other."""


def _boot_time() -> Elapsed:
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic  # macOS and Windows: it counts through sleep there


boot_time = _boot_time()
"""Seconds since this machine started, the time it was suspended included."""


class _Bounds(NamedTuple):
    """Of the store's time minus ``elapsed()``, in seconds; ``since`` is when they were begun."""

    low: float
    high: float
    since: float


class StoreClock:
    """The store's time between two bounds. Safe to use from any thread."""

    def __init__(self, elapsed: Elapsed = boot_time) -> None:
        self.elapsed = elapsed
        self._lock = threading.Lock()
        self._bounds: tuple[_Bounds, ...] = ()
        self._low = self._high = 0.0
        """Of all bounds together; the best of both sides."""

    def saw(self, date: datetime, asked: float) -> None:
        """Take note of an answer's Date; ``asked`` is ``elapsed()`` from before the request."""
        now = self.elapsed()
        told = (date - EPOCH).total_seconds()
        new = _Bounds(told - now, told + RESOLUTION - asked, now)
        if self._bounds and _tells_nothing(new, self._bounds[0]):
            return
        with self._lock:
            bounds = _renewed(self._bounds, new)
            self._low = max(each.low for each in bounds)
            # A store whose own clock was set back has bounds that do not meet: the later one holds.
            self._high = max(min(each.high for each in bounds), self._low)
            self._bounds = bounds  # last: whoever sees bounds sees what they come to

    def age(self) -> float:
        """Seconds since the bounds in use were begun; infinite when there are none."""
        return self.elapsed() - self._bounds[0].since if self._bounds else float("inf")

    def now(self) -> datetime:
        """The store's time, or a little before. ``saw`` must have been called."""
        return _time(self._low + self.elapsed())

    def reached(self, at: float) -> datetime:
        """What the store's time had reached at ``at`` (``elapsed()``): long ago if nobody knows."""
        return _time(self._low + at) if self._bounds else EPOCH

    def latest(self) -> datetime:
        """The store's time, or a little after. ``saw`` must have been called."""
        return _time(self._high + self.elapsed())


def _tells_nothing(new: _Bounds, newest: _Bounds) -> bool:
    """Whether bounds are no tighter than those of the same minutes, as with most answers."""
    fresh = new.since - newest.since <= _WINDOW
    return fresh and new.low <= newest.low and new.high >= newest.high


def _renewed(bounds: tuple[_Bounds, ...], new: _Bounds) -> tuple[_Bounds, ...]:
    """The newest bounds first, and those of the window before."""
    if not bounds or new.since - bounds[0].since > 2 * _WINDOW:
        return (new,)
    newest, *before = bounds
    if new.since - newest.since > _WINDOW:
        return (new, newest)
    tighter = _Bounds(max(newest.low, new.low), min(newest.high, new.high), newest.since)
    return (tighter, *before)


def _time(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)
