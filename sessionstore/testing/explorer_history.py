"""What the processes of a run did and saw, and what they may see.

Every operation has a beginning and an end, so that of two that did not overlap one came before the
other. A value may be seen if some order of the operations, in keeping with that, puts it last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from sessionstore.backends.objects_recall import RECENT

Kind = Literal["put", "delete", "drop", "spared", "touch", "end", "resume", "look"]

FOREVER: Final = 1 << 62


@dataclass(slots=True, eq=False)
class Op:
    """One operation on a session or on one file of it.

    ``value`` is the number of the content that is saved or was seen, None for "no file". ``ended``
    is when it was answered, ``stopped`` when it was answered or failed. ``since`` is when it took
    effect at the earliest (for a look that was answered without a request, two seconds before its
    beginning), ``until`` at the latest: one that failed may do so while a request is ``pending``.
    """

    kind: Kind
    sid: str
    name: str | None
    value: int | None
    since: int
    at: datetime
    ended: int | None = None
    stopped: int = FOREVER
    until: int = FOREVER
    pending: int = 0
    unless: datetime | None = None

    def settled(self, history: History) -> None:
        """A late request of it has arrived."""
        self.pending -= 1
        if not self.pending and self.ended is None:
            self.until = history.step()

    def is_before(self, other: Op) -> bool:
        """Whether every effect of it came before any of the other."""
        return self.until < other.since


@dataclass(slots=True)
class History:
    """All operations of a run, in the order in which they began."""

    ops: list[Op] = field(default_factory=list)
    _steps: int = 0
    _times: list[datetime] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    def step(self) -> int:
        """A moment later than all before."""
        self._steps += 1
        return self._steps

    def time_is(self, now: datetime) -> None:
        self._times.append(now)
        self._starts.append(self.step())

    def begin(
        self, kind: Kind, sid: str, name: str | None, now: datetime, value: int | None = None
    ) -> Op:
        op = Op(kind, sid, name, value, self.step(), now)
        self.ops.append(op)
        return op

    def end(self, op: Op) -> None:
        """It was answered."""
        op.ended = op.stopped = op.until = self.step()

    def fail(self, op: Op) -> None:
        """It was not. What it may still do is up to its late requests."""
        op.stopped = self.step()
        op.until = FOREVER if op.pending else op.stopped

    def from_memory(self, op: Op) -> None:
        """A look was answered without a request: it may be as old as the last two seconds."""
        at = bisect_right(self._times, op.at - timedelta(seconds=RECENT))
        if at < len(self._starts):
            op.since = min(op.since, self._starts[at])

    def of(self, sid: str, *kinds: Kind) -> list[Op]:
        """The operations of these kinds in a session."""
        return [op for op in self.ops if op.sid == sid and op.kind in kinds]

    def possible(self, look: Op) -> set[int | None]:
        """The values that a look at one file may see."""
        writes = [
            op
            for op in self.of(look.sid, "put", "delete", "drop")
            if op.name in {look.name, None} and op.since < look.until
        ]
        first = Op("delete", look.sid, look.name, None, 0, look.at, ended=0, stopped=0, until=0)
        return {op.value for op in (first, *writes) if not _is_overwritten(op, writes, look)}


def _is_overwritten(op: Op, writes: Iterable[Op], look: Op) -> bool:
    """Whether some answered write came after this one and before the look."""
    return any(
        each.ended is not None and op.is_before(each) and each.until < look.since for each in writes
    )
