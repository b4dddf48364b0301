"""Files below an open directory, without following a symbolic link that an attacker made.

Where the system supports it, every name is looked up relative to the directory's descriptor
(``dir_fd``), and a symbolic link is never followed (``O_NOFOLLOW``). Elsewhere (Windows) the same
calls use paths, after a check that the directory itself is no link. Names are single stored
segments; no function here joins user text.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Self

HAS_DIR_FD = {os.open, os.stat, os.unlink, os.mkdir, os.rename, os.link} <= os.supports_dir_fd
_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)


class Directory:
    """One open directory. It stays this directory even if its name later belongs to another.

    Any number of threads may use it. Close it only when no thread uses it.
    """

    __slots__ = ("_above", "_identity", "_name", "fd")

    def __init__(self, path: str, *, parent: Directory | None = None) -> None:
        """Open ``path``, or the name ``path`` in ``parent``.

        Raises NotADirectoryError for a symbolic link in ``parent``.
        """
        self._above = parent
        self._name = path
        self._identity: os.stat_result | None = None
        self.fd: int | None = None
        if HAS_DIR_FD:
            follow = 0 if parent is None else _NOFOLLOW  # the root itself may be a link
            self.fd = os.open(
                path, os.O_RDONLY | _DIRECTORY | follow | _CLOEXEC, dir_fd=_fd(parent)
            )
            return
        self._identity = os.stat(self.path, follow_symlinks=parent is None)
        if not stat.S_ISDIR(self._identity.st_mode):
            raise NotADirectoryError(self.path)

    @property
    def path(self) -> str:
        """The path at the time of opening, for messages and for systems without ``dir_fd``."""
        return self._name if self._above is None else os.path.join(self._above.path, self._name)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sub(self, name: str) -> Directory:
        """Open the directory ``name`` in this one."""
        return Directory(name, parent=self)

    def at(self, name: str) -> str:
        """Return the path argument for a system call with ``dir_fd=self.fd``."""
        return name if self.fd is not None else os.path.join(self.path, name)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        return os.open(self.at(name), flags | _NOFOLLOW | _CLOEXEC, mode, dir_fd=self.fd)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """Open the file ``name`` for reading, during a block."""
        fd = self.open(name, os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)

    def stat(self, name: str) -> os.stat_result:
        fd = self.fd
        return os.stat(name if fd is not None else self.at(name), dir_fd=fd, follow_symlinks=False)

    def stat_or_none(self, name: str) -> os.stat_result | None:
        fd = self.fd
        path = name if fd is not None else self.at(name)
        try:
            return os.stat(path, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Return whether ``name`` exists, also False on an error. This is the cheapest check."""
        if self.fd is not None:
            return os.access(name, os.F_OK, dir_fd=self.fd)
        return os.access(self.at(name), os.F_OK)

    def mkdir(self, name: str) -> None:
        os.mkdir(self.at(name), 0o700, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """Remove the file ``name``. A missing file is no error."""
        try:
            os.unlink(name if self.fd is not None else self.at(name), dir_fd=self.fd)
        except FileNotFoundError:
            pass
        except PermissionError:
            if HAS_DIR_FD:
                raise
            os.chmod(self.at(name), 0o600)  # Windows does not remove read-only files
            os.unlink(self.at(name))

    def rmdir(self, name: str) -> None:
        os.rmdir(self.at(name), dir_fd=self.fd)

    def link(self, name: str, to: Directory, new: str) -> None:
        """Make ``new`` in ``to`` a second name of a file. Raises FileExistsError if it exists."""
        if self.fd is None:
            os.link(self.at(name), to.at(new))
        else:
            os.link(name, new, src_dir_fd=self.fd, dst_dir_fd=to.fd, follow_symlinks=False)

    def rename(self, name: str, to: Directory, new: str) -> None:
        """Move a file or directory to ``new`` in ``to``, replacing a file or empty directory."""
        if self.fd is None:
            os.replace(self.at(name), to.at(new))
        else:
            os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=to.fd)

    def utime(self, name: str, nanoseconds: int) -> None:
        if self.fd is None:
            os.utime(self.at(name), ns=(nanoseconds, nanoseconds))
        else:
            os.utime(name, ns=(nanoseconds, nanoseconds), dir_fd=self.fd, follow_symlinks=False)

    def names(self) -> Iterator[str]:
        """Yield the names in this directory, in no order."""
        if self.fd is None:
            with os.scandir(self.path) as entries:
                yield from (entry.name for entry in entries)
            return
        # A descriptor has one position. Each scan needs its own descriptor, or two concurrent scans
        # would each see a part of the entries.
        try:
            own = self.open(".", os.O_RDONLY | _DIRECTORY)
        except FileNotFoundError:
            return  # removed since it was opened
        try:
            with os.scandir(own) as entries:
                yield from (entry.name for entry in entries)
        finally:
            os.close(own)

    def is_still(self, parent: Directory, name: str) -> bool:
        """Return whether ``name`` in ``parent`` is still this directory."""
        if self._identity is None and self.fd is not None:
            self._identity = os.fstat(self.fd)  # once: an open directory does not change identity
        status = parent.stat_or_none(name)
        mine = self._identity
        return status is not None and mine is not None and os.path.samestat(status, mine)

    def fsync(self) -> None:
        """Force the names in this directory to the disk, where the system supports it."""
        if self.fd is not None:
            os.fsync(self.fd)


def _fd(directory: Directory | None) -> int | None:
    return None if directory is None else directory.fd
