"""A session's journal: one JSON line for each save, saying what a link cannot.

The link is the truth and the journal describes it. A line counts only while a link of its name is
the very file it names (``token``: inode and modification time); of several such lines the last
counts. So a line whose save never finished, a line of a file since replaced and a torn line are
all simply ignored, and nothing has to be undone after a crash.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sessionstore.backend import Reference
from sessionstore.backends._directory import Directory
from sessionstore.clock import EPOCH

NAME = "journal"
_quoted = json.encoder.encode_basestring_ascii
_scan = json.JSONDecoder().raw_decode
_SMALL = 1 << 16
"""Below this many bytes a journal is not worth compacting, and is read rather than mapped."""


class Line(NamedTuple):
    """One save: the link's stored name, and the reference it made."""

    file: str
    reference: Reference


def encode(file: str, reference: Reference) -> bytes:
    """The line, with the newline in front: a torn one before it cannot swallow it."""
    name, size, digest, created, expires, token = reference
    until = "null" if expires is None else f'"{expires.isoformat()}"'
    # By hand, in a third of the time of json.dumps: only a name can hold what needs escaping.
    return (
        f'\n{{"file": "{file}", "token": "{token}", "name": {_quoted(name)}, "size": {size}, '
        f'"digest": "{digest}", "created": "{created.isoformat()}", "expires": {until}}}'
    ).encode()


def decode(text: bytes) -> Line | None:
    """The line, or None for one that is torn."""
    try:
        row: dict[str, Any]
        row, end = _scan(text.decode())  # half of the time of json.loads
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


class Writer:
    """Adds lines to a journal, which it keeps open. The caller holds the session's lock.

    It is closed when another process has put a compacted one in its place: the caller knows.
    """

    __slots__ = ("_fd", "_folder")

    def __init__(self, folder: Directory) -> None:
        self._folder = folder
        self._fd = -1

    def append(self, file: str, reference: Reference, *, durable: bool) -> bool:
        """Add a line in one write(2). True when the journal has just grown past a power of two.

        That is when to look whether it should be compacted: seldom enough to cost nothing.
        """
        text = encode(file, reference)
        if self._fd < 0:
            self._fd = self._folder.open(NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if os.write(self._fd, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(self._fd)
        # Appending leaves the position at the end; to ask for it takes a third of an fstat.
        size = os.lseek(self._fd, 0, os.SEEK_CUR)
        return size >= _SMALL and size.bit_length() != (size - len(text)).bit_length()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


Search = Callable[[int, int, str, bytes], Iterator[bytes]]
"""``Tables.lines``: the lines of a large journal that begin with a needle, the last first.

It takes the journal's descriptor and size, the stored name that the lines are of, and the needle.
"""


def find(folder: Directory, file: str, token: str, search: Search) -> Reference | None:
    """The reference of one link, found from the end without reading every line."""
    return _last(folder, file, f'\n{{"file": "{file}", "token": "{token}",'.encode(), search)


def find_inode(folder: Directory, file: str, inode: int, search: Search) -> Reference | None:
    """The reference that a link of that inode was made for, whatever the file's time is now."""
    return _last(folder, file, f'\n{{"file": "{file}", "token": "{inode}.'.encode(), search)


def _last(folder: Directory, file: str, needle: bytes, search: Search) -> Reference | None:
    """The last whole line that begins so. Nothing in a needle can hold a quote or a newline."""
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        if size <= _SMALL:
            found = backwards(os.read(fd, _SMALL), needle)
        else:
            found = search(fd, size, file, needle)
        for text in found:
            line = decode(text)
            if line is not None:
                return line.reference
    finally:
        os.close(fd)
    return None


def backwards(text: bytes | mmap.mmap, needle: bytes, start: int = 0) -> Iterator[bytes]:
    """The lines that begin with ``needle``, the last first."""
    at = text.rfind(needle, start)
    while at >= 0:
        end = text.find(b"\n", at + 1)
        yield text[at + 1 : end if end >= 0 else len(text)]
        at = text.rfind(needle, start, at)


def lines(folder: Directory) -> Iterator[Line]:
    """Every whole line, oldest first, read as it goes."""
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        for text in file:
            line = decode(text)
            if line is not None:
                yield line


def count(folder: Directory) -> int:
    """How many lines there are."""
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    with open(fd, "rb", buffering=0) as file:
        return sum(text.count(b"\n") for text in iter(lambda: file.read(_SMALL), b""))


def kept(folder: Directory) -> Iterator[tuple[str, str, int, str]]:
    """The same of every whole line, in a tenth of the time: for taking a session apart.

    Stored name, token, size and digest.
    """
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(fd, encoding="utf-8", errors="replace", newline="\n") as texts:
        for found in filter(None, map(_is_line, texts)):
            file, token, size, digest = found.groups()
            yield file, token, int(size), digest


# A quote inside the name has a backslash in front, so nothing in a name can look like a field.
_is_line = re.compile(
    r'\{"file": "([^"]+)", "token": "([0-9.]+)", "name": .*, "size": ([0-9]+), '
    r'"digest": "([0-9a-f]+)", "created": "[^"]+", "expires": [^}]+\}\n?'
).fullmatch


def compact(folder: Directory, keep: list[Line]) -> None:
    """Rewrite the journal with these lines only. The caller holds the session's lock.

    The new one is forced before it has the name, ``durable`` or not: its lines may be of files that
    were saved long ago.
    """
    new = NAME + ".new"
    folder.unlink(new)
    fd = folder.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with open(fd, "wb") as file:
        file.writelines(encode(*line) for line in keep)
        file.flush()
        os.fsync(file.fileno())
    folder.rename(new, folder, NAME)


def moment(nanoseconds: int) -> datetime:
    """A file time as a datetime."""
    return EPOCH + timedelta(0, 0, nanoseconds // 1000)


def nanoseconds(time: datetime) -> int:
    """A datetime as a file time, exact to the microsecond."""
    since = time - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
