"""All generations of a store, in little memory: 57 bytes each.

A set of Python strings would take 250. Here it is runs of some ten thousand generations, as a
listing gives them: an array of 64-bit numbers to search in, the rest of each key as raw bytes in
the same order, and one byte that says what is known. A run that is full never grows again, and one
run at a time does: buffers that grow side by side leave holes as large as themselves.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

from sessionstore.backend import Stored

RUN = 1 << 15
"""Generations of a run: 1.9 MB, and as much again for a moment to bring it into order."""

_ROW: Final = 48
"""Bytes of 28 of the digest and 12 of the generation (8 others are searched by), and the size."""

_OLD, _REFERRED = 1, 2


class Blob(NamedTuple):
    """One copy of a content; ``size`` in bytes."""

    digest: str
    generation: str
    size: int


class _Run:
    """Some generations, in order once it is sealed. Most listings are in that order."""

    __slots__ = ("flags", "heads", "high", "low", "rows")

    def __init__(self) -> None:
        self.heads = array("Q")
        self.rows = bytearray()
        self.flags = bytearray()
        self.low = self.high = 0

    def seal(self) -> None:
        """Bring it into order."""
        heads = self.heads
        if any(after < head for head, after in zip(heads, islice(heads, 1, None), strict=False)):
            order = sorted(range(len(heads)), key=heads.__getitem__)
            rows = bytearray()
            for at in order:  # and not by join(), which makes a list of them all first
                rows += self.rows[at * _ROW : (at + 1) * _ROW]
            self.heads, self.rows = array("Q", (heads[at] for at in order)), rows
            self.flags = bytearray(self.flags[at] for at in order)
        self.low, self.high = self.heads[0], self.heads[-1]

    def refer(self, head: int, rest: bytes) -> bool:
        at = bisect_left(self.heads, head)
        while at < len(self.heads) and self.heads[at] == head:
            if self.rows[at * _ROW : at * _ROW + len(rest)] == rest:
                self.flags[at] |= _REFERRED
                return True
            at += 1
        return False

    def unreferred(self) -> Iterator[Blob]:
        at = self.flags.find(_OLD)
        while at >= 0:
            head, row = f"{self.heads[at]:016x}", self.rows[at * _ROW : (at + 1) * _ROW]
            rest, size = row[:40].hex(), int.from_bytes(row[40:], "big")
            yield Blob(head[:8] + rest[:56], head[8:] + rest[56:], size)
            at = self.flags.find(_OLD, at + 1)

    def referred(self) -> Iterator[int]:
        """The size in bytes of each one that something refers to."""
        for at, flag in enumerate(self.flags):
            if flag & _REFERRED:
                yield int.from_bytes(self.rows[at * _ROW + 40 : (at + 1) * _ROW], "big")


class Generations:
    """Filled with ``add``, then sealed, then marked with ``refer``. Not thread-safe."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._growing = _Run()
        self.count = 0

    def add(self, digest: str, generation: str, size: int, *, old: bool) -> None:
        """One copy; ``old``: it may be deleted if nothing refers to it."""
        head, rest = _split(digest, generation)
        run = self._growing
        run.heads.append(head)
        run.rows += rest + size.to_bytes(8, "big")
        run.flags.append(_OLD if old else 0)
        self.count += 1
        if len(run.flags) == RUN:
            self.seal()

    def seal(self) -> None:
        """Before the first ``refer``: nothing more is added from here on."""
        if self._growing.flags:
            self._growing.seal()
            self._runs.append(self._growing)
            self._growing = _Run()

    def refer(self, digest: str, generation: str) -> bool:
        """Note that something refers to a generation; whether there is such a one."""
        head, rest = _split(digest, generation)
        return any(run.refer(head, rest) for run in self._runs if run.low <= head <= run.high)

    def idle(self) -> int:
        """How many old ones nothing refers to."""
        return sum(run.flags.count(_OLD) for run in self._runs)

    def referred(self) -> Stored:
        """Those that something refers to, old or not."""
        blobs = total = 0
        for size in chain.from_iterable(run.referred() for run in self._runs):
            blobs, total = blobs + 1, total + size
        return Stored(blobs, total)

    def unreferred(self) -> Iterator[Blob]:
        """The old ones that nothing refers to."""
        return chain.from_iterable(run.unreferred() for run in self._runs)


def _split(digest: str, generation: str) -> tuple[int, bytes]:
    """The number to search by, which orders as the keys do, and the rest."""
    return int(digest[:8] + generation[:8], 16), bytes.fromhex(digest[8:] + generation[8:])
