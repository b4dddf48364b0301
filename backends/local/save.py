"""One save into a locked session folder. The order of its steps makes it safe.

1. Write the journal line, so that a link is never without its time to live.
2. Make the link, either directly or by a rename over the older file.
3. Give the blob its name, when the content is new. Garbage collection would remove a blob name
   without any link, so the link is made first.

A failure before the file has its name leaves the older file as it is. Later steps only tidy up, as
the sweep does too, and their failure fails no save. A small new content under a new name is written
in its place, with a mark in its mode; removing the mark replaces step 2.
docs/architecture.md has the reasons.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeVar

from sessionstore._os.errors import FULL, from_os_error
from sessionstore.content import CHUNK, Buffer, Content
from sessionstore.model import Reference, Saved

from .directory import FINISHED, HAS_DIR_FD, UNFINISHED, Directory, is_unfinished, token_of
from .journal import read_at
from .session_dir import NEW, Disk, SessionDir

SMALL = 128 << 10
"""Bytes up to which a content is written in its place: of more, a saved link saves little time."""

PATIENCE = 0.02
"""Seconds that a save waits for the lock before it checks how many others finished."""

QUICK = 40
"""Saves that finish in that time if the disk is quick. With an idle processor some 400 do."""

WAITS = 10
"""The most times that a save waits: the lock is not fair."""

IN_VAIN = 4
"""Consecutive saves that gave up early, after which no save waits for ``PAUSE`` seconds."""

PAUSE = 1.0

WINDOW = 8 << 20
"""Bytes of a large file after which the kernel is told that they are not needed in memory."""

WINDOWS = 4
"""Windows that it may still be writing to the disk."""

R = TypeVar("R")

Step = Callable[[Directory, str], None]
"""An operation on a name in a directory."""


@dataclass(slots=True)
class Save:
    """One file to save. ``older`` is its time of creation in the store it is copied from."""

    disk: Disk
    content: Content
    name: str
    file: str
    expires: datetime | None
    fresh: bool
    small: bool
    older: datetime | None = None
    folder: SessionDir = field(init=False)
    created: datetime = field(init=False)
    old: Reference | None = None
    """The file that has the name now."""
    stale: bool = False
    """The blob of that digest is damaged or cannot take another link: this save replaces it."""
    made: bool = False
    """Whether the session was created for this save."""

    def run(self, folder: SessionDir, known: os.stat_result | None, now: datetime) -> Saved | None:
        """Save the file into the locked ``folder``; return None if ``spool`` is needed first.

        ``known`` is the status of the content's blob a moment ago.
        """
        self.folder, self.created, self.stale = folder, self.older or now, False
        if self.expires is not None:
            folder.will_expire(self.expires)
        if self.older is not None:
            folder.has_older(self.older)
        folder.active(now)
        self.old = None
        deduplicated = False
        reference = self._in_place() if known is None and self.small else None
        if reference is None:
            if not self.fresh:
                self.old = folder.find(self.file)
            reference = None if known is None else self._link(known)
            deduplicated = reference is not None
        if reference is None:
            if self.small:
                self.spool()
            if not isinstance(self.content.spool, LocalSpool):
                return None
            reference = self._new(self.content.spool)
        if self.disk.durable:
            folder.settle()
        return Saved(reference, deduplicated, self.old)

    def spool(self) -> None:
        """Write the bytes to a file without a place, unless that was done before."""
        content = self.content
        if not isinstance(content.spool, LocalSpool):  # none, or one of another kind
            spool = LocalSpool(self.disk)
            try:
                for chunk in content.chunks():
                    spool.write(chunk)
            except BaseException:
                spool.close()
                raise
            content.close()
            content.data, content.spool, self.small = None, spool, False

    def _link(self, blob: os.stat_result) -> Reference | None:
        """Link to the existing ``blob``; return None when that is impossible."""
        blobs, digest = self.disk.blobs, self.content.digest
        if not blobs.is_whole(digest, blob, self.content.size):
            self.stale = True
            return None
        reference = self._note(token_of(blob))
        if self.old is not None and self.old.token == reference.token:
            return reference

        def check(place: Directory, name: str) -> None:
            """Check the link: the blob may have been renewed or collected before it was made."""
            nonlocal reference
            made = place.stat(name)
            if made.st_ino != blob.st_ino or made.st_mtime_ns != blob.st_mtime_ns:
                reference = self._note(token_of(made))
            if made.st_nlink == 1:  # the blob's name was collected
                blobs.adopt(place, name, digest)

        try:
            self._place(partial(blobs.link, digest), check)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self.stale = True
            return None
        return reference

    def _in_place(self) -> Reference | None:
        """Write the bytes directly under the file's name; return None when the name is taken."""
        data = self.content.data
        assert data is not None, "a small content"  # noqa: S101 - for mypy
        files = self.folder.files
        try:
            fd = files.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, UNFINISHED)
        except FileExistsError:
            return None
        try:
            write_all(fd, data)
            reference = self._note(token_of(sealed(fd)))
            os.fchmod(fd, FINISHED)
            adopted = self.disk.blobs.adopt(files, self.file, self.content.digest)
        except BaseException:
            files.unlink(self.file)
            raise
        finally:
            os.close(fd)
        return reference if adopted else self._merged(reference)

    def _new(self, spool: LocalSpool) -> Reference:
        reference = self._note(self.folder.token(spool.seal()))
        if not self.disk.links:
            spool.move(self.folder.files, self.file)
            return reference
        blobs, digest = self.disk.blobs, self.content.digest
        adopted = True

        def adopt(place: Directory, name: str) -> None:
            nonlocal adopted
            if self.stale:
                blobs.renew(place, name, digest, self.disk.work())
            else:
                adopted = blobs.adopt(place, name, digest)

        self._place(spool.link, adopt)
        return reference if adopted else self._merged(reference)

    def _merged(self, reference: Reference) -> Reference:
        """Replace the file by a link to the blob of a save at the same time, if possible."""
        old, self.old = self.old, reference
        linked = None
        with contextlib.suppress(OSError):  # the file is saved already
            blob = self.disk.blobs.stat(self.content.digest)
            linked = blob and self._link(blob)
        self.old = old
        return linked or reference

    def _place(self, link: Step, settle: Step) -> None:
        """Give the file its name by ``link(directory, name)``, then call ``settle`` with the same.

        An older file is replaced atomically, after ``settle``. If that raises, the name is
        unchanged.
        """
        folder, file = self.folder, self.file
        if self.old is None:
            try:
                link(folder.files, file)
            except FileExistsError:
                self.old = folder.find(file)
            else:
                try:
                    settle(folder.files, file)
                except BaseException:
                    folder.files.unlink(file)
                    raise
                return
        folder.dir.unlink(NEW)
        link(folder.dir, NEW)
        try:
            settle(folder.dir, NEW)
            # None: a file that no reader sees, or one that something removed without our lock.
            releasing = self.old and self.disk.blobs.releasing(self.old)
            with releasing or contextlib.nullcontext():
                folder.dir.rename(NEW, folder.files, file)
        finally:
            # rename(2) between two links of one inode does nothing and leaves both. If this removal
            # fails, the next replacement or drop removes the link.
            with contextlib.suppress(OSError):
                folder.dir.unlink(NEW)

    def _note(self, token: str) -> Reference:
        content = self.content
        reference = Reference(
            self.name, content.size, content.digest, self.created, self.expires, token
        )
        self.folder.note(self.file, reference)
        return reference


class LocalSpool:
    """A file that is being written in the store's own file system.

    ``close`` removes it unless ``link`` or ``move`` gave it a name. An unnamed file (``O_TMPFILE``,
    open(2)) disappears when its process dies. A named one is in this process's workspace.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._pid = os.getpid()
        self._work: Directory | None = None
        if disk.unnamed:
            self._fd = _unnamed(disk.sessions)
            return
        self._work, self._name = disk.work(), secrets.token_hex(8)
        self._fd = self._work.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL, FINISHED)

    def write(self, data: Buffer, /) -> int:
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise from_os_error(error, "write a file", self._disk.root) from error
        return len(data)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes. The kernel may forget those of a large file that were read here."""
        position = 0
        while chunk := read_at(self._fd, position, CHUNK):
            position += len(chunk)
            yield chunk
            if position % WINDOW == 0:
                _leave_memory(self._fd, max(position - WINDOWS * WINDOW, 0), position)

    def leave_memory(self) -> Callable[[], None]:
        """Implement ``LeavesMemory``."""
        fd = os.dup(self._fd)
        _leave_memory(fd, 0, 0)

        def forget() -> None:
            _leave_memory(fd, 0, 0)
            os.close(fd)

        return forget

    def seal(self) -> os.stat_result:
        """Finish the file, and force it to the disk when ``durable``."""
        status = sealed(self._fd)
        if self._disk.durable:
            os.fsync(self._fd)
        return status

    def link(self, to: Directory, name: str) -> None:
        """Give the file a name. Raises FileExistsError."""
        if self._work is None:
            _name_it(self._fd, to, name)
        else:
            self._work.link(self._name, to, name)

    def move(self, to: Directory, name: str) -> None:
        assert self._work is not None, "without links no file is unnamed"  # noqa: S101 - for mypy
        self._work.rename(self._name, to, name)
        self._name = ""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._work is not None and self._name and self._pid == os.getpid():  # not if forked
            self._work.unlink(self._name)
            self._name = ""


def _leave_memory(fd: int, start: int, end: int) -> None:
    """Have the kernel forget the bytes that are on the disk, and begin to write the others.

    ``end`` 0 is the end of the file.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # it is advice
            os.posix_fadvise(fd, start, end - start if end else 0, os.POSIX_FADV_DONTNEED)


def write_all(fd: int, data: Buffer) -> None:
    """Write all of ``data``, with as many write(2) calls as that takes."""
    while (written := os.write(fd, data)) < len(data):
        data = memoryview(data)[written:]


def sealed(fd: int) -> os.stat_result:
    """Set the time of the completely written file ``fd``."""
    # The time is set to the nanosecond, because the kernel's own clock keeps one value for some
    # milliseconds (Documentation/timers, the coarse clock). In that time an inode can be reused.
    if os.utime in os.supports_fd:
        os.utime(fd, ns=(time.time_ns(),) * 2)
    return os.fstat(fd)


def _unnamed(work: Directory) -> int:
    # The mode applies to the file, not to this descriptor, which can write although it is 0444.
    return work.open(".", os.O_TMPFILE | os.O_RDWR, FINISHED)


def _name_it(fd: int, to: Directory, name: str) -> None:
    # open(2) recommends to follow /proc/self/fd/N. Python calls linkat(2) only with a dir_fd.
    source = f"/proc/self/fd/{fd}"
    os.link(source, name, src_dir_fd=to.fd, dst_dir_fd=to.fd, follow_symlinks=True)


def can_be_unnamed(work: Directory) -> bool:
    """Return whether unnamed files can be made in ``work`` and named later."""
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


class SaveLock:
    """A lock for the small saves of one process, used as long as the disk is quick.

    With many threads Python's global lock changes hands at every system call, and a save takes
    several times the CPU. A thread that waits for this lock does not compete for the other one. On
    a slow disk, as over a network, saves should overlap, so a thread that times out proceeds
    without the lock.

    Safe to use from any thread, and after a fork.
    """

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._done = 0
        self._in_vain = 0
        self._again = 0.0
        self._pid = os.getpid()

    def run(self, save: Callable[..., R], *args: object) -> R:
        """Call ``save`` and return its result, under the lock if that is free soon enough."""
        lock: threading.Lock | None = self._lock
        if lock is not None and not lock.acquire(blocking=False):
            lock = self._wait()
        try:
            return save(*args)
        finally:
            if lock is not None:
                self._done += 1
                lock.release()

    def _wait(self) -> threading.Lock | None:
        """Take the lock and return it; return None when it was not free in time."""
        if self._pid != os.getpid():  # at the fork a thread of the parent may have had the lock
            self._begin()
        lock = self._lock
        if time.monotonic() < self._again:
            return None
        for _ in range(WAITS):
            before = self._done
            if lock.acquire(timeout=self._patience):
                self._in_vain = 0
                return lock
            if self._done - before < QUICK:
                self._in_vain += 1
                if self._in_vain >= IN_VAIN:
                    self._in_vain, self._again = 0, time.monotonic() + PAUSE
                break
        return None
