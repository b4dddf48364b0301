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

A power cut may leave any of these files empty, cut off or missing if it was not forced to the disk.
A link whose bytes are not proven to be those that were saved under its name is no file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import NamedTuple, Self

from sessionstore import names
from sessionstore.backend import Reference, SessionKey, SessionRecord
from sessionstore.backends import _local_journal as journal
from sessionstore.backends._directory import Directory
from sessionstore.backends._local_journal import Line, moment, nanoseconds
from sessionstore.backends._local_lookup import Tables
from sessionstore.backends._local_spool import FINISHED, is_unfinished
from sessionstore.clock import EPOCH
from sessionstore.content import CHUNK, hasher
from sessionstore.locks import lock, unlock

NEW = "new"

Step = Callable[[Directory, str], None]
"""Something done with a name in a directory."""

UTIME_TAKES_FD = os.utime in os.supports_fd


class Rules(NamedTuple):
    """What the folders of one store have in common."""

    token: Callable[[os.stat_result], str]
    """What tells one stored file from another of the same name."""
    algorithm: str
    """Of digests."""
    blob: Callable[[str], os.stat_result | None]
    """The blob of a digest, None when there is none."""
    durable: bool
    """Whether a change is forced to the disk before it is acknowledged."""
    tables: Tables
    """Where the lines of large journals are."""


class Folder:
    """An open session folder. ``Folders`` gives one that is in its place, locked for a change."""

    def __init__(
        self, sessions: Directory, sid: str, rules: Rules, *, change: bool = False
    ) -> None:
        """Raises FileNotFoundError when there is no such session.

        With ``change`` the directory of files is made if a power cut took it.
        """
        self.sid = sid
        self.token = rules.token
        self._rules = rules
        self._search = partial(rules.tables.lines, sid)
        self._sessions = sessions
        self._forced = False
        self.owned = False
        """Whether ``id`` is known to say whose it is."""
        self.dir = sessions.sub(sid)
        try:
            self.files = self._open_files(change=change)
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
            self._seen = self._open_seen()
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
            self._forced = False
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
        fd = self.dir.open(name, os.O_WRONLY | os.O_CREAT)
        try:
            self.dir.utime(name, nanoseconds(time))
            if self._rules.durable:
                os.fsync(fd)
                self.dir.fsync()
        finally:
            os.close(fd)

    def unmark(self, name: str) -> None:
        """Remove a mark."""
        self.dir.unlink(name)
        if self._rules.durable:
            self.dir.fsync()

    def will_expire(self, expires: datetime) -> None:
        """See that ``expiring`` is no later than ``expires``."""
        there = self.dir.stat_or_none("expiring")
        if there is None or moment(there.st_mtime_ns) > expires:
            self.mark("expiring", expires)

    def has_older(self, created: datetime) -> None:
        """See that the time of ``id`` is no later than ``created``."""
        if moment(self.dir.stat("id").st_mtime_ns) > created:
            self.dir.utime("id", nanoseconds(created))
            if self._rules.durable:
                self._force("id")

    def tighten(self, now: datetime) -> None:
        """Set the bounds anew from the files that are left, so that sweeps pass the session by."""
        left = [reference for _, reference in self.references()]
        with contextlib.suppress(FileNotFoundError):  # a power cut took it
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
            return SessionKey.told(self.sid, row["id"], row["owner"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def belongs_to(self, key: SessionKey, work: Callable[[], Directory]) -> None:
        """See that ``id`` says ``key``; one that a power cut tore or took is written again.

        ``work()`` opens this process's workspace. Looked at once while the folder is open.
        """
        if self.owned:
            return
        text = _identity(key)
        found = b""
        with contextlib.suppress(FileNotFoundError), self.dir.reading("id") as fd:
            found = os.read(fd, len(text) + 1)
        if found != text and self.identify() is None:
            self._write_id(text, work)
        self.owned = True

    def _write_id(self, text: bytes, work: Callable[[], Directory]) -> None:
        """Put a whole ``id`` in the place of one that says nothing; no file is older than it."""
        there = self.dir.stat_or_none("id")
        oldest = min((it.created for _, it in self.references()), default=EPOCH)
        time = nanoseconds(oldest) if there is None else there.st_mtime_ns
        name = secrets.token_hex(8)
        with work() as place:
            with open(place.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(text)
                file.flush()
                place.utime(name, time)
                os.fsync(file.fileno())
            place.rename(name, self.dir, "id")

    # Durability

    def settle(self) -> None:
        """Force the names of the files and the time of the newest activity, if that is wanted."""
        if self._rules.durable:
            self.files.fsync()
            os.fsync(self._seen)

    def _force_above(self) -> None:
        """Force what leads to the files and says whose they are.

        Another process may have made it and not forced it yet, or died before. Once is enough while
        the folder is open and its journal the same.
        """
        if not self._forced:
            with contextlib.suppress(FileNotFoundError):
                self._force("id")
            self.dir.fsync()
            self._sessions.fsync()
            self._forced = True

    def _force(self, name: str) -> None:
        with self.dir.reading(name) as fd:
            os.fsync(fd)

    # What a power cut may have taken

    def _open_files(self, *, change: bool) -> Directory:
        try:
            return self.dir.sub("files")
        except FileNotFoundError:
            if not change:
                raise
        time = self.dir.stat(".").st_mtime_ns
        with contextlib.suppress(FileExistsError):
            self.dir.mkdir("files")
            self.dir.utime(".", time)  # which may be all that says how old the session is
        return self.dir.sub("files")

    def _open_seen(self) -> int:
        try:
            return self.dir.open("seen", os.O_RDWR)
        except FileNotFoundError:
            time = self.dir.stat(".").st_mtime_ns  # as in ``record``: it is not active by this
        fd = self.dir.open("seen", os.O_RDWR | os.O_CREAT)
        self.dir.utime("seen", time)
        return fd

    # Files

    def find(self, file: str) -> Reference | None:
        """The file of that stored name as it is now, None when there is none.

        A directory or a symbolic link is none of ours, and no file; nor is one that a save has only
        begun to write, or that a power cut tore.
        """
        there, reference = self.described(file)
        if there is None or reference is None or reference.size != there.st_size:
            return None
        return reference

    def described(self, file: str) -> tuple[os.stat_result | None, Reference | None]:
        """The stored file of that name, and what was saved as it; None where there is neither.

        It is torn when its size is not the one saved.
        """
        while True:
            there = self.files.stat_or_none(file)
            if there is None or not stat.S_ISREG(there.st_mode) or is_unfinished(there):
                return None, None
            reference = journal.find(self.dir, file, self.token(there), self._search)
            if reference is not None:
                return there, reference
            again = self.files.stat_or_none(file)
            if again is not None and self.token(again) == self.token(there):
                return there, self._undescribed(file, there)

    def references(self) -> Iterator[tuple[str, Reference]]:
        """Every file: (stored name, reference)."""
        for file, there, reference in self.links():
            if reference is not None and reference.size == there.st_size:
                yield file, reference

    def links(self) -> Iterator[tuple[str, os.stat_result, Reference | None]]:
        """Every stored file: its name, itself, and what was saved as it if anything says so."""
        known = {(line.file, line.reference.token): line for line in journal.lines(self.dir)}
        for file in self.files.names():
            there = self.files.stat_or_none(file)
            if there is None or is_unfinished(there):
                continue
            line = known.get((file, self.token(there)))
            if line is not None:
                yield file, there, line.reference
                continue
            again, reference = self.described(file)
            if again is not None:
                yield file, again, reference

    def unfinished(self) -> Iterator[str]:
        """What saves have begun to write; while the lock is held, those of dead processes."""
        for file in self.files.names():
            there = self.files.stat_or_none(file)
            if there is not None and is_unfinished(there):
                yield file

    def has_left(self) -> bool:
        """Whether a death or a power cut may have left something here that is no file."""
        return self.dir.has(NEW) or any(self.unfinished()) or any(self.torn())

    def torn(self) -> Iterator[str]:
        """Files of which a power cut left no bytes, a part of them, or bytes without their line."""
        known = {(file, token): size for file, token, size, _ in journal.kept(self.dir)}
        for file in self.files.names():
            there = self.files.stat_or_none(file)
            if there is None or known.get((file, self.token(there))) == there.st_size:
                continue
            if self.is_torn(file):
                yield file

    def is_torn(self, file: str) -> bool:
        """Whether the stored file of that name is ours and no file of the session.

        One whose name is too long to be in the link and is in no line either is left alone.
        """
        there, reference = self.described(file)
        if there is None or reference is not None:
            return there is not None and reference is not None and reference.size != there.st_size
        return stat.S_IMODE(there.st_mode) == FINISHED and names.decode(file) is not None

    def _undescribed(self, file: str, there: os.stat_result) -> Reference | None:
        """A link without a line of its own.

        A line may speak of the same inode with another time: then somebody wrote to the stored
        file, and it is still that version, for reading to find damaged. Otherwise its bytes have to
        be those of a line of that name, as in a store that was copied, or those that its blob's
        name says, when its line is lost. The name then is in the link itself, unless it was too
        long for that; a time to live is lost with the line, so the file gets the shortest of the
        session.
        """
        written_to = journal.find_inode(self.dir, file, there.st_ino, self._search)
        if written_to is not None:
            return written_to._replace(token=self.token(there))
        digest = self._digest(file)
        saved = [
            line.reference
            for line in journal.lines(self.dir)
            if line.file == file and line.reference.digest == digest
        ]
        if saved:
            return saved[-1]._replace(token=self.token(there))
        name = names.decode(file)
        blob = None if digest is None else self._rules.blob(digest)
        if name is None or digest is None or blob is None or not os.path.samestat(blob, there):
            return None
        expiring = self.dir.stat_or_none("expiring")
        expires = None if expiring is None else moment(expiring.st_mtime_ns)
        created = moment(there.st_ctime_ns)
        return Reference(name, there.st_size, digest, created, expires, self.token(there))

    def _digest(self, file: str) -> str | None:
        """The digest of the bytes of a stored file, None when it is gone."""
        found = hasher(self._rules.algorithm)
        with contextlib.suppress(FileNotFoundError), self.files.reading(file) as fd:
            while chunk := os.read(fd, CHUNK):
                found.update(chunk)
            return found.hexdigest()
        return None

    def note(self, file: str, reference: Reference) -> None:
        """Write a line, before its link is made; compact the journal when half of it is idle."""
        durable = self._rules.durable
        grown = self._journal.append(file, reference, durable=durable)
        if grown and sum(1 for _ in self.files.names()) * 2 < journal.count(self.dir):
            self._compact([*map(Line._make, self.references()), Line(file, reference)])
        if durable:
            self._force_above()

    def _compact(self, keep: list[Line]) -> None:
        """Rewrite the journal, and tell those who have it open beforehand."""
        before = os.fstat(self._seen)
        os.ftruncate(self._seen, before.st_size + 1)
        self._set_active(before.st_mtime_ns)
        self._identity = os.fstat(self._seen)
        self._journal.close()
        self._forced = False
        journal.compact(self.dir, keep)

    def place(self, file: str, link: Step, settle: Step) -> bool:
        """Give a file its name here by ``link(directory, name)``; False when the name is taken.

        The name is taken back when ``settle(directory, name)`` raises.
        """
        try:
            link(self.files, file)
        except FileExistsError:
            return False
        try:
            settle(self.files, file)
        except BaseException:
            self.files.unlink(file)
            raise
        return True

    def replace(
        self, file: str, link: Step, settle: Step, around: AbstractContextManager[None]
    ) -> None:
        """Give a file a name that may be taken: what has it is replaced, at one instant.

        ``around`` is entered for that. Whatever raises before it leaves the older file.
        """
        self.dir.unlink(NEW)
        link(self.dir, NEW)
        try:
            settle(self.dir, NEW)
            with around:
                self.dir.rename(NEW, self.files, file)
        finally:
            # rename(2) between two links of one inode does nothing and leaves both. Should one be
            # left, the next replacement or drop takes it.
            with contextlib.suppress(OSError):
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
    oldest = EPOCH if made is None else moment(made.st_mtime_ns)
    if seen is None or made is None:
        # A power cut may leave a folder without its marks: its own time says how old it is.
        folder = sessions.stat_or_none(sid)
        if folder is None or not stat.S_ISDIR(folder.st_mode):
            return None
        seen = seen or folder
    # Most have neither mark, and they are asked for of every session: first whether they are there.
    ended = _mark(sessions, f"{sid}/ended") if sessions.has(f"{sid}/ended") else None
    expiring = _mark(sessions, f"{sid}/expiring") if sessions.has(f"{sid}/expiring") else None
    active = moment(seen.st_mtime_ns)
    active = active if ended is None else max(active, ended)
    return SessionRecord(sid, active, ended, oldest, expiring)


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
            file.write(_identity(key))
        os.close(folder.open("seen", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        folder.utime("id", nanoseconds(now))
        folder.utime("seen", nanoseconds(now))


def _identity(key: SessionKey) -> bytes:
    """The content of ``id``."""
    return json.dumps({"id": key.id, "owner": key.owner}).encode()
