"""Tables of the offsets of lines in a large journal, so that a look-up need not read all of it.

A table has eight bytes for each line: some bits of a hash of the stored name, and the line's
offset. A process makes a table after enough look-ups to be worth it. A table only saves work: the
look-up reads each line at an offset of the table, and searches the lines newer than the table as
in a small journal. The last line of a table identifies its journal, because that line has the time
of a save to the nanosecond.
"""

from __future__ import annotations

import mmap
import os
import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from .journal import backwards

MOST = 1 << 21
"""Lines in all tables of a store, 16 MiB. The table unused for longest is evicted first."""

TAIL = 1 << 15
"""Bytes of lines beyond a table; with more of them the table is made again."""

PATIENCE = 4
"""Number of times the whole journal is searched before a table is made."""

_REMEMBERED = 64
"""Sessions with a table, and as many with a count of the bytes searched."""

_OFFSET_BITS = 40
_OFFSET = (1 << _OFFSET_BITS) - 1
_HASH = (1 << 64 - _OFFSET_BITS) - 1
_MARK = 256
"""Bytes at the end of the part of the journal in a table, by which the journal is recognised."""
_LINE = 1 << 9
"""Bytes of a line to read first; most lines are shorter."""

_each_line = re.compile(rb'\n\{"file": "([^"\n]*)"').finditer


class Table:
    """The offsets of the lines of one journal, up to the offset ``covered``."""

    __slots__ = ("_covered", "_lines", "_mark")

    def __init__(self, covered: int, lines: array[int], mark: bytes) -> None:
        self._covered = covered
        self._lines = lines
        self._mark = mark

    @classmethod
    def of(cls, text: bytes | mmap.mmap, start: int = 0, before: Iterable[int] = ()) -> Table:
        """Make the table of a journal that has ``text`` from the offset ``start`` to its end.

        ``before`` holds the lines of a table of the part before ``start``.
        """
        # The last line may not be complete yet, so it is left for the next table.
        covered = max(text.rfind(b"\n"), 0)
        lines = [*before]
        lines += [
            _key(match[1]) | (start + match.start())
            for match in _each_line(text)
            if match.start() < covered
        ]
        lines.sort()  # quick if ``before``, which is sorted already, is most of the list
        return cls(start + covered, array("Q", lines), text[max(covered - _MARK, 0) : covered])

    def __len__(self) -> int:
        return len(self._lines)

    def tail(self, fd: int, size: int) -> bytes | None:
        """Return the bytes of the journal after the table; None when it is another journal."""
        start = self._covered - len(self._mark)
        text = read_at(fd, start, size - start) if size >= self._covered else b""
        return text[len(self._mark) :] if text.startswith(self._mark) else None

    def longer(self, tail: bytes) -> Table:
        """Return a table that also covers ``tail``."""
        return Table.of(tail, self._covered, self._lines)

    def lines(self, fd: int, file: str, needle: bytes) -> Iterator[bytes]:
        """Yield the lines of the stored name ``file`` that begin with ``needle``, last first."""
        key = _key(file.encode())
        place = bisect_left(self._lines, key | _OFFSET)
        while place and self._lines[place - 1] >= key:
            place -= 1
            line = _line(fd, self._lines[place] & _OFFSET)
            if line.startswith(needle):
                yield line[1:]


def _key(file: bytes) -> int:
    return (hash(file) & _HASH) << _OFFSET_BITS


def _line(fd: int, at: int) -> bytes:
    """Return the line at the offset ``at``, with the newline before it."""
    length = _LINE
    while True:
        text = read_at(fd, at, length)
        end = text.find(b"\n", 1)
        if end >= 0 or len(text) < length:
            return text if end < 0 else text[:end]
        length *= 4


def read_at(fd: int, start: int, length: int) -> bytes:
    """Return ``length`` bytes of a file from the offset ``start``; fewer at its end."""
    if hasattr(os, "pread"):
        return os.pread(fd, length, start)
    os.lseek(fd, start, os.SEEK_SET)
    return os.read(fd, length)


class Tables:
    """The tables of one store, by session. Safe to use from any thread, and after a fork.

    The methods of its dictionaries are atomic and a table never changes, so no lock is needed. A
    fork could leave a lock taken.
    """

    def __init__(self) -> None:
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._searched: OrderedDict[str, int] = OrderedDict()

    def lines(self, sid: str, fd: int, size: int, file: str, needle: bytes) -> Iterator[bytes]:
        """Yield the lines of a session's journal that begin with ``needle``, the last first.

        ``fd`` and ``size`` are of the journal. ``needle`` begins like the lines of the stored name
        ``file``.
        """
        table = self._tables.get(sid)
        tail = None if table is None else table.tail(fd, size)
        if table is None or tail is None:  # no table, or the journal was compacted since
            with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as text:
                if self._is_due(sid, size):
                    self._keep(sid, Table.of(text))
                yield from backwards(text, needle)
            return
        if len(tail) > TAIL:
            self._keep(sid, table.longer(tail))
        with suppress(KeyError):
            self._tables.move_to_end(sid)
        yield from backwards(tail, needle)
        yield from table.lines(fd, file, needle)

    def _is_due(self, sid: str, size: int) -> bool:
        searched = self._searched.pop(sid, 0) + size
        if searched > PATIENCE * size:
            return True
        self._searched[sid] = searched
        while len(self._searched) > _REMEMBERED:
            _forget_oldest(self._searched)
        return False

    def _keep(self, sid: str, table: Table) -> None:
        self._tables[sid] = table
        while (count := len(self._tables)) > 1 and (
            count > _REMEMBERED or sum(map(len, list(self._tables.values()))) > MOST
        ):
            _forget_oldest(self._tables)


def _forget_oldest(kept: OrderedDict[str, Any]) -> None:
    with suppress(KeyError):  # another thread was faster
        kept.popitem(last=False)
