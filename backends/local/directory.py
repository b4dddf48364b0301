"""Open directories of a local store, and its blobs.

Where the system supports it, every name is looked up relative to the directory's descriptor
(``dir_fd``), and a symbolic link is never followed (``O_NOFOLLOW``). Elsewhere (Windows) the same
calls use paths, after a check that the directory itself is no link. Names are stored segments, or
``<2 hex>/<digest>`` for a blob; no function here joins user text.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Iterator
from typing import Self

from sessionstore.content import CHUNK, hasher
from sessionstore.model import Reference

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # None marks Windows, where the module is missing

HAS_DIR_FD = {os.open, os.stat, os.unlink, os.mkdir, os.rename, os.link} <= os.supports_dir_fd
_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)

FINISHED = 0o444
"""The mode of every stored file: it is never written again."""

UNFINISHED = 0o1400
"""The mode of a file that is being written in its place and is no file of the session yet.

The sticky bit, which has no meaning on a file, marks it: open(2) sets it under every umask.
"""

SLICE = 2048
"""Blobs checked in one garbage collection, some 5 ms of work. n blobs take n/SLICE runs."""

BOOT_MARGIN = 300
"""Seconds of error allowed for the machine's clock at its start."""

BOOTED = (
    int((time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + BOOT_MARGIN) * 1_000_000_000)
    if hasattr(time, "CLOCK_BOOTTIME")
    else 0
)
"""Start of the machine in ns since the epoch, 0 if unknown: no later file met a power cut."""

_FIEMAP = 0xC020660B
"""FS_IOC_FIEMAP, linux/fiemap.h."""
_SYNC, _LAST, _UNWRITTEN = 0x1, 0x1, 0x800
_HEAD, _EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
_AT_ONCE = 16

_FAN = re.compile(r"[0-9a-f]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Directory:
    """One open directory. It stays this directory even if its name later belongs to another.

    Any number of threads may use it. Close it only when no thread uses it.
    """

    __slots__ = ("_above", "_identity", "_name", "fd")

    def __init__(
        self, path: str, *, parent: Directory | None = None, by_path: bool = False
    ) -> None:
        """Open ``path``, or the name ``path`` in ``parent``, where it may be no symbolic link.

        With ``by_path`` it is not opened: for a private directory that is used for a moment.
        """
        self._above = parent
        self._name = path
        self._identity: os.stat_result | None = None
        self.fd: int | None = None
        if by_path:
            return
        if HAS_DIR_FD:
            follow = 0 if parent is None else _NOFOLLOW  # the root itself may be a link
            self.fd = os.open(
                path if parent is None else parent.at(path),
                os.O_RDONLY | _DIRECTORY | follow | _CLOEXEC,
                dir_fd=None if parent is None else parent.fd,
            )
            return
        self._identity = os.stat(self.path, follow_symlinks=parent is None)
        if not stat.S_ISDIR(self._identity.st_mode):
            raise NotADirectoryError(self.path)

    @property
    def path(self) -> str:
        return self._name if self._above is None else os.path.join(self._above.path, self._name)

    def belongs_at(self, parent: Directory, name: str) -> Self:
        """Note the place to which the caller is about to move this directory."""
        self._above, self._name = parent, name
        return self

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sub(self, name: str) -> Directory:
        return Directory(name, parent=self)

    def at(self, name: str) -> str:
        """Return the path for a system call with ``dir_fd=self.fd``."""
        return name if self.fd is not None else os.path.join(self.path, name)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        path = name if self.fd is not None else self.at(name)
        return os.open(path, flags | _NOFOLLOW | _CLOEXEC, mode, dir_fd=self.fd)

    def write(self, name: str, data: bytes) -> None:
        """Write a new file, in fewer system calls than Python's file objects make."""
        fd = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            if data and os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """Open the file ``name`` for reading, during a block."""
        fd = self.open(name, os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)

    def force(self, name: str) -> None:
        """Force the bytes of the file ``name`` to the disk."""
        with self.reading(name) as fd:
            os.fsync(fd)

    def stat(self, name: str) -> os.stat_result:
        return os.stat(self.at(name), dir_fd=self.fd, follow_symlinks=False)

    def stat_or_none(self, name: str) -> os.stat_result | None:
        fd = self.fd
        path = name if fd is not None else self.at(name)
        try:
            return os.stat(path, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Return whether ``name`` exists, also False on an error. This is the cheapest check."""
        return os.access(self.at(name), os.F_OK, dir_fd=self.fd)

    def mkdir(self, name: str) -> None:
        os.mkdir(self.at(name), 0o700, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """Remove a file. A missing one is no error."""
        try:
            os.unlink(self.at(name), dir_fd=self.fd)
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
        if HAS_DIR_FD:
            os.link(
                self.at(name), to.at(new),
                src_dir_fd=self.fd, dst_dir_fd=to.fd, follow_symlinks=False,
            )  # fmt: skip
        else:
            os.link(self.at(name), to.at(new))

    def rename(self, name: str, to: Directory, new: str) -> None:
        """Move a file or directory to ``new`` in ``to``, replacing a file or empty directory."""
        if HAS_DIR_FD:
            os.rename(self.at(name), to.at(new), src_dir_fd=self.fd, dst_dir_fd=to.fd)
        else:
            os.replace(self.at(name), to.at(new))

    def utime(self, name: str, nanoseconds: int) -> None:
        times = (nanoseconds, nanoseconds)
        os.utime(self.at(name), ns=times, dir_fd=self.fd, follow_symlinks=self.fd is None)

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
        status, mine = parent.stat_or_none(name), self._identity
        return status is not None and mine is not None and os.path.samestat(status, mine)

    def fsync(self) -> None:
        """Force the names to the disk, where the system supports it."""
        if self.fd is not None:
            os.fsync(self.fd)

    def is_whole(self, name: str, status: os.stat_result, size: int) -> bool:
        """Return whether all bytes of the file ``name``, of the saved ``size``, were written.

        ``status`` is the file's. ext4 may put the size of a file on the disk before its bytes.
        After a power cut the extent that was never written reads as zeros, and the file system
        reports it (``FIEMAP``, Linux). True also when it reports nothing.
        """
        if status.st_size != size:
            return False
        if status.st_mtime_ns > BOOTED or fcntl is None or not size:
            return True
        try:
            with self.reading(name) as fd:
                return not _has_unwritten(fd, size)
        except OSError:  # the file was deleted, or the file system does not report extents
            return True


def digest_of(fd: int, algorithm: str) -> str:
    """Return the digest of the bytes of an open file, read from its position."""
    actual = hasher(algorithm)
    while chunk := os.read(fd, CHUNK):
        actual.update(chunk)
    return actual.hexdigest()


def is_unfinished(status: os.stat_result) -> bool:
    """Return whether a file is being written in its place, or was when its process died."""
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)


def token_of(status: os.stat_result) -> str:
    """Return a token of the version of a stored file, unique even if its inode is reused."""
    return f"{status.st_ino}.{status.st_mtime_ns}"


def token_of_copy(status: os.stat_result) -> str:
    """Return such a token for a disk without hard links.

    Those (FAT) assign new inode numbers at each mount, and keep times to two seconds.
    """
    return f"{status.st_size}.{status.st_mtime_ns // 2_000_000_000}"


class Blobs:
    """The blobs of one store: ``<2 hex>/<digest>`` in ``root``.

    The link count of a blob is its reference count.
    """

    def __init__(self, root: Directory, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        self._next_fan = ""
        self._forced: set[str] = set()
        """The directories of blobs with a name that this object has forced to the disk."""

    def close(self) -> None:
        self._root.close()

    def stat(self, digest: str) -> os.stat_result | None:
        return self._root.stat_or_none(f"{digest[:2]}/{digest}")

    def is_whole(self, digest: str, status: os.stat_result, size: int) -> bool:
        return self._root.is_whole(f"{digest[:2]}/{digest}", status, size)

    def reading(self, digest: str) -> contextlib.AbstractContextManager[int]:
        return self._root.reading(f"{digest[:2]}/{digest}")

    def link(self, digest: str, to: Directory, name: str) -> None:
        """Make another link to the blob, ``name`` in ``to``; first force the bytes if ``durable``.

        Raises FileNotFoundError, FileExistsError, or OSError with EMLINK.
        """
        if self._durable:  # the process that saved the bytes may not have forced them
            self._force_bytes(digest)
        self._root.link(f"{digest[:2]}/{digest}", to, name)

    def adopt(self, files: Directory, file: str, digest: str) -> bool:
        """Give the stored ``file`` its blob name; return False when another file has it."""
        place = f"{digest[:2]}/{digest}"
        try:
            try:
                files.link(file, self._root, place)
            except FileNotFoundError:  # the first blob in that directory
                self._make_fan(digest)
                files.link(file, self._root, place)
        except FileExistsError:
            return False
        if self._durable:
            self._force_name(digest)
        return True

    def renew(self, files: Directory, file: str, digest: str, work: Directory) -> None:
        """Give the blob name to the stored ``file``, replacing the file that has it.

        This is for a blob with as many links as the file system allows (EMLINK, 65,000 on ext4),
        and for a damaged one. References to the old file keep it. ``work`` is the workspace.
        """
        name = secrets.token_hex(8)
        files.link(file, work, name)
        self._make_fan(digest)
        work.rename(name, self._root, f"{digest[:2]}/{digest}")
        work.unlink(name)
        if self._durable:
            self._force_name(digest)

    def _make_fan(self, digest: str) -> None:
        with contextlib.suppress(FileExistsError):
            self._root.mkdir(digest[:2])
            self._forced.discard(digest[:2])

    def _force_bytes(self, digest: str) -> None:
        self._root.force(f"{digest[:2]}/{digest}")

    def _force_name(self, digest: str) -> None:
        fan = digest[:2]
        with self._root.sub(fan) as folder:
            folder.fsync()
        if fan not in self._forced:  # another process may have made it, and died
            self._root.fsync()
            self._forced.add(fan)

    def unlink(self, digest: str, *, links: int, token: str | None = None) -> int:
        """Remove the blob's name if the file has exactly ``links`` links and that ``token``.

        Return the size in bytes, or -1 when the name was not removed.
        """
        # A link made between the check and the removal keeps the file. Only the name is lost.
        status = self.stat(digest)
        if status is None or status.st_nlink != links or token not in {None, token_of(status)}:
            return -1
        self.remove(digest)
        return status.st_size

    def remove(self, digest: str) -> None:
        self._root.unlink(f"{digest[:2]}/{digest}")

    @contextlib.contextmanager
    def releasing(self, reference: Reference) -> Iterator[None]:
        """Surround the removal of a reference. With the last one, remove the blob's name, first.

        A crash in between leaves a file that saves cannot find by its digest, and no unreferenced
        blob. The second check is for two last references removed at the same time: each removal saw
        the other.
        """
        removed = self.unlink(reference.digest, links=2, token=reference.token) >= 0
        yield
        if not removed:
            with contextlib.suppress(OSError):  # the reference is removed; a sweep does the rest
                self.unlink(reference.digest, links=1)

    def forget(self, digest: str, inode: int) -> bool:
        status = self.stat(digest)
        if status is None or status.st_ino != inode:
            return False
        self.remove(digest)
        return True

    def collect(self) -> tuple[int, int]:
        """Remove unreferenced blobs in the next slice of the store; return (blobs, bytes)."""
        blobs = size = looked = 0
        fans = sorted(filter(_FAN.fullmatch, self._root.names()))
        later = [fan for fan in fans if fan >= self._next_fan]
        for fan in later + fans[: len(fans) - len(later)]:
            if looked >= SLICE:
                self._next_fan = fan
                break
            with self._root.sub(fan) as folder:
                for name in folder.names():
                    looked += 1
                    status = folder.stat_or_none(name)
                    # Nearly all blobs have more links, so the name is checked last.
                    if status is not None and status.st_nlink == 1 and _DIGEST.fullmatch(name):
                        freed = self.unlink(name, links=1)
                        blobs += freed >= 0
                        size += max(freed, 0)
        return blobs, size

    def everything(self) -> Iterator[tuple[str, os.stat_result]]:
        for fan in filter(_FAN.fullmatch, self._root.names()):
            with self._root.sub(fan) as folder:
                for name in folder.names():
                    if _is_blob(fan, name) and (status := folder.stat_or_none(name)) is not None:
                        yield name, status

    def strangers(self) -> Iterator[str]:
        for fan in self._root.names():
            if not _FAN.fullmatch(fan):
                yield fan
                continue
            with self._root.sub(fan) as folder:
                yield from (f"{fan}/{name}" for name in folder.names() if not _is_blob(fan, name))


def _is_blob(fan: str, name: str) -> bool:
    return name.startswith(fan) and _DIGEST.fullmatch(name) is not None


def _has_unwritten(fd: int, size: int) -> bool:
    start = 0
    while start < size:
        # _SYNC writes pending bytes first: a restored backup may have old times and new bytes.
        request = bytearray(_HEAD.pack(start, size - start, _SYNC, 0, _AT_ONCE, 0))
        request += bytes(_AT_ONCE * _EXTENT.size)
        fcntl.ioctl(fd, _FIEMAP, request)
        end = _HEAD.size + _HEAD.unpack_from(request)[3] * _EXTENT.size
        flags = _LAST  # also without any extent
        for at, _, length, _, _, flags, *_ in _EXTENT.iter_unpack(request[_HEAD.size : end]):
            if flags & _UNWRITTEN and at < size:
                return True
            start = at + length
        if flags & _LAST:
            return False
    return False
