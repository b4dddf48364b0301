"""A session's journal: one JSON line for each save, with the properties that a link cannot hold.

The link decides and the journal describes it. A line is valid only while a link of its name has the
token of the line (inode and modification time). Of several such lines the last is valid. All other
lines are ignored: those of saves that did not finish, those of files replaced since, and torn
lines. Nothing has to be undone after a crash.
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

from sessionstore.clock import EPOCH
from sessionstore.model import Reference

from .directory import Directory

NAME = "journal"
_quoted = json.encoder.encode_basestring_ascii
_scan = json.JSONDecoder().raw_decode
_SMALL = 1 << 16
"""Bytes below which a journal is not compacted, and is read rather than mapped."""


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


class Writer:
    """Appends lines to a journal and keeps it open. The caller holds the session's lock.

    The caller closes it when another process has replaced the journal by a compacted one.
    """

    __slots__ = ("_fd", "_folder")

    def __init__(self, folder: Directory) -> None:
        self._folder = folder
        self._fd = -1

    def append(self, file: str, reference: Reference, *, durable: bool) -> bool:
        """Append a line in one write(2); return whether the size just passed a power of two.

        Only then does the caller check whether to compact, which is rare enough to cost nothing.
        """
        text = encode(file, reference)
        if self._fd < 0:
            self._fd = self._folder.open(NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if os.write(self._fd, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(self._fd)
        # An append leaves the position at the end. lseek(2) takes a third of the time of fstat(2).
        size = os.lseek(self._fd, 0, os.SEEK_CUR)
        return size >= _SMALL and size.bit_length() != (size - len(text)).bit_length()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


Search = Callable[[int, int, str, bytes], Iterator[bytes]]
"""``Tables.lines``: yields the lines of a large journal that begin with a needle, the last first.

Its parameters are the journal's descriptor and size, the stored name of the lines, and the needle.
"""


def find(folder: Directory, file: str, token: str, search: Search) -> Reference | None:
    """Return the reference of the link ``file`` with that ``token``, None when no line has it.

    The search begins at the end and does not read every line.
    """
    return _last(folder, file, f'\n{{"file": "{file}", "token": "{token}",'.encode(), search)


def find_inode(folder: Directory, file: str, inode: int, search: Search) -> Reference | None:
    """Return the reference of the link ``file`` with that ``inode``, whatever its time is now."""
    return _last(folder, file, f'\n{{"file": "{file}", "token": "{inode}.'.encode(), search)


def _last(folder: Directory, file: str, needle: bytes, search: Search) -> Reference | None:
    """Return the reference of the last whole line that begins with ``needle``, or None.

    The values in a needle can hold neither a quote nor a newline.
    """
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        if size <= _SMALL:
            texts = backwards(os.read(fd, _SMALL), needle)
        else:
            texts = search(fd, size, file, needle)
        for text in texts:
            line = decode(text)
            if line is not None:
                return line.reference
    finally:
        os.close(fd)
    return None


def backwards(text: bytes | mmap.mmap, needle: bytes, start: int = 0) -> Iterator[bytes]:
    """Yield the lines of ``text`` that begin with ``needle``, the last first."""
    at = text.rfind(needle, start)
    while at >= 0:
        end = text.find(b"\n", at + 1)
        yield text[at + 1 : end if end >= 0 else len(text)]
        at = text.rfind(needle, start, at)


def lines(folder: Directory) -> Iterator[Line]:
    """Yield every whole line, the oldest first, reading the file step by step."""
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
    """Return the number of lines."""
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    with open(fd, "rb", buffering=0) as file:
        return sum(text.count(b"\n") for text in iter(lambda: file.read(_SMALL), b""))


def kept(folder: Directory) -> Iterator[tuple[str, str, int, str]]:
    """Yield (stored name, token, size, digest) of every whole line, the oldest first.

    This takes a tenth of the time of ``lines``.
    """
    try:
        fd = folder.open(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(fd, encoding="utf-8", errors="replace", newline="\n") as texts:
        for match in filter(None, map(_is_line, texts)):
            file, token, size, digest = match.groups()
            yield file, token, int(size), digest


# A quote inside the name has a backslash before it, so no part of a name can look like a field.
_is_line = re.compile(
    r'\{"file": "([^"]+)", "token": "([0-9.]+)", "name": .*, "size": ([0-9]+), '
    r'"digest": "([0-9a-f]+)", "created": "[^"]+", "expires": [^}]+\}\n?'
).fullmatch


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
