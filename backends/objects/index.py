"""A compact in-memory index of all generations of a store: 57 bytes for each.

A set of Python strings would need 250 bytes for each. The index has runs of 32,768 generations, in
the order of the listing. A run is a sorted array of 64-bit numbers (for binary search), the rest of
each key as raw bytes in the same order, and one byte of flags for each. A full run never grows
again, and only one run grows at a time: buffers that grow side by side fragment the memory, with
holes as large as themselves.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

from sessionstore.model import Stored

RUN = 1 << 15
"""Generations in a run: 1.9 MB, and as much again while it is sorted."""

_ROW: Final = 48
"""Bytes of a row: 28 of the digest, 12 of the generation, 8 of the size. The other 8 bytes of
digest and generation are in the sorted array."""

_OLD, _REFERRED = 1, 2


class Blob(NamedTuple):
    """One copy of a content; ``size`` in bytes."""

    digest: str
    generation: str
    size: int


class _Run:
    """A run of generations, sorted when it is sealed. Most listings arrive already sorted."""

    __slots__ = ("flags", "heads", "high", "low", "rows")

    def __init__(self) -> None:
        self.heads = array("Q")
        self.rows = bytearray()
        self.flags = bytearray()
        self.low = self.high = 0

    def seal(self) -> None:
        """Sort the run."""
        heads = self.heads
        if any(after < head for head, after in zip(heads, islice(heads, 1, None), strict=False)):
            order = sorted(range(len(heads)), key=heads.__getitem__)
            rows = bytearray()
            for at in order:  # not join(): it would first make a list of all rows
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
        """Yield the size in bytes of each referenced generation."""
        for at, flag in enumerate(self.flags):
            if flag & _REFERRED:
                yield int.from_bytes(self.rows[at * _ROW + 40 : (at + 1) * _ROW], "big")


class Generations:
    """All generations of one pass. First ``add`` them, then ``seal``, then ``refer``.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._growing = _Run()
        self.count = 0

    def add(self, digest: str, generation: str, size: int, *, old: bool) -> None:
        """Add one copy of a content; ``old``: it may be deleted if it is unreferenced."""
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
        """Mark a generation as referenced; return whether the index has it."""
        head, rest = _split(digest, generation)
        return any(run.refer(head, rest) for run in self._runs if run.low <= head <= run.high)

    def idle(self) -> int:
        """Return the number of old, unreferenced generations."""
        return sum(run.flags.count(_OLD) for run in self._runs)

    def referred(self) -> Stored:
        """Return the number and total size of referenced generations, old or not."""
        blobs = total = 0
        for size in chain.from_iterable(run.referred() for run in self._runs):
            blobs, total = blobs + 1, total + size
        return Stored(blobs, total)

    def unreferred(self) -> Iterator[Blob]:
        """Yield the old, unreferenced generations."""
        return chain.from_iterable(run.unreferred() for run in self._runs)


def _split(digest: str, generation: str) -> tuple[int, bytes]:
    """Return the number to search for, which sorts like the keys, and the rest as bytes."""
    return int(digest[:8] + generation[:8], 16), bytes.fromhex(digest[8:] + generation[8:])
