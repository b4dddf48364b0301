"""All generations of a store, in little memory: 57 bytes each.

A set of Python strings would take 250. Per first byte of the generation (they are random, so that
the 256 parts are even) there is an array of 64-bit numbers to search in, the rest of each key as
raw bytes in the same order, and one byte that says what is known.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

from sessionstore.backend import Stored

_ROW: Final = 48  # 32 bytes of digest, 8 of the generation (the other 8 are searched by), 8 of size

_OLD, _REFERRED = 1, 2


class Blob(NamedTuple):
    """One copy of a content; ``size`` in bytes."""

    digest: str
    generation: str
    size: int


class _Part:
    """The generations that begin with one byte."""

    __slots__ = ("flags", "heads", "rows")

    def __init__(self) -> None:
        self.heads = array("Q")
        self.rows = bytearray()
        self.flags = bytearray()

    def seal(self) -> None:
        order = sorted(range(len(self.heads)), key=self.heads.__getitem__)
        self.rows = bytearray().join(self.rows[at * _ROW : (at + 1) * _ROW] for at in order)
        self.flags = bytearray(self.flags[at] for at in order)
        self.heads = array("Q", [self.heads[at] for at in order])

    def refer(self, head: int) -> bool:
        first = at = bisect_left(self.heads, head)
        while at < len(self.heads) and self.heads[at] == head:
            self.flags[at] |= _REFERRED
            at += 1
        return at > first

    def unreferred(self) -> Iterator[Blob]:
        at = self.flags.find(_OLD)
        while at >= 0:
            row = self.rows[at * _ROW : (at + 1) * _ROW]
            generation = self.heads[at].to_bytes(8, "big") + row[32:40]
            yield Blob(row[:32].hex(), generation.hex(), int.from_bytes(row[40:], "big"))
            at = self.flags.find(_OLD, at + 1)

    def referred(self) -> Iterator[int]:
        """The size in bytes of each one that something refers to."""
        for at, flag in enumerate(self.flags):
            if flag & _REFERRED:
                yield int.from_bytes(self.rows[at * _ROW + 40 : (at + 1) * _ROW], "big")


class Generations:
    """Filled with ``add``, then sealed, then marked with ``refer``. Not thread-safe."""

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}
        self.count = 0

    def add(self, digest: str, generation: str, size: int, *, old: bool) -> None:
        """One copy; ``old``: it may be deleted if nothing refers to it."""
        raw = bytes.fromhex(generation)
        part = self._parts.get(raw[0])
        if part is None:
            part = self._parts[raw[0]] = _Part()
        part.heads.append(int.from_bytes(raw[:8], "big"))
        part.rows += bytes.fromhex(digest) + raw[8:] + size.to_bytes(8, "big")
        part.flags.append(_OLD if old else 0)
        self.count += 1

    def seal(self) -> None:
        """Nothing more is added from here on."""
        for part in self._parts.values():
            part.seal()

    def refer(self, generation: str) -> bool:
        """Note that something refers to a generation; whether there is such a one.

        Two whose first 64 bits are equal (one chance in 2^64 for a pair) are both noted: kept.
        """
        head = int(generation[:16], 16)
        part = self._parts.get(head >> 56)
        return part is not None and part.refer(head)

    def idle(self) -> int:
        """How many old ones nothing refers to."""
        return sum(part.flags.count(_OLD) for part in self._parts.values())

    def referred(self) -> Stored:
        """Those that something refers to, old or not."""
        blobs = total = 0
        for size in chain.from_iterable(part.referred() for part in self._parts.values()):
            blobs, total = blobs + 1, total + size
        return Stored(blobs, total)

    def unreferred(self) -> Iterator[Blob]:
        """The old ones that nothing refers to."""
        for part in self._parts.values():
            yield from part.unreferred()
