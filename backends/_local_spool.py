"""Bytes on their way onto the disk: an unnamed file where the system has them, else a named one.

An unnamed file (``O_TMPFILE``, open(2)) leaves nothing behind when its process dies, and gets its
first name straight in its place (``linkat`` of ``/proc/self/fd/N``). A named one lives in this
process's workspace, which the next sweep clears after a death.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from typing import Self

from sessionstore.backends._directory import HAS_DIR_FD, Directory
from sessionstore.content import CHUNK, Buffer
from sessionstore.oserrors import FULL, in_our_words

FINISHED = 0o444
"""The mode of every stored file: nobody writes to one again."""

UNFINISHED = 0o1400
"""The mode of one that is being written in its place: it is no file of the session yet.

The sticky bit says so, which means nothing on a file and which open(2) sets, whatever the umask.
"""


def can_be_unnamed(work: Directory) -> bool:
    """Whether files without a name can be made there, and be given one later.

    Raises OSError on a full disk, which does not say.
    """
    if not HAS_DIR_FD or not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return False
    name = secrets.token_hex(8)
    try:
        fd = _unnamed(work)
        try:
            _name_it(fd, work, name)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in FULL:
            raise
        return False
    work.unlink(name)
    return True


def can_be_unfinished(work: Directory) -> bool:
    """Whether the file system there keeps the mark of unfinished files from their first moment."""
    name = secrets.token_hex(8)
    os.close(work.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, UNFINISHED))
    try:
        return is_unfinished(work.stat(name))
    finally:
        work.unlink(name)


class LocalSpool:
    """A file being written in the store's own file system. Closing it forgets it unless placed."""

    def __init__(self, fd: int, root: str, work: Directory | None = None, name: str = "") -> None:
        """``fd`` is the file; a named one is ``name`` in ``work``. ``root`` is for messages."""
        self._fd = fd
        self._root = root
        self._work = work
        self._name = name

    @classmethod
    def unnamed(cls, place: Directory, root: str) -> Self:
        """A file without a name in that directory's file system. ``place`` stays open."""
        return cls(_unnamed(place), root)

    @classmethod
    def named(cls, work: Directory, root: str) -> Self:
        """A file in this process's workspace, which is closed with it."""
        name = secrets.token_hex(8)
        fd = work.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, FINISHED)
        return cls(fd, root, work, name)

    def write(self, data: Buffer, /) -> int:
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise in_our_words(error, "write a file", self._root) from error
        return len(data)

    def chunks(self) -> Iterator[bytes]:
        position = 0
        while chunk := _read_at(self._fd, position):
            position += len(chunk)
            yield chunk

    def seal(self, *, durable: bool) -> os.stat_result:
        """What is known of the finished file; on the disk for certain when ``durable``."""
        there = sealed(self._fd)
        if durable:
            os.fsync(self._fd)
        return there

    def link(self, to: Directory, name: str) -> None:
        """Give the file a name. Raises FileExistsError when that is taken."""
        if self._work is None:
            _name_it(self._fd, to, name)
        else:
            self._work.link(self._name, to, name)

    def move(self, to: Directory, name: str) -> None:
        """Put the named file in the place of ``name``, where links cannot be made."""
        assert self._work is not None, "without links no file is unnamed"  # noqa: S101 - for mypy
        self._work.rename(self._name, to, name)
        self._name = ""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._work is not None:
            if self._name:
                self._work.unlink(self._name)
                self._name = ""
            self._work.close()


def write_all(fd: int, data: Buffer) -> None:
    """Write all of it, in as many calls as the system takes."""
    while (written := os.write(fd, data)) < len(data):
        data = memoryview(data)[written:]


def sealed(fd: int) -> os.stat_result:
    """What is known of a file whose bytes are all there.

    Its time is set to the nanosecond, because the kernel's own has the same value for some
    milliseconds (Documentation/timers, the coarse clock), in which an inode can be reused.
    """
    if os.utime in os.supports_fd:
        os.utime(fd, ns=(time.time_ns(),) * 2)
    return os.fstat(fd)


def is_unfinished(there: os.stat_result) -> bool:
    """Whether it is a file that is being written in its place, or was when its process died."""
    return stat.S_ISREG(there.st_mode) and bool(there.st_mode & stat.S_ISVTX)


def _unnamed(work: Directory) -> int:
    # The mode is the file's, not the descriptor's: this one writes although it says 0444.
    return work.open(".", os.O_TMPFILE | os.O_RDWR, FINISHED)


def _name_it(fd: int, to: Directory, name: str) -> None:
    # Following /proc/self/fd/N is what open(2) gives for this; it needs a dir_fd to be linkat(2).
    source = f"/proc/self/fd/{fd}"
    os.link(source, name, src_dir_fd=to.fd, dst_dir_fd=to.fd, follow_symlinks=True)


def _read_at(fd: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, CHUNK, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, CHUNK)
