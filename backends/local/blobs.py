"""The blobs of a local store: blobs/<2 hex>/<digest>. The link count is the reference count."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Self

from sessionstore.model import Reference, Stored

from .dir_pool import descriptors
from .directory import Directory
from .session_dir import token_of
from .written import is_unwritten

_FAN = re.compile(r"[0-9a-f]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
SLICE = 2048
"""Blobs checked in one garbage collection, some 5 ms of work. n blobs take n/SLICE runs.

Leftovers of a crash can wait that long. Each sweep takes this time in addition to its time for the
sessions.
"""


class Blobs:
    """The blobs of one store, by digest."""

    def __init__(self, root: Directory, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        self._next_fan = ""
        self._kept: dict[str, Directory] = {}
        self._most = descriptors() // 8
        self._stale: list[Directory] = []
        self._forced: set[str] = set()
        """Names of fan directories that this object has forced to the disk."""

    def close(self) -> None:
        for fan in (*self._kept.values(), *self._stale):
            fan.close()
        self._kept.clear()
        self._stale.clear()
        self._root.close()

    def at(self, digest: str) -> Blob:
        """Return a context manager for operations on the blob of ``digest``."""
        return Blob(self, digest, durable=self._durable)

    # Fan directories: up to an eighth of the process's file limit stays open after use.

    def fan(self, name: str) -> Directory | None:
        """Open the fan directory ``name``; return None when it does not exist."""
        fan = self._kept.get(name)
        if fan is not None:
            return fan
        try:
            fan = self._root.sub(name)
        except FileNotFoundError:
            return None
        if len(self._kept) >= self._most:
            return fan
        kept = self._kept.setdefault(name, fan)
        if kept is not fan:  # another thread was faster
            fan.close()
        return kept

    def let_go(self, name: str, fan: Directory | None) -> None:
        """Close the fan directory, unless it is one of those kept open."""
        if fan is not None and self._kept.get(name) is not fan:
            fan.close()

    def make_fan(self, name: str) -> Directory:
        """Create and open the fan directory ``name``.

        An open one of that name was removed by another process, so it is not used again.
        """
        stale = self._kept.pop(name, None)
        if stale is not None:
            self._stale.append(stale)  # not closed yet: other threads may be using it
        with contextlib.suppress(FileExistsError):
            self._root.mkdir(name)
        self._forced.discard(name)
        return self.fan(name) or self._root.sub(name)

    def force(self, name: str, fan: Directory) -> None:
        """Force the blobs' names in a fan directory, and its own ``name`` once."""
        fan.fsync()
        if name not in self._forced:  # another process may have made it, and died
            self._root.fsync()
            self._forced.add(name)

    def releasing(self, reference: Reference) -> Releasing:
        """Return a context manager for the removal of ``reference``."""
        return Releasing(self.at(reference.digest), reference.token)

    def remove(self, digest: str) -> None:
        """Remove the blob's name, if it exists."""
        kept = self._kept.get(digest[:2])
        if kept is not None:
            kept.unlink(digest)
        else:
            with self.at(digest) as blob:
                blob.remove()

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
                        with self.at(name) as blob:
                            freed = blob.unlink(links=1)
                        blobs += freed >= 0
                        size += max(freed, 0)
        return blobs, size

    def stored(self) -> Stored:
        """Return the number of blobs and the sum of their bytes."""
        blobs = size = 0
        for fan in filter(_FAN.fullmatch, list(self._root.names())):
            with self._root.sub(fan) as folder:
                for name in filter(_DIGEST.fullmatch, folder.names()):
                    status = folder.stat_or_none(name)
                    blobs += status is not None
                    size += status.st_size if status is not None else 0
        return Stored(blobs, size)

    # For inspections

    def everything(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield (digest, status) of every blob."""
        for fan in filter(_FAN.fullmatch, self._root.names()):
            with self._root.sub(fan) as folder:
                for name in filter(_is_in(fan), folder.names()):
                    status = folder.stat_or_none(name)
                    if status is not None:
                        yield name, status

    def stat(self, digest: str) -> os.stat_result | None:
        """Return the status of the blob of ``digest``, None when it does not exist."""
        with self.at(digest) as blob:
            return blob.stat()

    @contextlib.contextmanager
    def reading(self, digest: str) -> Iterator[int]:
        """Open a blob for reading. Raises FileNotFoundError when it does not exist."""
        with self._root.sub(digest[:2]) as fan, fan.reading(digest) as fd:
            yield fd

    def forget(self, digest: str, inode: int) -> bool:
        """Remove the blob's name if it has that ``inode``; return whether it did.

        References keep the file.
        """
        with self.at(digest) as blob:
            status = blob.stat()
            if status is None or status.st_ino != inode:
                return False
            blob.remove()
            return True

    def collect_one(self, digest: str) -> bool:
        """Remove the blob of ``digest`` if it is unreferenced; return whether it was."""
        with self.at(digest) as blob:
            return blob.unlink(links=1) >= 0

    def strangers(self) -> Iterator[str]:
        """Yield the paths below blobs/ that are no blobs."""
        for fan in self._root.names():
            if not _FAN.fullmatch(fan):
                yield fan
                continue
            with self._root.sub(fan) as folder:
                is_blob = _is_in(fan)
                yield from (f"{fan}/{name}" for name in folder.names() if not is_blob(name))


def _is_in(fan: str) -> Callable[[str], bool]:
    """Return a function that tests whether a name is a blob's name in the directory ``fan``."""
    return lambda name: name.startswith(fan) and _DIGEST.fullmatch(name) is not None


class Blob:
    """The name of one content in its fan directory, whether the blob exists or not."""

    __slots__ = ("_blobs", "_digest", "_durable", "_fan")

    def __init__(self, blobs: Blobs, digest: str, *, durable: bool) -> None:
        self._blobs = blobs
        self._digest = digest
        self._durable = durable
        self._fan = blobs.fan(digest[:2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._blobs.let_go(self._digest[:2], self._fan)

    def stat(self) -> os.stat_result | None:
        """Return the blob's status, None when it does not exist."""
        return None if self._fan is None else self._fan.stat_or_none(self._digest)

    def link(self, to: Directory, name: str) -> None:
        """Make another link to the blob, ``name`` in ``to``.

        Raises FileNotFoundError, FileExistsError, or OSError with EMLINK.
        """
        if self._fan is None:
            raise FileNotFoundError(self._digest)
        self._fan.link(self._digest, to, name)

    def is_whole(self, status: os.stat_result, size: int) -> bool:
        """Return whether the blob has that ``size`` and all of its bytes were written.

        ``status`` is the blob's.
        """
        if status.st_size != size or self._fan is None:
            return False
        return not is_unwritten(self._fan, self._digest, status)

    def force(self) -> None:
        """Force the bytes to the disk when ``durable``. The process that saved them may not have.

        Raises FileNotFoundError when the blob does not exist.
        """
        if self._durable and self._fan is not None:
            with self._fan.reading(self._digest) as fd:
                os.fsync(fd)

    def adopt(self, files: Directory, file: str) -> bool:
        """Give the stored ``file`` its blob name; return False when another file has it."""
        try:
            if self._fan is None:
                self._make_fan()
            try:
                files.link(file, self._opened(), self._digest)
            except FileNotFoundError:  # the fan directory was removed since it was opened
                self._make_fan()
                files.link(file, self._opened(), self._digest)
        except FileExistsError:
            return False
        self._force_name()
        return True

    def renew(self, files: Directory, file: str, work: Directory) -> None:
        """Give the blob name to the stored ``file``, replacing the file that has it.

        This is for a blob with as many links as the file system allows (EMLINK, 65,000 on ext4),
        and for a damaged one. References to the old file keep it. ``work`` is the workspace.
        """
        name = secrets.token_hex(8)
        files.link(file, work, name)
        if self._fan is None:
            self._make_fan()
        work.rename(name, self._opened(), self._digest)
        work.unlink(name)
        self._force_name()

    def unlink(self, *, links: int, token: str | None = None) -> int:
        """Remove the blob's name if the file has exactly ``links`` links and that ``token``.

        Return the size in bytes, or -1 when the name was not removed.
        """
        # A link made between the check and the removal keeps the file. Only the name is lost, so
        # that later saves do not find the content.
        status = self.stat()
        if status is None or status.st_nlink != links:
            return -1
        if token is not None and token_of(status) != token:
            return -1
        self.remove()
        return status.st_size

    def remove(self) -> None:
        """Remove the blob's name, if it exists."""
        if self._fan is not None:
            self._fan.unlink(self._digest)

    def _force_name(self) -> None:
        if self._durable:
            self._blobs.force(self._digest[:2], self._opened())

    def _make_fan(self) -> None:
        self._blobs.let_go(self._digest[:2], self._fan)
        self._fan = self._blobs.make_fan(self._digest[:2])

    def _opened(self) -> Directory:
        assert self._fan is not None, "opened before"  # noqa: S101 - for mypy
        return self._fan


class Releasing:
    """Context manager for the removal of a reference. With the last one the blob's name is removed.

    The name is removed first. A crash between the two removals then leaves a file that later saves
    cannot find by its digest, and no unreferenced blob. The second check, after the block, is for
    two last references removed at the same time: each of these removals saw the other reference.
    """

    __slots__ = ("_blob", "_removed", "_token")

    def __init__(self, blob: Blob, token: str) -> None:
        self._blob = blob
        self._token = token
        self._removed = False

    def __enter__(self) -> None:
        self._blob.__enter__()
        self._removed = self._blob.unlink(links=2, token=self._token) >= 0

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and not self._removed:
            with contextlib.suppress(OSError):  # the reference is removed; a sweep does the rest
                self._blob.unlink(links=1)
        self._blob.__exit__()
