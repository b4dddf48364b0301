"""The turns of a process to sweep: how often, how much of a sweep, and whether another does it.

A bucket bills each request, so there the interval follows from what the last sweep took: at most
``BUDGET`` requests an hour, or one sweep an hour of a store that takes more.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from sessionstore.backend import KeepsLease, Surveys
from sessionstore.background import Sweeping
from sessionstore.base import BaseStore
from sessionstore.clock import Clock, SystemClock
from sessionstore.errors import SessionStoreError
from sessionstore.local_copies import Listed
from sessionstore.parsers import show_duration
from sessionstore.plan import Planner
from sessionstore.sweep import Sweep

BUDGET: Final = 2700
"""Requests an hour: $9.72 for 30 days, at $0.005 per thousand."""

SHORTEST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(hours=1)

TERM: Final = timedelta(minutes=3)
"""A process takes the lease for so long at a time while it sweeps: it may die in a sweep."""

LEASE: Final = timedelta(days=1)
"""The longest time for which a process trusts the lease of another."""

_BESIDE = 7
"""Requests of a sweep beside its listings: the lease, the counts, unfinished uploads, the time."""

_LOOKS = 100
"""Sessions with local copies that a process which does not sweep asks for in an hour."""

log: Final = logging.getLogger("sessionstore")


class Lease(NamedTuple):
    """The note of the process that sweeps: ``who`` wrote it ``at`` that time, ``until`` the end.

    ``total`` is what ``max_store`` limits, in bytes; None if no limit is set. Without a note, with
    an unreadable one, or with that of a process that died, more processes sweep, or a later one.
    """

    who: str
    at: datetime
    until: datetime
    total: int | None = None

    @classmethod
    def parse(cls, note: bytes | None) -> Lease | None:
        """Return the lease of a note, None if it cannot be read."""
        with suppress(ValueError, TypeError):
            who, at, until, total = json.loads(note or b"")
            at, until = datetime.fromisoformat(at), datetime.fromisoformat(until)
            if isinstance(total, int | None) and None not in {at.tzinfo, until.tzinfo}:
                return cls(who, at, until, total)
        return None

    def note(self) -> bytes:
        return json.dumps(
            [self.who, self.at.isoformat(), self.until.isoformat(), self.total]
        ).encode()

    def left(self, who: str, now: datetime, patience: timedelta) -> timedelta:
        """Return how long the lease of another process than ``who`` still counts.

        At most ``patience`` after it was written; one from the future does not count.
        """
        if self.who == who or self.at > now + SHORTEST:
            return timedelta(0)
        return max(min(self.until, self.at + patience) - now, timedelta(0))


class Schedule:
    """The turns of one process. ``every`` fixes their interval; None: it follows from the cost."""

    def __init__(
        self, store: BaseStore, planner: Callable[[], Planner], every: timedelta | None
    ) -> None:
        """Configure the turns; ``planner`` returns the planner of a sweep made now."""
        self._store = store
        self._planner = planner
        self._fixed = every is not None
        self._who = secrets.token_hex(8)
        self._listed: dict[bool, int] = {}  # requests of the last sweep with content, and without
        self._collected: datetime | None = None
        self._looked: datetime | None = None
        self._added = store.ledger.room.added
        self._taken = store.now()
        self._pulse: Clock = SystemClock()  # a sweep takes real time on any clock of the store
        self.every: timedelta = SHORTEST if every is None else every
        """The time from one sweep of this process to the next."""

    def turn(self) -> timedelta:
        """Sweep if no other process does; return the time until the next turn."""
        backend = self._store.backend
        self._store.running.tidy()
        if not isinstance(backend, KeepsLease):
            self._work()
        elif wait := self._wait(backend):
            self._stand_by()
            return min(wait, LONGEST)
        else:
            self._take(backend, TERM)
            try:
                with self._renewing(backend):
                    self._work()
            except BaseException:
                self._take(backend, timedelta(0))  # another process may be able to sweep
                raise
            self._take(backend, self.every + min(self.every, TERM))
        self._store.swept_every = self.every
        return self.every

    def _wait(self, backend: KeepsLease) -> timedelta:
        """Return the time until the lease of another process ends, zero if there is none."""
        try:
            lease = Lease.parse(backend.lease())
        except SessionStoreError as error:
            log.warning("It cannot be read which process sweeps, so this one does: %s", error)
            return timedelta(0)
        patience = 2 * self.every if self._fixed else LEASE
        wait = timedelta(0) if lease is None else lease.left(self._who, self._store.now(), patience)
        added = self._store.ledger.room.added
        if wait and lease is not None and lease.total is not None:
            self._store.ledger.room.recount(lease.total, self._added)
        self._added = added
        return wait

    def _renewing(self, backend: KeepsLease) -> Sweeping:
        """Return a thread that renews the lease, so that no other process sweeps at the same time.

        Not for ever: a sweep may hang.
        """
        end = self._store.now() + max(2 * self.every, LONGEST)
        renew = partial(self._renew, backend, end - TERM)
        return Sweeping(self._pulse, renew, SHORTEST, "lease")

    def _renew(self, backend: KeepsLease, last: datetime) -> timedelta:
        """Take the lease again if it is time to, and not after ``last``; return the wait."""
        now, step = self._store.now(), min(self.every, SHORTEST)
        if now > last:
            return LONGEST
        if now - self._taken < step:
            return self._taken + step - now
        self._take(backend, TERM)
        return step

    def _take(self, backend: KeepsLease, term: timedelta) -> None:
        now, total = self._store.now(), self._store.ledger.room.total
        self._taken = now
        try:
            backend.write_lease(Lease(self._who, now, now + min(term, LEASE), total).note())
        except SessionStoreError as error:
            log.warning("Other processes cannot be told that this one sweeps: %s", error)

    def _work(self) -> None:
        now, listing = self._store.now(), isinstance(self._store.backend, Surveys)
        least = max(getattr(self._store.backend, "grace", LONGEST), LONGEST)
        recent = self._collected is not None and now - self._collected < least
        content = self._fixed or not listing or not recent
        Sweep(self._store).run(self._planner(), content=content)
        if content:
            self._collected = now
        if listing:
            self._listed[content] = self._store.listed + _BESIDE
            if not self._fixed:
                self._choose()

    def _choose(self) -> None:
        whole = self._listed.get(True, 0)
        plan, left = self._listed.get(False, whole), BUDGET - whole
        every = LONGEST if left <= 0 else min(max(plan * LONGEST / left, SHORTEST), LONGEST)
        if abs(every - self.every) > self.every / 10:
            seconds = timedelta(seconds=every // timedelta(seconds=1))
            log.info(
                "The store is swept every %s: a sweep takes %d requests, a plan %d; at most %d an "
                "hour are meant for it, or one sweep. sweep_every sets another interval.",
                show_duration(seconds), whole, plan, BUDGET,
            )  # fmt: skip
        self.every = every

    def _stand_by(self) -> None:
        """Forget copies of sessions that are gone, of which the process that sweeps knows."""
        store, now = self._store, self._store.now()
        if self._looked is not None and now - self._looked < LONGEST:
            return
        self._looked = now
        copies, backend = store.local_copies, store.backend
        holders, began = list(dict.fromkeys(copies.holders()))[:_LOOKS], copies.moment()
        tokens = {sid: {file.token for file in backend.files(sid)} for sid in holders}
        absent = [sid for sid in holders if not tokens[sid]]
        listed = Listed(tokens, began) if isinstance(backend, Surveys) else None
        copies.sweep(backend.files, absent, listed)
