"""The operations of a run, their results, and the results that are allowed.

Every operation has a beginning and an end. Of two operations that do not overlap, one came before
the other. A read may return a value if some order of the operations that respects this puts the
write of the value last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from sessionstore.backends.objects.cache import RECENT

Kind = Literal["put", "delete", "drop", "spared", "touch", "end", "resume", "look"]

FOREVER: Final = 1 << 62


@dataclass(slots=True, eq=False)
class Op:
    """One operation on a session or on one file of it.

    ``value`` is the number of the content that was saved or read, None for "no file". The other
    fields are steps of the history. ``ended`` is the acknowledgement; ``stopped`` is the
    acknowledgement or the failure. ``since`` is the earliest moment of its effect: its beginning,
    or two seconds before it for a read that was answered from a cache. ``until`` is the latest
    moment: a failed operation may take effect as long as one of its requests is ``pending``.
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
    only_ended: bool = False

    def settled(self, history: History) -> None:
        """Record that a late request of the operation has arrived."""
        self.pending -= 1
        if not self.pending and self.ended is None:
            self.until = history.step()

    def is_before(self, other: Op) -> bool:
        """Return whether every effect of this operation came before any effect of ``other``."""
        return self.until < other.since


@dataclass(slots=True)
class History:
    """All operations of a run, in the order in which they began."""

    ops: list[Op] = field(default_factory=list)
    _steps: int = 0
    _times: list[datetime] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    def step(self) -> int:
        """Return a number greater than all before."""
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
        """Record that an operation was acknowledged."""
        op.ended = op.stopped = op.until = self.step()

    def fail(self, op: Op) -> None:
        """Record that an operation failed. Its late requests may still take effect."""
        op.stopped = self.step()
        op.until = FOREVER if op.pending else op.stopped

    def from_memory(self, op: Op) -> None:
        """Record that a read was answered from a cache: it may be up to two seconds old."""
        at = bisect_right(self._times, op.at - timedelta(seconds=RECENT))
        if at < len(self._starts):
            op.since = min(op.since, self._starts[at])

    def of(self, sid: str, *kinds: Kind) -> list[Op]:
        """Return the operations of these kinds in a session."""
        return [op for op in self.ops if op.sid == sid and op.kind in kinds]

    def possible(self, look: Op) -> set[int | None]:
        """Return the values that a read of one file may see."""
        writes = [
            op
            for op in self.of(look.sid, "put", "delete", "drop")
            if op.name in {look.name, None} and op.since < look.until
        ]
        first = Op("delete", look.sid, look.name, None, 0, look.at, ended=0, stopped=0, until=0)
        return {op.value for op in (first, *writes) if not _is_overwritten(op, writes, look)}


def _is_overwritten(op: Op, writes: Iterable[Op], look: Op) -> bool:
    """Return whether an acknowledged write came after ``op`` and before the ``look``."""
    return any(
        write.ended is not None and op.is_before(write) and write.until < look.since
        for write in writes
    )
