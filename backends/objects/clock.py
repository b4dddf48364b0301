"""An estimate of the store's clock, as a lower and an upper bound.

The protocol never uses this machine's time of day. The ``Date`` of a response and the time elapsed
here since then bound the store's time from both sides:

* it was at least ``Date`` when the response arrived, so now it is at least ``Date`` plus the time
  elapsed since the response;
* it was less than ``Date`` + 1 s (a Date is truncated to the second) when the store made the
  response, which was after the request was sent. So now it is less than ``Date`` + 1 s plus the
  time elapsed since the request.

The best bounds of the last minutes are kept, and used pessimistically. A check that something is
still young uses ``latest``; births and the times of files use ``now``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from .keys import EPOCH

Elapsed = Callable[[], float]
"""Returns the seconds since a fixed moment, including the time that the machine was suspended."""

RESOLUTION = 1.0
"""The resolution of a Date in seconds (RFC 9110, section 5.6.7)."""

_WINDOW = 300.0
"""Seconds after which bounds are renewed. Clocks may run at different speeds, by up to 500 ppm (the
rate at which NTP may slew); so they stay within 0.3 s of each other."""


def _boot_time() -> Elapsed:
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic  # macOS and Windows: there it also counts while the machine sleeps


boot_time = _boot_time()
"""Returns the seconds since this machine started, including the time it was suspended."""


class _Bounds(NamedTuple):
    """Bounds of the store's time minus ``elapsed()``, in seconds, collected from ``since`` on."""

    low: float
    high: float
    since: float


class StoreClock:
    """The store's time between two bounds. Thread-safe."""

    def __init__(self, elapsed: Elapsed = boot_time) -> None:
        self.elapsed = elapsed
        self._lock = threading.Lock()
        self._bounds: tuple[_Bounds, ...] = ()
        self._low = self._high = 0.0
        """The tightest lower and upper bound of all ``_bounds``."""

    def add(self, date: datetime, sent: float) -> None:
        """Update the bounds by a response's Date; ``sent``: ``elapsed()`` before the request."""
        now = self.elapsed()
        seconds = (date - EPOCH).total_seconds()
        new = _Bounds(seconds - now, seconds + RESOLUTION - sent, now)
        # Without the lock, for speed: after a stale read one Date more or less is used.
        if self._bounds and _adds_nothing(new, self._bounds[0]):
            return
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


def _adds_nothing(new: _Bounds, newest: _Bounds) -> bool:
    """Return whether ``new`` is no tighter than the bounds of its window, the usual case."""
    fresh = new.since - newest.since <= _WINDOW
    return fresh and new.low <= newest.low and new.high >= newest.high


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
