"""The content of a local store: blobs/<2 hex>/<digest>, whose link count is the reference count."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Self

from sessionstore.backend import Reference, Stored
from sessionstore.backends._directory import Directory
from sessionstore.backends._local_folder import token_of
from sessionstore.backends._local_folders import descriptors
from sessionstore.backends._local_written import is_unwritten

_FAN = re.compile(r"[0-9a-f]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
SLICE = 2048
"""Blobs looked at in one collection, some 5 ms of work: a store of n takes n/SLICE of them.

What a crash left can wait that long, and each sweep takes this time beside that for the sessions.
"""


class Blobs:
    """Content by digest."""

    def __init__(self, root: Directory, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        self._next_fan = ""
        self._kept: dict[str, Directory] = {}
        self._most = descriptors() // 8
        self._stale: list[Directory] = []

    def close(self) -> None:
        for fan in (*self._kept.values(), *self._stale):
            fan.close()
        self._kept.clear()
        self._stale.clear()
        self._root.close()

    def at(self, digest: str) -> Blob:
        """The place of a content, for some operations in a block."""
        return Blob(self, digest, durable=self._durable)

    # Fan directories: those that were used stay open, as many as the process can well afford.

    def fan(self, name: str) -> Directory | None:
        """The directory of that name, None when there is none."""
        there = self._kept.get(name)
        if there is not None:
            return there
        try:
            there = self._root.sub(name)
        except FileNotFoundError:
            return None
        if len(self._kept) >= self._most:
            return there
        kept = self._kept.setdefault(name, there)
        if kept is not there:  # another thread was faster
            there.close()
        return kept

    def let_go(self, name: str, fan: Directory | None) -> None:
        """Close a directory that is not one of those kept open."""
        if fan is not None and self._kept.get(name) is not fan:
            fan.close()

    def make_fan(self, name: str) -> Directory:
        """Make the directory; there may be an open one that somebody has removed."""
        stale = self._kept.pop(name, None)
        if stale is not None:
            self._stale.append(stale)  # other threads may be using it
        with contextlib.suppress(FileExistsError):
            self._root.mkdir(name)
        if self._durable:
            self._root.fsync()
        return self.fan(name) or self._root.sub(name)

    def releasing(self, reference: Reference) -> Releasing:
        """Around the removal of a reference."""
        return Releasing(self.at(reference.digest), reference.token)

    def remove(self, digest: str) -> None:
        """Remove a blob's name, if it is there."""
        kept = self._kept.get(digest[:2])
        if kept is not None:
            kept.unlink(digest)
        else:
            with self.at(digest) as blob:
                blob.remove()

    def collect(self) -> tuple[int, int]:
        """Remove blobs nobody refers to, in the next slice of the store: (blobs, bytes)."""
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
                    there = folder.stat_or_none(name)
                    # Nearly all have more, so whether it is a blob at all is asked last.
                    if there is not None and there.st_nlink == 1 and _DIGEST.fullmatch(name):
                        with self.at(name) as blob:
                            freed = blob.unlink(links=1)
                        blobs += freed >= 0
                        size += max(freed, 0)
        return blobs, size

    def stored(self) -> Stored:
        """All blobs and their bytes."""
        blobs = size = 0
        for fan in filter(_FAN.fullmatch, list(self._root.names())):
            with self._root.sub(fan) as folder:
                for name in filter(_DIGEST.fullmatch, folder.names()):
                    there = folder.stat_or_none(name)
                    blobs += there is not None
                    size += there.st_size if there is not None else 0
        return Stored(blobs, size)

    # For inspections

    def everything(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every blob: digest and what is known of the file."""
        for fan in filter(_FAN.fullmatch, self._root.names()):
            with self._root.sub(fan) as folder:
                for name in filter(_is_in(fan), folder.names()):
                    there = folder.stat_or_none(name)
                    if there is not None:
                        yield name, there

    def stat(self, digest: str) -> os.stat_result | None:
        """The blob of that digest, None when there is none."""
        with self.at(digest) as blob:
            return blob.stat()

    @contextlib.contextmanager
    def reading(self, digest: str) -> Iterator[int]:
        """A blob, open for reading. Raises FileNotFoundError."""
        with self._root.sub(digest[:2]) as fan, fan.reading(digest) as fd:
            yield fd

    def forget(self, digest: str, inode: int) -> bool:
        """Remove a blob's name if it is that file: those who have the file keep it."""
        with self.at(digest) as blob:
            there = blob.stat()
            if there is None or there.st_ino != inode:
                return False
            blob.remove()
            return True

    def collect_one(self, digest: str) -> bool:
        """Remove a blob nobody refers to; whether it was one."""
        with self.at(digest) as blob:
            return blob.unlink(links=1) >= 0

    def strangers(self) -> Iterator[str]:
        """What lies between the blobs and is none."""
        for fan in self._root.names():
            if not _FAN.fullmatch(fan):
                yield fan
                continue
            with self._root.sub(fan) as folder:
                ours = _is_in(fan)
                yield from (f"{fan}/{name}" for name in folder.names() if not ours(name))


def _is_in(fan: str) -> Callable[[str], bool]:
    """Whether a name is that of a blob which belongs into this folder."""
    return lambda name: name.startswith(fan) and _DIGEST.fullmatch(name) is not None


class Blob:
    """One content's place: its name in a fan directory, whether it is there or not."""

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
        """The blob, None when there is none of that name."""
        return None if self._fan is None else self._fan.stat_or_none(self._digest)

    def link(self, to: Directory, name: str) -> None:
        """Another link to the blob. Raises FileNotFoundError, FileExistsError, or EMLINK."""
        if self._fan is None:
            raise FileNotFoundError(self._digest)
        self._fan.link(self._digest, to, name)

    def is_whole(self, there: os.stat_result, size: int) -> bool:
        """Whether the blob, of which ``there`` is known, has that size, and all of it written."""
        if there.st_size != size or self._fan is None:
            return False
        return not is_unwritten(self._fan, self._digest, there)

    def force(self) -> None:
        """Force the bytes to the disk when that is wanted: who saved them may not have.

        Raises FileNotFoundError when there is no blob of that name.
        """
        if self._durable and self._fan is not None:
            with self._fan.reading(self._digest) as fd:
                os.fsync(fd)

    def adopt(self, files: Directory, file: str) -> bool:
        """Give a stored file its blob name; False when another blob has it."""
        try:
            if self._fan is None:
                self._make_fan()
            try:
                files.link(file, self._there(), self._digest)
            except FileNotFoundError:  # the fan directory was removed since it was opened
                self._make_fan()
                files.link(file, self._there(), self._digest)
        except FileExistsError:
            return False
        if self._durable:
            self._there().fsync()
        return True

    def renew(self, files: Directory, file: str, work: Directory) -> None:
        """Let the blob name stand for this file from now on, whatever had it before.

        For a blob with as many links as the file system allows (EMLINK, 65,000 on ext4), and for
        one that is damaged. What has the old one keeps it.
        """
        name = secrets.token_hex(8)
        files.link(file, work, name)
        if self._fan is None:
            self._make_fan()
        work.rename(name, self._there(), self._digest)
        work.unlink(name)
        if self._durable:
            self._there().fsync()

    def unlink(self, *, links: int, token: str | None = None) -> int:
        """Remove the blob's name if it has that many links (and is that file); the bytes freed.

        A link made between the look and the removal keeps the file: only the name is lost, and
        with it that later saves find the content. -1 when the name was not removed.
        """
        there = self.stat()
        if there is None or there.st_nlink != links:
            return -1
        if token is not None and token_of(there) != token:
            return -1
        self.remove()
        return there.st_size

    def remove(self) -> None:
        """Remove the blob's name, if it is there."""
        if self._fan is not None:
            self._fan.unlink(self._digest)

    def _make_fan(self) -> None:
        self._blobs.let_go(self._digest[:2], self._fan)
        self._fan = self._blobs.make_fan(self._digest[:2])

    def _there(self) -> Directory:
        assert self._fan is not None, "made or found before"  # noqa: S101 - for mypy
        return self._fan


class Releasing:
    """Around the removal of a reference: the blob's name goes with its last reference.

    It goes first, so that a crash in between leaves a file that merely cannot be found by its
    digest, and not content that nobody refers to. The look afterwards is for two last references
    removed at one instant, each of which saw the other.
    """

    __slots__ = ("_blob", "_gone", "_token")

    def __init__(self, blob: Blob, token: str) -> None:
        self._blob = blob
        self._token = token
        self._gone = False

    def __enter__(self) -> None:
        self._blob.__enter__()
        self._gone = self._blob.unlink(links=2, token=self._token) >= 0

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and not self._gone:
            with contextlib.suppress(OSError):  # the reference is gone; a sweep takes the rest
                self._blob.unlink(links=1)
        self._blob.__exit__()
