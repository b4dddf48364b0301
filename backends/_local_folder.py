"""One session's folder on disk: its files, its journal and its marks.

    files/     one link for each file, under its stored name
    journal    what a link cannot say (``_local_journal``)
    id         JSON: the session's true id and owner; its mtime: no file is older
    seen       its mtime: the newest save or touch; its lock serialises all changes to the session;
               its length: how often the journal was compacted
    ended      there when the visitor left; its mtime: when
    expiring   there when files have a time to live; its mtime: none expires before
    new        a link on its way into files/, for the moment of a replacement

Every change is made under the lock of ``seen``, held for some system calls and never while bytes
are read or written. The system lets go of it when a process dies. Readers take no lock: a link is
in its place or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Self

from sessionstore import names
from sessionstore.backend import Reference, SessionKey, SessionRecord
from sessionstore.backends import _local_journal as journal
from sessionstore.backends._directory import Directory
from sessionstore.backends._local_journal import Line, moment, nanoseconds
from sessionstore.backends._local_spool import is_unfinished
from sessionstore.content import CHUNK
from sessionstore.locks import lock, unlock

NEW = "new"
UTIME_TAKES_FD = os.utime in os.supports_fd


class Folder:
    """An open session folder. ``Folders`` gives one that is in its place, locked for a change."""

    def __init__(
        self, sessions: Directory, sid: str, token: Callable[[os.stat_result], str]
    ) -> None:
        """Raises FileNotFoundError when there is no such session."""
        self.sid = sid
        self.token = token
        self.dir = sessions.sub(sid)
        try:
            self.files = self.dir.sub("files")
        except BaseException:
            self.dir.close()
            raise
        self._journal = journal.Writer(self.dir)
        self._seen = -1
        self._place = f"{sid}/seen"
        self._identity: os.stat_result | None = None
        """Of ``seen``, once it is open."""

    def close(self) -> None:
        if self._seen >= 0:
            os.close(self._seen)  # lets go of its lock
            self._seen = -1
        self._journal.close()
        self.files.close()
        self.dir.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self, *, wait: bool = True) -> bool:
        """Take the session's lock; False when somebody has it and ``wait`` is false."""
        if self._seen < 0:
            self._seen = self.dir.open("seen", os.O_RDWR | os.O_CREAT)
            self._identity = os.fstat(self._seen)
        return lock(self._seen, wait=wait)

    def unlock(self) -> None:
        """Let go of the lock. Said aloud: a child forked meanwhile has the open file too."""
        unlock(self._seen)

    def is_still(self, sessions: Directory) -> bool:
        """Whether it is in its place, and the lock it has is the session's."""
        own = self._identity
        if own is None:
            return self.dir.is_still(sessions, self.sid)
        there = sessions.stat_or_none(self._place)
        if there is None or there.st_ino != own.st_ino or there.st_dev != own.st_dev:
            return False
        if there.st_size != own.st_size:
            self._journal.close()  # another has put a compacted one in its place
            self._identity = there
        return True

    # Marks

    def active(self, now: datetime) -> None:
        """Note activity at ``now``."""
        self._set_active(nanoseconds(now))

    def _set_active(self, time: int) -> None:
        os.utime(self._seen if UTIME_TAKES_FD else self.dir.at("seen"), ns=(time, time))

    def mark(self, name: str, time: datetime) -> None:
        """Make the empty file ``name``, of that time."""
        os.close(self.dir.open(name, os.O_WRONLY | os.O_CREAT))
        self.dir.utime(name, nanoseconds(time))

    def will_expire(self, expires: datetime) -> None:
        """See that ``expiring`` is no later than ``expires``."""
        there = self.dir.stat_or_none("expiring")
        if there is None or moment(there.st_mtime_ns) > expires:
            self.mark("expiring", expires)

    def has_older(self, created: datetime) -> None:
        """See that the time of ``id`` is no later than ``created``."""
        if moment(self.dir.stat("id").st_mtime_ns) > created:
            self.dir.utime("id", nanoseconds(created))

    def tighten(self, now: datetime) -> None:
        """Set the bounds anew from the files that are left, so that sweeps pass the session by."""
        left = [reference for _, reference in self.references()]
        self.dir.utime("id", nanoseconds(min((it.created for it in left), default=now)))
        expiring = [it.expires for it in left if it.expires is not None]
        if expiring:
            self.mark("expiring", min(expiring))
        else:
            self.dir.unlink("expiring")

    def identify(self) -> SessionKey | None:
        try:
            with open(self.dir.open("id", os.O_RDONLY), "rb") as file:
                row = json.loads(file.read())
            return SessionKey(self.sid, row["id"], row["owner"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    # Files

    def find(self, file: str) -> Reference | None:
        """The file of that stored name as it is now, None when there is none.

        A directory or a symbolic link is none of ours, and no file; nor is one that a save has only
        begun to write.
        """
        while True:
            there = self.files.stat_or_none(file)
            if there is None or not stat.S_ISREG(there.st_mode) or is_unfinished(there):
                return None
            reference = journal.find(self.dir, file, self.token(there))
            if reference is not None:
                return reference
            again = self.files.stat_or_none(file)
            if again is not None and self.token(again) == self.token(there):
                return self._undescribed(file, there)

    def references(self) -> Iterator[tuple[str, Reference]]:
        """Every file: (stored name, reference)."""
        known = {(line.file, line.reference.token): line for line in journal.lines(self.dir)}
        for file in self.files.names():
            there = self.files.stat_or_none(file)
            if there is None or is_unfinished(there):
                continue
            line = known.get((file, self.token(there)))
            reference = line.reference if line is not None else self.find(file)
            if reference is not None:
                yield file, reference

    def unfinished(self) -> Iterator[str]:
        """What saves have begun to write; while the lock is held, those of dead processes."""
        for file in self.files.names():
            there = self.files.stat_or_none(file)
            if there is not None and is_unfinished(there):
                yield file

    def remove_unfinished(self) -> int:
        """Remove what dead processes were writing. Only under the lock."""
        left = list(self.unfinished())
        for file in left:
            self.files.unlink(file)
        return len(left)

    def _undescribed(self, file: str, there: os.stat_result) -> Reference | None:
        """A link without a line of its own.

        Its line may speak of the same inode with another time: then somebody wrote to the stored
        file, and it is still that version, for reading to find damaged. Otherwise it was put back
        by hand, or its line is damaged: it is read anew. The name is in the link itself, unless it
        was too long for that: then it is lost.
        """
        written_to = journal.find_inode(self.dir, file, there.st_ino)
        if written_to is not None:
            return written_to._replace(token=self.token(there))
        name = names.decode(file)
        if name is None:
            return None
        digest = hashlib.sha256()
        try:
            fd = self.files.open(file, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with open(fd, "rb", buffering=0) as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        return Reference(
            name, there.st_size, digest.hexdigest(), moment(there.st_ctime_ns), None,
            self.token(there),
        )  # fmt: skip

    def note(self, file: str, reference: Reference, *, durable: bool) -> None:
        """Write a line, before its link is made; compact the journal when half of it is idle."""
        grown = self._journal.append(file, reference, durable=durable)
        if grown and sum(1 for _ in self.files.names()) * 2 < journal.count(self.dir):
            self._compact([*map(Line._make, self.references()), Line(file, reference)], durable)

    def _compact(self, keep: list[Line], durable: bool) -> None:  # noqa: FBT001 - for ``note`` only
        """Rewrite the journal, and tell those who have it open beforehand."""
        before = os.fstat(self._seen)
        os.ftruncate(self._seen, before.st_size + 1)
        self._set_active(before.st_mtime_ns)
        self._identity = os.fstat(self._seen)
        self._journal.close()
        journal.compact(self.dir, keep, durable=durable)

    def place(self, file: str, link: Callable[[Directory, str], None]) -> bool:
        """Give a file its name here by ``link(directory, name)``; False when the name is taken."""
        try:
            link(self.files, file)
        except FileExistsError:
            return False
        return True

    def replace(self, file: str, link: Callable[[Directory, str], None]) -> None:
        """The same for a name that may be taken: what has it is replaced, at one instant."""
        self.dir.unlink(NEW)
        link(self.dir, NEW)
        self.dir.rename(NEW, self.files, file)
        # rename(2) between two links of one inode does nothing and leaves both.
        self.dir.unlink(NEW)


def token_of(there: os.stat_result) -> str:
    """What tells one stored file from another of the same name, also after an inode is reused."""
    return f"{there.st_ino}.{there.st_mtime_ns}"


def token_of_copy(there: os.stat_result) -> str:
    """The same where there are no hard links.

    Such file systems (FAT) make inode numbers up anew at each mount, and keep times to two seconds.
    """
    return f"{there.st_size}.{there.st_mtime_ns // 2_000_000_000}"


def record(sessions: Directory, sid: str) -> SessionRecord | None:
    """What the marks of a session say, None when it is not there (any more)."""
    seen = sessions.stat_or_none(f"{sid}/seen")
    made = sessions.stat_or_none(f"{sid}/id")
    if seen is None or made is None:
        return None
    # Most have neither mark, and they are asked for of every session: first whether they are there.
    ended = _mark(sessions, f"{sid}/ended") if sessions.has(f"{sid}/ended") else None
    expiring = _mark(sessions, f"{sid}/expiring") if sessions.has(f"{sid}/expiring") else None
    active = moment(seen.st_mtime_ns)
    active = active if ended is None else max(active, ended)
    return SessionRecord(sid, active, ended, moment(made.st_mtime_ns), expiring)


def _mark(sessions: Directory, name: str) -> datetime | None:
    """The time of a mark, None when it is gone.

    Should the look for it have failed, a session was taken for one that goes on; the next sweep
    looks again.
    """
    there = sessions.stat_or_none(name)
    return None if there is None else moment(there.st_mtime_ns)


def make(work: Directory, name: str, key: SessionKey, now: datetime) -> None:
    """A complete new session folder ``name`` in this process's workspace."""
    work.mkdir(name)
    with work.sub(name) as folder:
        folder.mkdir("files")
        with open(folder.open("id", os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(json.dumps({"id": key.id, "owner": key.owner}).encode())
        os.close(folder.open("seen", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        folder.utime("id", nanoseconds(now))
        folder.utime("seen", nanoseconds(now))
