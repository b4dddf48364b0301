"""The content of a local store: blobs/<2 hex>/<digest>, whose link count is the reference count."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator

from sessionstore.backend import Reference, Stored
from sessionstore.backends._directory import Directory
from sessionstore.backends._local_folder import token_of

_FAN = re.compile(r"[0-9a-f]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
SLICE = 8192
"""Blobs looked at in one collection, some 50 ms of work: a store of n takes n/SLICE of them."""


class Blobs:
    """Content by digest."""

    def __init__(self, root: Directory, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        self._next_fan = ""

    def close(self) -> None:
        self._root.close()

    @contextlib.contextmanager
    def _fan(self, digest: str, *, make: bool = False) -> Iterator[Directory]:
        name = digest[:2]
        try:
            fan = self._root.sub(name)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                self._root.mkdir(name)
            fan = self._root.sub(name)
        with fan:
            yield fan

    def stat(self, digest: str) -> os.stat_result | None:
        """The blob, None when there is none of that name."""
        try:
            with self._fan(digest) as fan:
                return fan.stat_or_none(digest)
        except FileNotFoundError:
            return None

    def link(self, digest: str, to: Directory, name: str) -> None:
        """Another link to the blob. Raises FileNotFoundError, FileExistsError, or EMLINK."""
        with self._fan(digest) as fan:
            fan.link(digest, to, name)

    def adopt(self, files: Directory, file: str, digest: str) -> bool:
        """Give a stored file its blob name; False when another blob has it."""
        with self._fan(digest, make=True) as fan:
            try:
                files.link(file, fan, digest)
            except FileExistsError:
                return False
            if self._durable:
                fan.fsync()
            return True

    def renew(self, files: Directory, file: str, digest: str, work: Directory) -> None:
        """Let the blob name stand for this file from now on, whatever had it before.

        For a blob with as many links as the file system allows (EMLINK, 65,000 on ext4), and for
        one that is damaged. What has the old one keeps it.
        """
        name = secrets.token_hex(8)
        files.link(file, work, name)
        with self._fan(digest, make=True) as fan:
            work.rename(name, fan, digest)
        work.unlink(name)

    @contextlib.contextmanager
    def releasing(self, reference: Reference | None) -> Iterator[None]:
        """Around the removal of a reference: the blob's name goes with its last reference.

        It goes first, so that a crash in between leaves a file that merely cannot be found by its
        digest, and not content that nobody refers to. The look afterwards is for two last
        references removed at one instant, each of which saw the other.
        """
        if reference is None:
            yield
            return
        self._unlink(reference.digest, links=2, token=reference.token)
        yield
        self._unlink(reference.digest, links=1)

    def _unlink(self, digest: str, *, links: int, token: str | None = None) -> int:
        """Remove a blob's name if it has that many links (and is that file); the bytes freed.

        A link made between the look and the removal keeps the file: only the name is lost, and
        with it that later saves find the content.
        """
        try:
            with self._fan(digest) as fan:
                there = fan.stat_or_none(digest)
                if there is None or there.st_nlink != links:
                    return -1
                if token is not None and token_of(there) != token:
                    return -1
                fan.unlink(digest)
                return there.st_size
        except FileNotFoundError:
            return -1

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
                for name in filter(_DIGEST.fullmatch, folder.names()):
                    looked += 1
                    there = folder.stat_or_none(name)
                    freed = self._unlink(name, links=1) if there and there.st_nlink == 1 else -1
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

    @contextlib.contextmanager
    def reading(self, digest: str) -> Iterator[int]:
        """A blob, open for reading. Raises FileNotFoundError."""
        with self._fan(digest) as fan, fan.reading(digest) as fd:
            yield fd

    def forget(self, digest: str, inode: int) -> bool:
        """Remove a blob's name if it is that file: those who have the file keep it."""
        there = self.stat(digest)
        if there is None or there.st_ino != inode:
            return False
        with self._fan(digest) as fan:
            fan.unlink(digest)
        return True

    def collect_one(self, digest: str) -> bool:
        """Remove a blob nobody refers to; whether it was one."""
        return self._unlink(digest, links=1) >= 0

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
