"""A process whose wall clock is wrong.

``skew`` moves ``time.time`` and ``datetime.now`` for everything in this process that has been
imported, botocore's signatures included. What has elapsed (``time.monotonic``, CLOCK_BOOTTIME)
stays right, as it does when somebody sets a machine's clock.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from datetime import tzinfo
from typing import Self

_Real = dt.datetime
_real_time = time.time


def skew(seconds: float) -> None:
    """Set this process's wall clock that far ahead (or behind, if negative). Not to be undone."""

    class Skewed(_Real):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(_real_time() + seconds, tz)

        @classmethod
        def utcnow(cls) -> Self:
            return cls.now(dt.UTC).replace(tzinfo=None)

    def skewed_time() -> float:
        return _real_time() + seconds

    for each in list(sys.modules.values()):
        for name, value in list(getattr(each, "__dict__", {}).items()):
            if value is _Real:
                setattr(each, name, Skewed)
            elif value is _real_time and each is not sys.modules[__name__]:
                setattr(each, name, skewed_time)
