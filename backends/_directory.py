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
    """One directory, held open. ``path`` is for messages, and for systems without ``dir_fd``."""

    __slots__ = ("_identity", "fd", "path")
    path: str

    def __init__(self, path: str, *, parent: Directory | None = None, name: str = "") -> None:
        """Open ``path``, or ``name`` in ``parent``. Raises NotADirectoryError for a link."""
        self.path = os.path.join(parent.path, name) if parent is not None else path
        self.fd: int | None = None
        if HAS_DIR_FD:
            target = name if parent is not None else path
            follow = 0 if parent is None else _NOFOLLOW  # the root itself may be a link
            self.fd = os.open(
                target, os.O_RDONLY | _DIRECTORY | follow | _CLOEXEC, dir_fd=_fd(parent)
            )
        there = os.stat(self.path, follow_symlinks=parent is None) if self.fd is None else None
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise NotADirectoryError(self.path)
        self._identity = there

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
        return Directory("", parent=self, name=name)

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
        return os.stat(self.at(name), dir_fd=self.fd, follow_symlinks=False)

    def stat_or_none(self, name: str) -> os.stat_result | None:
        try:
            return self.stat(name)
        except FileNotFoundError:
            return None

    def mkdir(self, name: str) -> None:
        os.mkdir(self.at(name), 0o700, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            os.unlink(self.at(name), dir_fd=self.fd)
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
        there = parent.stat_or_none(name)
        mine = self._identity if self.fd is None else os.fstat(self.fd)
        return there is not None and mine is not None and os.path.samestat(there, mine)

    def fsync(self) -> None:
        """Make the names in it durable, where the system can."""
        if self.fd is not None:
            os.fsync(self.fd)


def _fd(directory: Directory | None) -> int | None:
    return None if directory is None else directory.fd
