"""One session's folder on disk: its files, its journal and its marks; and a pool of open folders.

    files/     one link for each file, under its stored name
    journal    the properties of each file that a link cannot hold (``journal``)
    id         JSON: the session's true id and owner; its mtime: no file is older
    seen       its mtime: the newest save or touch; its lock serialises all changes to the session;
               its length: the number of times that the journal was compacted
    ended      exists when the visitor left; its mtime: the time of that
    expiring   exists when files have a time to live; its mtime: no file expires earlier
    new        a link on its way into files/, only during a replacement

Every change is made under the lock of ``seen``. A process holds it for some system calls, and never
while it reads or writes bytes. The system releases it when a process dies. Readers take no lock: a
link is either in its place or not.

A power cut may leave any of these files empty, cut off or missing if it was not forced to the disk.
A link counts as a file only when its bytes are proven to be those saved under its name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from sessionstore import names
from sessionstore._os.locks import lock, unlock
from sessionstore._os.workspace import Workspace
from sessionstore.clock import EPOCH
from sessionstore.model import Reference, SessionKey, SessionRecord

from . import journal
from .directory import (
    FINISHED,
    HAS_DIR_FD,
    Blobs,
    Directory,
    digest_of,
    is_unfinished,
    token_of,
    token_of_copy,
)
from .journal import Line, moment, nanoseconds

try:
    import resource
except ImportError:  # Windows, where a folder with an open file could not be moved either
    resource = None  # type: ignore[assignment]  # None marks Windows, where the module is missing

NEW = "new"

_MOST = 512
"""Folders kept open, four descriptors each: those of 170 visitors, with the lists of their owners.

With fewer, each call opens its folder again: with 64 that is 43 more system calls for each of 100
visitors at once.
"""

UTIME_TAKES_FD = os.utime in os.supports_fd


@dataclass(slots=True)
class Disk:
    """The directories, parameters and abilities that all parts of one store share."""

    root: str
    workspace: Workspace
    sessions: Directory
    blobs: Blobs
    algorithm: str
    durable: bool
    """Whether a change is forced to the disk before it is acknowledged."""
    links: bool
    """Whether the file system has hard links."""
    unnamed: bool = False
    """Whether files can be made without a name."""
    in_place: bool | None = None
    """Whether small contents are written in their place; None until a save has tried."""
    tables: journal.Tables = field(default_factory=journal.Tables)

    def work(self) -> Directory:
        """Return this process's workspace. It is not opened, so it need not be closed."""
        return Directory(str(self.workspace.path), by_path=True)


class SessionDir:
    """An open session folder. ``SessionDirPool`` lends one that is in its place."""

    def __init__(
        self,
        place: Directory,
        sid: str,
        disk: Disk,
        *,
        change: bool = False,
        opened: Directory | None = None,
    ) -> None:
        """Open the folder ``sid`` in ``place``; with ``change`` create a missing ``files``.

        ``opened`` is that folder on its way to its place.
        """
        self.sid = sid
        self.token: Final = token_of if disk.links else token_of_copy
        self.owned: bool = False
        """Whether ``id`` is known to hold the session's id and owner."""
        self.moved: bool = False
        """Whether ``move`` took it out of its place: it belongs to the caller, who closes it."""
        self._disk = disk
        self._search = partial(disk.tables.lines, sid)
        self._sessions = place
        self._forced = False
        self._journal = -1
        self.seen: int = -1
        self._place = f"{sid}/seen"
        self._identity: os.stat_result | None = None
        """The status of ``seen``, once it is open."""
        self.dir: Final = opened or place.sub(sid)
        try:
            self.files: Final = self._open_files(change=change)
        except BaseException:
            self.dir.close()
            raise

    def close(self) -> None:
        if self.seen >= 0:
            os.close(self.seen)  # also releases its lock
            self.seen = -1
        self._close_journal()
        self.files.close()
        self.dir.close()

    def _close_journal(self) -> None:
        self._forced = False
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1

    def lock(self, *, wait: bool = True) -> bool:
        """Take the session's lock; return False if it is taken and ``wait`` is false."""
        if self.seen < 0:
            self.seen = self._open_seen()
        if self._identity is None:
            self._identity = os.fstat(self.seen)
        return lock(self.seen, wait=wait)

    def is_still(self) -> bool:
        """Return whether this folder is in its place and holds the lock of the session there."""
        own = self._identity
        if own is None:
            return self.dir.is_still(self._sessions, self.sid)
        status = self._sessions.stat_or_none(self._place)
        if status is None or status.st_ino != own.st_ino or status.st_dev != own.st_dev:
            return False
        if status.st_size != own.st_size:  # another process replaced the journal by a compacted one
            self._close_journal()
            self._identity = status
        return True

    def move(self, to: Directory, name: str) -> None:
        """Take the folder out of its place, under its lock."""
        self._sessions.rename(self.sid, to, name)
        self.moved = True

    # Marks

    def active(self, now: datetime) -> None:
        time = nanoseconds(now)
        os.utime(self.seen if UTIME_TAKES_FD else self.dir.at("seen"), ns=(time, time))

    def mark(self, name: str, time: datetime) -> None:
        fd = self.dir.open(name, os.O_WRONLY | os.O_CREAT)
        try:
            self.dir.utime(name, nanoseconds(time))
            if self._disk.durable:
                os.fsync(fd)
                self.dir.fsync()
        finally:
            os.close(fd)

    def unmark(self, name: str) -> None:
        self.dir.unlink(name)
        if self._disk.durable:
            self.dir.fsync()

    def will_expire(self, expires: datetime) -> None:
        status = self.dir.stat_or_none("expiring")
        if status is None or moment(status.st_mtime_ns) > expires:
            self.mark("expiring", expires)

    def has_older(self, created: datetime) -> None:
        if moment(self.dir.stat("id").st_mtime_ns) > created:
            self.dir.utime("id", nanoseconds(created))
            if self._disk.durable:
                self.dir.force("id")

    def tighten(self, now: datetime) -> None:
        """Set the bounds ``id`` and ``expiring`` to those of the files that are left, if any.

        Sweeps then skip the session until a file is due.
        """
        left = [reference for _, reference in self.references()]
        oldest = min((reference.created for reference in left), default=now)
        with contextlib.suppress(FileNotFoundError):  # a power cut removed it
            self.dir.utime("id", nanoseconds(oldest))
        expiring = [reference.expires for reference in left if reference.expires]
        if expiring:
            self.mark("expiring", min(expiring))
        else:
            self.dir.unlink("expiring")

    def identify(self) -> SessionKey | None:
        try:
            with open(self.dir.open("id", os.O_RDONLY), "rb") as file:
                row = json.loads(file.read())
            return SessionKey.told(self.sid, row["id"], row["owner"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def belongs_to(self, key: SessionKey) -> None:
        """Write ``id`` for ``key`` again if a power cut tore or removed it."""
        text = _identity(key)
        stored = b""
        with contextlib.suppress(FileNotFoundError), self.dir.reading("id") as fd:
            stored = os.read(fd, len(text) + 1)
        self.owned = True
        if stored == text or self.identify() is not None:
            return
        # It keeps the time of the torn one. The time of a missing one is that of the oldest file.
        status = self.dir.stat_or_none("id")
        oldest = min((reference.created for _, reference in self.references()), default=EPOCH)
        time = nanoseconds(oldest) if status is None else status.st_mtime_ns
        name = secrets.token_hex(8)
        place = self._disk.work()
        with open(place.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(text)
            file.flush()
            place.utime(name, time)
            os.fsync(file.fileno())
        place.rename(name, self.dir, "id")

    # Durability

    def settle(self) -> None:
        """Force the names of the files and the time of activity, when ``durable``."""
        if self._disk.durable:
            self.files.fsync()
            os.fsync(self.seen)

    def _force_above(self) -> None:
        """Force ``id`` and the names of the directories above the files to the disk.

        Another process may have made them and died. Once is enough while the journal stays open.
        """
        if not self._forced:
            with contextlib.suppress(FileNotFoundError):
                self.dir.force("id")
            self.dir.fsync()
            self._sessions.fsync()
            self._forced = True

    # Files that a power cut may have removed

    def _open_files(self, *, change: bool) -> Directory:
        try:
            return self.dir.sub("files")
        except FileNotFoundError:
            if not change:
                raise
        time = self.dir.stat(".").st_mtime_ns
        with contextlib.suppress(FileExistsError):
            self.dir.mkdir("files")
            self.dir.utime(".", time)  # without marks only this time shows the session's age
        return self.dir.sub("files")

    def _open_seen(self) -> int:
        try:
            return self.dir.open("seen", os.O_RDWR)
        except FileNotFoundError:
            # As in ``record``. To create the mark again is no activity of the visitor.
            time = self.dir.stat(".").st_mtime_ns
        fd = self.dir.open("seen", os.O_RDWR | os.O_CREAT)
        self.dir.utime("seen", time)
        return fd

    # Files

    def find(self, file: str) -> Reference | None:
        """Return the current file with the stored name ``file``, None when it does not exist.

        Directories, symbolic links, unfinished files and files that a power cut tore do not count.
        """
        status, reference = self.described(file)
        whole = status and reference and self.files.is_whole(file, status, reference.size)
        return reference if whole else None

    def described(self, file: str) -> tuple[os.stat_result | None, Reference | None]:
        """Return the status of a stored file, which may be torn, and the reference saved for it."""
        while True:
            status = self.files.stat_or_none(file)
            if status is None or not stat.S_ISREG(status.st_mode) or is_unfinished(status):
                return None, None
            reference = journal.find(self.dir, file, self.token(status), self._search)
            if reference is not None:
                return status, reference
            again = self.files.stat_or_none(file)
            if again is not None and self.token(again) == self.token(status):
                return status, self._undescribed(file, status)

    def references(self) -> Iterator[tuple[str, Reference]]:
        for file, status, reference in self.links():
            if reference is not None and self.files.is_whole(file, status, reference.size):
                yield file, reference

    def links(self) -> Iterator[tuple[str, os.stat_result, Reference | None]]:
        """Yield (stored name, status, reference) of every stored file; None if nothing has one."""
        files = [*self.files.names()]
        if not files:
            return
        known = {(line.file, line.reference.token): line for line in journal.lines(self.dir)}
        for file in files:
            status = self.files.stat_or_none(file)
            if status is None or is_unfinished(status):
                continue
            line = known.get((file, self.token(status)))
            again, reference = (status, line.reference) if line else self.described(file)
            if again is not None:
                yield file, again, reference

    def is_unfinished(self, file: str) -> bool:
        status = self.files.stat_or_none(file)
        return status is not None and is_unfinished(status)

    def torn(self) -> Iterator[str]:
        """Yield the stored names of files that a power cut left without all bytes or a line."""
        known = {(file, token): size for file, token, size, _ in journal.kept(self.dir)}
        for file in self.files.names():
            status = self.files.stat_or_none(file)
            if status is None:
                continue
            size = known.get((file, self.token(status)))
            if (size is None or not self.files.is_whole(file, status, size)) and self.is_torn(file):
                yield file

    def left(self) -> list[str]:
        return [*filter(self.is_unfinished, self.files.names()), *self.torn()]

    def is_torn(self, file: str) -> bool:
        """Return whether the store made the stored ``file`` and a power cut tore it.

        A file without a line, with a name too long for the link, is left alone.
        """
        status, reference = self.described(file)
        if status is not None and reference is not None:
            return not self.files.is_whole(file, status, reference.size)
        finished = status is not None and stat.S_IMODE(status.st_mode) == FINISHED
        return finished and names.decode(file) is not None

    def _undescribed(self, file: str, status: os.stat_result) -> Reference | None:
        """Return the reference of a link without a line of its own, None when nothing proves one.

        There are three proofs, in this order:

        1. The bytes have the digest of a line of that name, as in a store that was copied.
        2. A blob with the digest of the bytes is the same file. The name is then decoded from the
           link, unless it was too long for that. The time to live is lost, so the file gets the
           shortest of the session.
        3. A line names the same inode with another time, and the blob of that line is the same
           file. Then something wrote to the stored file, and reading it finds the damage. Without
           such a blob the inode may be a later file's, used again.
        """
        digest = None
        with contextlib.suppress(FileNotFoundError), self.files.reading(file) as fd:
            digest = digest_of(fd, self._disk.algorithm)
        token = self.token(status)
        lines = [line.reference for line in journal.lines(self.dir) if line.file == file]
        saved = [reference for reference in lines if reference.digest == digest]
        if saved:
            return saved[-1]._replace(token=token)
        name = names.decode(file)
        if name is None or digest is None or not self._is_blob(digest, status):
            written_to = self.written_to(file, status)
            if written_to is None or not self._is_blob(written_to.digest, status):
                return None
            return written_to
        expiring = self.dir.stat_or_none("expiring")
        expires = None if expiring is None else moment(expiring.st_mtime_ns)
        created = moment(status.st_ctime_ns)
        return Reference(name, status.st_size, digest, created, expires, token)

    def written_to(self, file: str, status: os.stat_result) -> Reference | None:
        """Return the reference of a line that names the inode of ``status`` with another time.

        It describes the stored ``file`` only if the inode is that of the line's content.
        """
        found = journal.find_inode(self.dir, file, status.st_ino, self._search)
        return None if found is None else found._replace(token=self.token(status))

    def is_version(self, file: str, reference: Reference) -> bool:
        """Return whether the stored ``file``, which may be damaged, still is that version.

        The version of a file that was written to is proven by its blob. A repair may have removed
        the blob since ``reference`` was read, so the token decides when nothing describes the file.
        """
        status, found = self.described(file)
        if status is None or found is not None:
            return found == reference
        return self.token(status) == reference.token

    def _is_blob(self, digest: str, status: os.stat_result) -> bool:
        blob = self._disk.blobs.stat(digest)
        return blob is not None and os.path.samestat(blob, status)

    def note(self, file: str, reference: Reference) -> None:
        """Write the line of ``reference`` in one write(2), before the caller makes the link.

        Compact the journal when fewer than half of its lines are of a file that exists.
        """
        text = journal.encode(file, reference)
        if self._journal < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._journal = self.dir.open(journal.NAME, flags)
        if os.write(self._journal, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._disk.durable:
            os.fsync(self._journal)
        # An append leaves the position at the end. lseek(2) takes a third of the time of fstat(2).
        size = os.lseek(self._journal, 0, os.SEEK_CUR)
        # Files and lines are counted when the size passes a power of two: seldom.
        grown = size >= journal.SMALL and size.bit_length() != (size - len(text)).bit_length()
        if grown and sum(1 for _ in self.files.names()) * 2 < journal.count(self.dir):
            self._compact([*map(Line._make, self.references()), Line(file, reference)])
        if self._disk.durable:
            self._force_above()

    def _compact(self, keep: list[Line]) -> None:
        before = os.fstat(self.seen)
        # Processes that have the journal open see the new length of ``seen`` and open it again.
        os.ftruncate(self.seen, before.st_size + 1)
        self.active(moment(before.st_mtime_ns))
        self._identity = os.fstat(self.seen)
        self._close_journal()
        journal.compact(self.dir, keep)


def record(sessions: Directory, sid: str) -> SessionRecord | None:
    """Read the marks of the session ``sid``; return None when it does not exist."""
    seen = sessions.stat_or_none(f"{sid}/seen")
    made = sessions.stat_or_none(f"{sid}/id")
    oldest = EPOCH if made is None else moment(made.st_mtime_ns)
    if seen is None or made is None:
        # A power cut may leave a folder without its marks. Its own time then gives its age.
        folder = sessions.stat_or_none(sid)
        if folder is None or not stat.S_ISDIR(folder.st_mode):
            return None
        seen = seen or folder
    ended, expiring = _mark(sessions, f"{sid}/ended"), _mark(sessions, f"{sid}/expiring")
    active = moment(seen.st_mtime_ns)
    active = active if ended is None else max(active, ended)
    return SessionRecord(sid, active, ended, oldest, expiring)


def _mark(sessions: Directory, name: str) -> datetime | None:
    # Every listing reads these marks, and most sessions have none: ``has`` is the cheapest test.
    status = sessions.stat_or_none(name) if sessions.has(name) else None
    return None if status is None else moment(status.st_mtime_ns)


def make(
    work: Directory, name: str, key: SessionKey, now: datetime, disk: Disk
) -> SessionDir | None:
    """Create a complete session folder ``name`` in this process's workspace ``work``.

    Return it open and locked, for the caller to move to its place; None where an open folder cannot
    be moved.
    """
    work.mkdir(name)
    work.mkdir(f"{name}/files")
    work.write(f"{name}/id", _identity(key))
    with contextlib.ExitStack() as opened:
        seen = work.open(f"{name}/seen", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        opened.callback(os.close, seen)
        for mark in ("id", "seen"):
            work.utime(f"{name}/{mark}", nanoseconds(now))
        if not HAS_DIR_FD:
            return None
        place = work.sub(name).belongs_at(disk.sessions, key.sid)
        folder = SessionDir(disk.sessions, key.sid, disk, opened=place)
        opened.pop_all()  # the folder closes it
        opened.callback(folder.close)
        folder.seen, folder.owned = seen, True
        folder.lock()
        opened.pop_all()
        return folder


def _identity(key: SessionKey) -> bytes:
    return json.dumps({"id": key.id, "owner": key.owner}).encode()


class SessionDirPool:
    """The open session folders of one store. Safe to use from any thread, and after a fork.

    Opening a folder with its lock and its journal takes eight of the twenty system calls of a small
    save, so the last used ones stay open. One caller at a time has an open folder. A second one
    opens it again: two threads exclude each other only by the locks of two open files.
    """

    def __init__(self, disk: Disk, most: int | None = None) -> None:
        self._disk = disk
        self._most = _affordable() if most is None else most
        self._pid = os.getpid()
        # Its methods are atomic. A fork could leave a lock taken.
        self.kept: OrderedDict[str, SessionDir] = OrderedDict()

    def reading(self, sid: str) -> Lease:
        return Lease(self, sid, change=False)

    def changing(
        self,
        sid: str,
        *,
        wait: bool = True,
        make: Callable[[], SessionDir | None] | None = None,
    ) -> Lease:
        """Lend a locked folder; None also when another has the lock and ``wait`` is false.

        ``make()`` creates a missing session. It returns the locked folder, or None if it is to be
        opened: another process was faster, or this one cannot move it while it is open.
        """
        return Lease(self, sid, change=True, wait=wait, make=make)

    def close(self, sid: str | None = None) -> None:
        if sid is None:
            self._shrink(0)
        elif (folder := self.kept.pop(sid, None)) is not None:
            folder.close()

    def end(self) -> None:
        """Close all folders, and those that other threads still have when they give them back."""
        self._most = 0
        self._shrink(0)

    def _shrink(self, most: int) -> None:
        while len(self.kept) > most:
            try:
                folder = self.kept.popitem(last=False)[1]
            except KeyError:  # another thread was faster
                return
            folder.close()

    def take(self, sid: str, *, change: bool, wait: bool) -> SessionDir | None:
        """Return an open folder to lend. The caller gives it back or closes it."""
        if self._pid != os.getpid():
            # Parent and child of a fork share the open files, so a lock of them excludes neither.
            # No other thread may take a folder before all are closed.
            self.close()
            self._pid = os.getpid()
        while True:
            folder = self.kept.pop(sid, None)
            reused = folder is not None
            try:
                if folder is None:
                    folder = SessionDir(self._disk.sessions, sid, self._disk, change=change)
                if change and not folder.lock(wait=wait):
                    folder.close()
                    return None
                # A drop may have moved it away since it was opened or during the wait for the lock.
                if not (reused or change) or folder.is_still():
                    return folder
            except (FileNotFoundError, NotADirectoryError):  # no session, or another program's file
                if folder is None:
                    return None
            except BaseException:
                if folder is not None:
                    folder.close()
                raise
            folder.close()

    def give(self, folder: SessionDir) -> None:
        if self.kept.setdefault(folder.sid, folder) is not folder:
            folder.close()
        if len(self.kept) > self._most:
            self._shrink(self._most)


@dataclass(slots=True)
class Lease:
    """Lends a folder for a block, and unlocks it afterwards."""

    pool: SessionDirPool
    sid: str
    change: bool
    wait: bool = True
    make: Callable[[], SessionDir | None] | None = None
    folder: SessionDir | None = None

    def __enter__(self) -> SessionDir | None:
        while self.folder is None:
            self.folder = self.pool.take(self.sid, change=self.change, wait=self.wait)
            if self.make is None:
                break
            self.folder = self.folder or self.make()
        return self.folder

    def __exit__(self, kind: object, *_: object) -> None:
        folder = self.folder
        if folder is None:
            return
        if kind is not None:  # its state is unknown after an error, so the next caller opens it
            folder.close()
            return
        if self.change:
            # To close the file would not be enough: a child that was forked since has it open too.
            unlock(folder.seen)
        if not folder.moved:
            self.pool.give(folder)


def _affordable() -> int:
    if not HAS_DIR_FD or resource is None:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(_MOST, soft // 64)
