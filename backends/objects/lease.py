"""The lease of the process that sweeps: an object that others read, so that they do not sweep too.

It is advisory. Any number of processes may sweep at the same time, so no lease, two leases, a stale
or an unreadable one cost requests or time, and never a file.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import NamedTuple

from . import keys
from .keys import EPOCH
from .layout import Part, Shared

LONGEST = timedelta(days=1)
"""The longest time for which a lease counts, whatever is written in it."""


class _Lease(NamedTuple):
    who: str
    at: datetime
    until: datetime

    @classmethod
    def parse(cls, data: bytes) -> _Lease:
        fields = json.loads(data)
        at, until = (EPOCH + timedelta(microseconds=int(fields[name])) for name in ("at", "until"))
        return cls(str(fields["who"]), at, until)


class SweeperLease(Part):
    """The lease, as one process sees it."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._who = self._nonce(8)

    def elect(self, term: timedelta, patience: timedelta | None = None) -> timedelta:
        """Implement ``ElectsSweeper.elect``; one GET, and one PUT for the process that sweeps."""
        now = self._bucket.now()
        lease = self._bucket.load(keys.SWEEPER, _Lease.parse)
        if lease is not None and lease.who != self._who and lease.at <= now + self._terms.margin:
            end = min(lease.until, lease.at + min(patience or LONGEST, LONGEST))
            if end > now:
                return end - now
        self.renew(term)
        return timedelta(0)

    def renew(self, term: timedelta) -> None:
        """Implement ``ElectsSweeper.renew``; one PUT."""
        now = self._bucket.now()
        lease = {
            "who": self._who,
            "at": keys.microseconds(now),
            "until": keys.microseconds(now + min(term, LONGEST)),
        }
        self._bucket.put(keys.SWEEPER, json.dumps(lease).encode())
