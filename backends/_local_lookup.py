"""Where the lines of a large journal are, so that a look-up does not read all of it.

A table has eight bytes for each line: some bits of a hash of the stored name, and the line's
offset. A process makes it from the journal when it has looked up often enough for that to be worth
it, and it only ever saves work: every line that it leads to is read, and lines that are newer than
the table are searched for as in a small journal. A table is known to be of this very journal by the
last line that it covers, which has the time of a save to the nanosecond.
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

from sessionstore.backends._local_journal import backwards

MOST = 1 << 21
"""Lines in all tables of a store, 16 MiB. The tables unused for longest go first."""

TAIL = 1 << 15
"""Bytes of lines beyond a table; with more of them the table is made again."""

PATIENCE = 4
"""A table is made when so many times the journal's bytes would have been searched without one."""

_REMEMBERED = 64
"""Sessions of which there is a table, or a count of what was searched."""

_OFFSET_BITS = 40
_OFFSET = (1 << _OFFSET_BITS) - 1
_HASH = (1 << 64 - _OFFSET_BITS) - 1
_MARK = 256
"""Bytes at the end of what a table covers that it is known by."""
_LINE = 1 << 9
"""Bytes that are read of a line at first; most are shorter."""

_each_line = re.compile(rb'\n\{"file": "([^"\n]*)"').finditer


class Table:
    """The lines of one journal up to an offset."""

    __slots__ = ("_covered", "_lines", "_mark")

    def __init__(self, covered: int, lines: array[int], mark: bytes) -> None:
        self._covered = covered
        self._lines = lines
        self._mark = mark

    @classmethod
    def of(cls, text: bytes | mmap.mmap, start: int = 0, before: Iterable[int] = ()) -> Table:
        """The table of a journal whose end ``text`` is, from the offset ``start`` on.

        ``before`` are the lines of a table of what comes before.
        """
        # The last line may be on its way: it is left for the next.
        covered = max(text.rfind(b"\n"), 0)
        lines = [*before]
        lines += [
            _key(found[1]) | (start + found.start())
            for found in _each_line(text)
            if found.start() < covered
        ]
        lines.sort()  # quick where ``before`` is most of it, which is sorted already
        return cls(start + covered, array("Q", lines), text[max(covered - _MARK, 0) : covered])

    def __len__(self) -> int:
        return len(self._lines)

    def tail(self, fd: int, size: int) -> bytes | None:
        """What came since; None when it is not a table of this journal."""
        start = self._covered - len(self._mark)
        text = read_at(fd, start, size - start) if size >= self._covered else b""
        return text[len(self._mark) :] if text.startswith(self._mark) else None

    def longer(self, tail: bytes) -> Table:
        """A table that covers the tail too."""
        return Table.of(tail, self._covered, self._lines)

    def lines(self, fd: int, file: str, needle: bytes) -> Iterator[bytes]:
        """The lines of the stored name ``file`` that begin with ``needle``, the last first."""
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
    """The line at an offset, with the newline in front."""
    length = _LINE
    while True:
        text = read_at(fd, at, length)
        end = text.find(b"\n", 1)
        if end >= 0 or len(text) < length:
            return text if end < 0 else text[:end]
        length *= 4


def read_at(fd: int, start: int, length: int) -> bytes:
    """Bytes of a file, fewer at its end."""
    if hasattr(os, "pread"):
        return os.pread(fd, length, start)
    os.lseek(fd, start, os.SEEK_SET)
    return os.read(fd, length)


class Tables:
    """The tables of one store, by session. Safe to use from any thread, and after a fork.

    The methods of its dictionaries are atomic, and a table never changes: no lock is needed, which
    a fork could leave taken.
    """

    def __init__(self) -> None:
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._searched: OrderedDict[str, int] = OrderedDict()

    def lines(self, sid: str, fd: int, size: int, file: str, needle: bytes) -> Iterator[bytes]:
        """The lines of a session's journal that begin with ``needle``, the last first.

        ``needle`` begins as the lines of the stored name ``file`` do.
        """
        table = self._tables.get(sid)
        tail = None if table is None else table.tail(fd, size)
        if table is None or tail is None:  # no table, or one of a journal that was compacted since
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
