"""A session's journal: one JSON line for each save, with the properties that a link cannot hold.

The link decides and the journal describes it. A line is valid only while a link of its name has the
token of the line (inode and modification time). Of several such lines the last is valid. All other
lines are ignored: those of saves that did not finish, those of files replaced since, and torn
lines. Nothing has to be undone after a crash.

Tables of the offsets of lines make a look-up in a large journal quick. A table has eight bytes for
each line: some bits of a hash of the stored name, and the line's offset. It only saves work: the
look-up reads each line at an offset, and searches the lines newer than the table. The last line of
a table identifies its journal, because it has the time of a save to the nanosecond.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sessionstore.clock import EPOCH
from sessionstore.model import Reference

from .directory import Directory

NAME = "journal"
_quoted = json.encoder.encode_basestring_ascii
_scan = json.JSONDecoder().raw_decode
SMALL = 1 << 16
"""Bytes below which a journal is not compacted, and is read rather than mapped."""

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
"""Bytes at the end of the covered part, by which the journal is recognised."""
_LINE = 1 << 9
"""Bytes of a line to read first; most lines are shorter."""
_each_line = re.compile(rb'\n\{"file": "([^"\n]*)"').finditer


class Line(NamedTuple):
    """One save: the stored name of its link, and its reference."""

    file: str
    reference: Reference


def encode(file: str, reference: Reference) -> bytes:
    """Return the line of a save."""
    # The newline comes first, so that a torn line before this one does not absorb it.
    name, size, digest, created, expires, token = reference
    until = "null" if expires is None else f'"{expires.isoformat()}"'
    # Formatted by hand in a third of the time of json.dumps. Only the name may need escapes.
    return (
        f'\n{{"file": "{file}", "token": "{token}", "name": {_quoted(name)}, "size": {size}, '
        f'"digest": "{digest}", "created": "{created.isoformat()}", "expires": {until}}}'
    ).encode()


def decode(text: bytes) -> Line | None:
    """Parse the line ``text``; return None when it is torn."""
    try:
        row: dict[str, Any]
        row, end = _scan(text.decode())  # in half of the time of json.loads
        if text[end:].strip():
            return None
        reference = Reference(
            row["name"],
            row["size"],
            row["digest"],
            datetime.fromisoformat(row["created"]),
            row["expires"] and datetime.fromisoformat(row["expires"]),
            row["token"],
        )
        return Line(row["file"], reference)
    except (ValueError, KeyError, TypeError):
        return None


class Mark(NamedTuple):
    """A place in a journal: the last line that was there, maybe a part of it, and its offset."""

    at: int
    line: bytes
    journal: tuple[int, int]
    """The number of compactions, and the inode: each compaction changes one and then the other."""


Search = Callable[[int, int, str, bytes], Iterator[bytes]]
"""``Tables.lines`` of one session, given: the journal's descriptor and size, the name, a needle."""


def find(folder: Directory, file: str, token: str, search: Search) -> Reference | None:
    """Return the last reference of the link ``file`` with that ``token``, if any."""
    return _last(folder, file, f'\n{{"file": "{file}", "token": "{token}",'.encode(), search)


def find_inode(folder: Directory, file: str, inode: int, search: Search) -> Reference | None:
    """Return the last reference of the link ``file`` with that ``inode``, whatever its time is."""
    return _last(folder, file, f'\n{{"file": "{file}", "token": "{inode}.'.encode(), search)


def _last(folder: Directory, file: str, needle: bytes, search: Search) -> Reference | None:
    # The values in a needle can hold neither a quote nor a newline.
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        if size <= SMALL:
            texts = backwards(os.read(fd, SMALL), needle)
        else:
            texts = search(fd, size, file, needle)
        line = next(filter(None, map(decode, texts)), None)
        return line.reference if line else None
    finally:
        os.close(fd)


def backwards(text: bytes | mmap.mmap, needle: bytes, start: int = 0) -> Iterator[bytes]:
    """Yield the lines of ``text`` that begin with ``needle``, the last first."""
    at = text.rfind(needle, start)
    while at >= 0:
        end = text.find(b"\n", at + 1)
        yield text[at + 1 : end if end >= 0 else len(text)]
        at = text.rfind(needle, start, at)


def _texts(folder: Directory) -> Iterator[bytes]:
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return
    start = b""
    try:
        start = os.read(fd, SMALL)
    finally:
        if len(start) < SMALL:
            os.close(fd)
    if len(start) < SMALL:  # the whole: most are small, and a file object takes more system calls
        yield from io.BytesIO(start)
        return
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb") as file:
        yield from file


def lines(folder: Directory) -> Iterator[Line]:
    """Yield every whole line, the oldest first."""
    return filter(None, map(decode, _texts(folder)))


def count(folder: Directory) -> int:
    """Return the number of lines, torn ones included."""
    return sum(text != b"\n" for text in _texts(folder))


def kept(folder: Directory) -> Iterator[tuple[str, str, int, str]]:
    """Yield (stored name, token, size, digest) of every whole line, ten times as fast."""
    for match in filter(None, map(_is_line, _texts(folder))):
        file, token, size, digest = match.groups()
        yield file.decode(errors="replace"), token.decode(), int(size), digest.decode()


# A quote inside the name has a backslash before it, so no part of a name can look like a field.
_is_line = re.compile(
    rb'\{"file": "([^"]+)", "token": "([0-9.]+)", "name": .*, "size": ([0-9]+), '
    rb'"digest": "([0-9a-f]+)", "created": "[^"]+", "expires": [^}]+\}\n?'
).fullmatch


def since(folder: Directory, mark: Mark | None) -> tuple[Mark | None, list[Line] | None]:
    """Return a new mark, and the lines from the one that ``mark`` names on.

    None in place of the lines means that the journal was compacted, or that there is no mark.
    """
    seen = folder.stat_or_none("seen")
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None, None
    try:
        status = os.fstat(fd)
        size, which = status.st_size, (seen.st_size if seen else -1, status.st_ino)
        at, line, before = mark or Mark(max(size - SMALL, 0), b"", which)
        text = read_at(fd, at, max(size - at, 0))
    finally:
        os.close(fd)
    is_same = text.startswith(line) and before == which
    last = text.rfind(b"\n")
    new = Mark(at + last, text[last:], which) if is_same and last >= 0 else None
    known = mark is not None and is_same
    return new, [*filter(None, map(decode, text.split(b"\n")))] if known else None


def compact(folder: Directory, keep: list[Line]) -> None:
    """Rewrite the journal with the lines ``keep`` only. The caller holds the session's lock."""
    # The new file is forced before it gets its name, ``durable`` or not: its lines may be of files
    # that were saved long ago.
    new = NAME + ".new"
    folder.unlink(new)
    fd = folder.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with open(fd, "wb") as file:
        file.writelines(encode(*line) for line in keep)
        file.flush()
        os.fsync(file.fileno())
    folder.rename(new, folder, NAME)


def moment(nanoseconds: int) -> datetime:
    """Convert a file time in nanoseconds to a datetime, exact to the microsecond."""
    return EPOCH + timedelta(0, 0, nanoseconds // 1000)


def nanoseconds(time: datetime) -> int:
    """Convert a datetime to a file time in nanoseconds, exact to the microsecond."""
    since = time - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


@dataclass(slots=True)
class Table:
    """The offsets of the lines of one journal, up to the offset ``covered``."""

    covered: int
    offsets: array[int]
    _mark: bytes

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
        return len(self.offsets)

    def tail(self, fd: int, size: int) -> bytes | None:
        """Return the bytes of the journal after the table; None when it is another journal."""
        start = self.covered - len(self._mark)
        text = read_at(fd, start, size - start) if size >= self.covered else b""
        return text[len(self._mark) :] if text.startswith(self._mark) else None

    def lines(self, fd: int, file: str, needle: bytes) -> Iterator[bytes]:
        """Yield the lines of the stored name ``file`` that begin with ``needle``, last first."""
        key = _key(file.encode())
        place = bisect_left(self.offsets, key | _OFFSET)
        while place and self.offsets[place - 1] >= key:
            place -= 1
            line = _line(fd, self.offsets[place] & _OFFSET)
            if line.startswith(needle):
                yield line[1:]


def _key(file: bytes) -> int:
    return (hash(file) & _HASH) << _OFFSET_BITS


def _line(fd: int, at: int) -> bytes:
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

    The methods of its dictionaries are atomic and a table never changes, so there is no lock: a
    fork could leave it taken.
    """

    def __init__(self) -> None:
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._searched: dict[str, int] = {}

    def lines(self, sid: str, fd: int, size: int, file: str, needle: bytes) -> Iterator[bytes]:
        """Yield the lines that begin with ``needle`` as those of ``file`` do, the last first.

        ``fd`` and ``size`` are of the session's journal.
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
            self._keep(sid, Table.of(tail, table.covered, table.offsets))
        with suppress(KeyError):
            self._tables.move_to_end(sid)
        yield from backwards(tail, needle)
        yield from table.lines(fd, file, needle)

    def _is_due(self, sid: str, size: int) -> bool:
        searched = self._searched.pop(sid, 0) + size
        if searched > PATIENCE * size:
            return True
        if len(self._searched) >= _REMEMBERED:
            self._searched.clear()
        self._searched[sid] = searched
        return False

    def _keep(self, sid: str, table: Table) -> None:
        self._tables[sid] = table
        while (count := len(self._tables)) > 1 and (
            count > _REMEMBERED or sum(map(len, list(self._tables.values()))) > MOST
        ):
            with suppress(KeyError):  # another thread was faster
                self._tables.popitem(last=False)
