"""Spools: files for bytes that are being written, without a name where the system can do that.

An unnamed file (``O_TMPFILE``, open(2)) disappears when its process dies. Its first name is the
final one (``linkat`` of ``/proc/self/fd/N``). A named file lives in this process's workspace. If
the process dies, the next sweep removes the workspace.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from typing import Self

from sessionstore._os.errors import FULL, from_os_error
from sessionstore.content import CHUNK, Buffer

from .directory import HAS_DIR_FD, Directory

FINISHED = 0o444
"""The mode of every stored file: it is never written again."""

UNFINISHED = 0o1400
"""The mode of a file that is being written in its place and is no file of the session yet.

The sticky bit marks it. That bit has no meaning on a file, and open(2) sets it under every umask.
"""


def can_be_unnamed(work: Directory) -> bool:
    """Return whether unnamed files can be made in ``work`` and named later.

    Raises OSError on a full disk, where that cannot be tried.
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
    """Return whether a new file in ``work`` can have the mode ``UNFINISHED`` from the start."""
    name = secrets.token_hex(8)
    os.close(work.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, UNFINISHED))
    try:
        return is_unfinished(work.stat(name))
    finally:
        work.unlink(name)


class LocalSpool:
    """A file that is being written in the store's own file system.

    ``close`` removes it unless ``link`` or ``move`` gave it a name.
    """

    def __init__(self, fd: int, root: str, work: Directory | None = None, name: str = "") -> None:
        """Take over the open file ``fd``.

        A named file is ``name`` in ``work``. ``root`` is the store's directory, for messages.
        """
        self._fd = fd
        self._root = root
        self._work = work
        self._name = name

    @classmethod
    def unnamed(cls, place: Directory, root: str) -> Self:
        """Create an unnamed file in the file system of ``place``, which stays open."""
        return cls(_unnamed(place), root)

    @classmethod
    def named(cls, work: Directory, root: str) -> Self:
        """Create a file in this process's workspace ``work``. ``close`` also closes ``work``."""
        name = secrets.token_hex(8)
        fd = work.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, FINISHED)
        return cls(fd, root, work, name)

    def write(self, data: Buffer, /) -> int:
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise from_os_error(error, "write a file", self._root) from error
        return len(data)

    def chunks(self) -> Iterator[bytes]:
        position = 0
        while chunk := _read_at(self._fd, position):
            position += len(chunk)
            yield chunk

    def seal(self, *, durable: bool) -> os.stat_result:
        """Finish the file and return its status. When ``durable``, force it to the disk."""
        status = sealed(self._fd)
        if durable:
            os.fsync(self._fd)
        return status

    def link(self, to: Directory, name: str) -> None:
        """Give the file the name ``name`` in ``to``. Raises FileExistsError when it is taken."""
        if self._work is None:
            _name_it(self._fd, to, name)
        else:
            self._work.link(self._name, to, name)

    def move(self, to: Directory, name: str) -> None:
        """Rename the named file to ``name`` in ``to``, where the disk has no hard links."""
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
    """Write all of ``data``, with as many write(2) calls as that takes."""
    while (written := os.write(fd, data)) < len(data):
        data = memoryview(data)[written:]


def sealed(fd: int) -> os.stat_result:
    """Set the time of the completely written file ``fd`` and return its status."""
    # The time is set to the nanosecond, because the kernel's own clock keeps one value for some
    # milliseconds (Documentation/timers, the coarse clock). In that time an inode can be reused.
    if os.utime in os.supports_fd:
        os.utime(fd, ns=(time.time_ns(),) * 2)
    return os.fstat(fd)


def is_unfinished(status: os.stat_result) -> bool:
    """Return whether a file is being written in its place, or was when its process died."""
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)


def _unnamed(work: Directory) -> int:
    # The mode applies to the file, not to this descriptor, which can write although it is 0444.
    return work.open(".", os.O_TMPFILE | os.O_RDWR, FINISHED)


def _name_it(fd: int, to: Directory, name: str) -> None:
    # open(2) recommends to follow /proc/self/fd/N. Python calls linkat(2) only with a dir_fd.
    source = f"/proc/self/fd/{fd}"
    os.link(source, name, src_dir_fd=to.fd, dst_dir_fd=to.fd, follow_symlinks=True)


def _read_at(fd: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, CHUNK, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, CHUNK)
