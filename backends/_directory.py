"""Files below an open directory, so that no symbolic link planted on the way is followed.

Where the system can, every name is looked up relative to the directory's descriptor (``dir_fd``)
and never followed (``O_NOFOLLOW``). Elsewhere (Windows) the same calls go by path, with a check
that the directory itself is none. Names are single stored segments; nothing here joins user text.
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
    """One directory, held open: whatever its name stands for later, it is this one.

    Any number of threads may use it; closing it is for when none does.
    """

    __slots__ = ("_above", "_identity", "_name", "fd")

    def __init__(self, path: str, *, parent: Directory | None = None) -> None:
        """Open ``path``, or that name in ``parent``. Raises NotADirectoryError for a link."""
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
        """Where it was when it was opened: for messages, and for systems without ``dir_fd``."""
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
        """The directory ``name`` in this one."""
        return Directory(name, parent=self)

    def at(self, name: str) -> str:
        """What to give a system call beside ``dir_fd=self.fd``."""
        return name if self.fd is not None else os.path.join(self.path, name)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        return os.open(self.at(name), flags | _NOFOLLOW | _CLOEXEC, mode, dir_fd=self.fd)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """A file of it, open for reading."""
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
        """Whether there is something of that name. A look that fails says no, and costs least."""
        if self.fd is not None:
            return os.access(name, os.F_OK, dir_fd=self.fd)
        return os.access(self.at(name), os.F_OK)

    def mkdir(self, name: str) -> None:
        os.mkdir(self.at(name), 0o700, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            os.unlink(name if self.fd is not None else self.at(name), dir_fd=self.fd)
        except FileNotFoundError:
            pass
        except PermissionError:
            if HAS_DIR_FD:
                raise
            os.chmod(self.at(name), 0o600)  # Windows keeps read-only files from being removed
            os.unlink(self.at(name))

    def rmdir(self, name: str) -> None:
        os.rmdir(self.at(name), dir_fd=self.fd)

    def link(self, name: str, to: Directory, new: str) -> None:
        """A second name for a file, which must not exist yet (FileExistsError)."""
        if self.fd is None:
            os.link(self.at(name), to.at(new))
        else:
            os.link(name, new, src_dir_fd=self.fd, dst_dir_fd=to.fd, follow_symlinks=False)

    def rename(self, name: str, to: Directory, new: str) -> None:
        """Move a file or directory, replacing a file (or empty directory) of that name."""
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
        """What is in it, in no order."""
        if self.fd is None:
            with os.scandir(self.path) as entries:
                yield from (entry.name for entry in entries)
            return
        # A descriptor has one position: each scan needs its own, or two threads share the entries.
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
        """Whether ``name`` in ``parent`` still is this directory."""
        if self._identity is None and self.fd is not None:
            self._identity = os.fstat(self.fd)  # once: an open directory stays the one it is
        there = parent.stat_or_none(name)
        mine = self._identity
        return there is not None and mine is not None and os.path.samestat(there, mine)

    def fsync(self) -> None:
        """Make the names in it durable, where the system can."""
        if self.fd is not None:
            os.fsync(self.fd)


def _fd(directory: Directory | None) -> int | None:
    return None if directory is None else directory.fd
