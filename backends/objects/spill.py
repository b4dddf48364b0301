"""The listings of one sweep, as rows of fixed length by the first byte of the digest.

Up to ``MEMORY`` bytes of each kind stay in memory; more goes to an anonymous temporary file, which
ends with the process. The rows are then matched byte by byte, so the memory is that of one part of
256, whatever the size of the store.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sessionstore.content import TempSpool
from sessionstore.errors import BackendUnavailable
from sessionstore.model import Stored

MEMORY = 8 << 20
"""Bytes of rows of one kind in memory: 147,000 generations, 171,000 references."""

PARTS: Final = 256

_GENERATION: Final = struct.Struct("48sQ?")
_REFERENCE: Final = struct.Struct("48s?")


class Blob(NamedTuple):
    """One copy of a content; ``size`` in bytes."""

    digest: str
    generation: str
    size: int


def row_id(digest: str, generation: str) -> bytes:
    """Return the bytes of a generation in a row."""
    return bytes.fromhex(digest + generation)


class _Rows:
    """Rows of one kind. The first byte of a row is its part."""

    def __init__(self, row: struct.Struct) -> None:
        self._row = row
        self._memory = [bytearray() for _ in range(PARTS)]
        self._held = 0
        self._spool: TempSpool | None = None
        self._written = 0
        self._pieces = [array("Q") for _ in range(PARTS)]
        """By part: the start of each of its pieces in the file, and the end."""

    def add(self, *values: object) -> None:
        row = self._row.pack(*values)
        self._memory[row[0]] += row
        self._held += len(row)
        if self._held >= MEMORY:
            self._write()

    def _write(self) -> None:
        spool = self._spool = self._spool or TempSpool(of="the listings of a sweep")
        for part, rows in enumerate(self._memory):
            if rows:
                spool.write(rows)
                self._pieces[part].extend((self._written, self._written + len(rows)))
                self._written += len(rows)
                rows.clear()
        self._held = 0

    def of(self, part: int) -> Iterator[tuple[Any, ...]]:
        rows, pieces = bytearray(), iter(self._pieces[part])
        for start, end in zip(pieces, pieces, strict=True):
            rows += _read(self._spool, start, end - start)
        return self._row.iter_unpack(rows + self._memory[part])

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()


def _read(spool: TempSpool | None, start: int, size: int) -> bytes:
    data = b"" if spool is None else spool.read(start, size)
    if len(data) != size:
        raise BackendUnavailable(
            "The temporary file of a sweep was cut short, so nothing was deleted: check the disk "
            "of the folder for temporary files (TMPDIR)."
        )
    return data


class Spill:
    """The generations and references that one sweep has listed."""

    def __init__(self) -> None:
        self._generations = _Rows(_GENERATION)
        self._references = _Rows(_REFERENCE)

    def add(self, digest: str, generation: str, size: int, *, old: bool) -> None:
        """Add one copy of a content; ``old``: it may be deleted if nothing refers to it."""
        self._generations.add(row_id(digest, generation), size, old)

    def refer(self, digest: str, generation: str, *, old: bool) -> None:
        """Add a reference to a generation; ``old``: the generation must have been listed."""
        self._references.add(row_id(digest, generation), old)

    def distinct(self) -> Stored:
        """Return the number and size of the generations, each counted once."""
        blobs = size = 0
        for part in range(PARTS):
            sizes = {row: length for row, length, _ in self._generations.of(part)}
            blobs, size = blobs + len(sizes), size + sum(sizes.values())
        return Stored(blobs, size)

    def parts(self) -> Iterator[Part]:
        return (self.part(number) for number in range(PARTS))

    def part(self, number: int) -> Part:
        return Part(self._generations, self._references, number)

    def close(self) -> None:
        self._generations.close()
        self._references.close()


class Part:
    """What was listed of the digests with one first byte."""

    def __init__(self, generations: _Rows, references: _Rows, number: int) -> None:
        self.number: Final = number
        self._generations = generations
        self._references = references
        self._referred = {row[0] for row in references.of(number)}
        blobs = size = matched = matched_size = idle = idle_size = 0
        for row, length, old in generations.of(number):
            blobs, size = blobs + 1, size + length
            if row in self._referred:
                matched, matched_size = matched + 1, matched_size + length
            elif old:
                idle, idle_size = idle + 1, idle_size + length
        self.stored: Final = Stored(blobs, size)
        self.referred: Final = Stored(matched, matched_size)
        self.idle: Final = Stored(idle, idle_size)
        """Old generations that nothing refers to."""

    def unreferred(self) -> Iterator[Blob]:
        """Yield the generations that ``idle`` counts."""
        for row, size, old in self._generations.of(self.number):
            if old and row not in self._referred:
                name = row.hex()
                yield Blob(name[:64], name[64:], size)

    def missing(self) -> set[bytes]:
        """Return the generations that old references refer to, and that were not listed."""
        if self.referred.blobs == len(self._referred):
            return set()
        absent = self._referred.difference(row for row, *_ in self._generations.of(self.number))
        return {row for row, old in self._references.of(self.number) if old and row in absent}
