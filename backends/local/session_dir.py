"""One session's folder on disk: its files, its journal and its marks.

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
from sessionstore._os.locks import lock, unlock
from sessionstore.clock import EPOCH
from sessionstore.content import CHUNK, hasher
from sessionstore.model import Reference, SessionKey, SessionRecord

from . import journal, written
from .directory import Directory
from .journal import Line, moment, nanoseconds
from .lookup import Tables
from .spool import FINISHED, is_unfinished

NEW = "new"

Step = Callable[[Directory, str], None]
"""An operation on a name in a directory."""

UTIME_TAKES_FD = os.utime in os.supports_fd


class Rules(NamedTuple):
    """The parameters that all folders of one store share."""

    token: Callable[[os.stat_result], str]
    """Returns a string that differs between two versions of a stored file: ``token_of``."""
    algorithm: str
    """The digest algorithm."""
    blob: Callable[[str], os.stat_result | None]
    """Returns the status of the blob of a digest, None when it does not exist."""
    durable: bool
    """Whether a change is forced to the disk before it is acknowledged."""
    tables: Tables
    """The offsets of the lines of large journals."""


class SessionDir:
    """An open session folder. ``Folders`` gives one that is in its place, locked for a change."""

    def __init__(
        self, sessions: Directory, sid: str, rules: Rules, *, change: bool = False
    ) -> None:
        """Open the folder of the session ``sid``.

        With ``change`` the directory of files is created if a power cut removed it. Raises
        FileNotFoundError when the session does not exist.
        """
        self.sid = sid
        self.token = rules.token
        self._rules = rules
        self._search = partial(rules.tables.lines, sid)
        self._sessions = sessions
        self._forced = False
        self.owned = False
        """Whether ``id`` is known to hold the session's id and owner."""
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
        """The status of ``seen``, once it is open."""

    def close(self) -> None:
        if self._seen >= 0:
            os.close(self._seen)  # also releases its lock
            self._seen = -1
        self._journal.close()
        self.files.close()
        self.dir.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self, *, wait: bool = True) -> bool:
        """Take the session's lock; return False if it is taken and ``wait`` is false."""
        if self._seen < 0:
            self._seen = self._open_seen()
            self._identity = os.fstat(self._seen)
        return lock(self._seen, wait=wait)

    def unlock(self) -> None:
        """Release the lock."""
        # Closing the file would not be enough: a child that was forked since has it open too.
        unlock(self._seen)

    def is_still(self, sessions: Directory) -> bool:
        """Return whether this folder is in its place and holds the lock of the session there."""
        own = self._identity
        if own is None:
            return self.dir.is_still(sessions, self.sid)
        status = sessions.stat_or_none(self._place)
        if status is None or status.st_ino != own.st_ino or status.st_dev != own.st_dev:
            return False
        if status.st_size != own.st_size:
            self._journal.close()  # another process replaced it by a compacted one
            self._forced = False
            self._identity = status
        return True

    # Marks

    def active(self, now: datetime) -> None:
        """Note activity at ``now``."""
        self._set_active(nanoseconds(now))

    def _set_active(self, time: int) -> None:
        os.utime(self._seen if UTIME_TAKES_FD else self.dir.at("seen"), ns=(time, time))

    def mark(self, name: str, time: datetime) -> None:
        """Create the empty file ``name`` and set its mtime to ``time``."""
        fd = self.dir.open(name, os.O_WRONLY | os.O_CREAT)
        try:
            self.dir.utime(name, nanoseconds(time))
            if self._rules.durable:
                os.fsync(fd)
                self.dir.fsync()
        finally:
            os.close(fd)

    def unmark(self, name: str) -> None:
        """Remove the mark ``name``."""
        self.dir.unlink(name)
        if self._rules.durable:
            self.dir.fsync()

    def will_expire(self, expires: datetime) -> None:
        """Set the time of ``expiring`` to ``expires``, unless it is earlier already."""
        status = self.dir.stat_or_none("expiring")
        if status is None or moment(status.st_mtime_ns) > expires:
            self.mark("expiring", expires)

    def has_older(self, created: datetime) -> None:
        """Set the time of ``id`` to ``created``, unless it is earlier already."""
        if moment(self.dir.stat("id").st_mtime_ns) > created:
            self.dir.utime("id", nanoseconds(created))
            if self._rules.durable:
                self._force("id")

    def tighten(self, now: datetime) -> None:
        """Compute the bounds ``id`` and ``expiring`` again from the files that are left.

        Without files the oldest is ``now``. Sweeps then skip the session until a file is due.
        """
        left = [reference for _, reference in self.references()]
        oldest = min((reference.created for reference in left), default=now)
        with contextlib.suppress(FileNotFoundError):  # a power cut removed it
            self.dir.utime("id", nanoseconds(oldest))
        expiring = [reference.expires for reference in left if reference.expires is not None]
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
        """Write ``id`` for ``key`` again if a power cut tore or removed it.

        ``work()`` opens this process's workspace. The check is made once while the folder is open.
        """
        if self.owned:
            return
        text = _identity(key)
        stored = b""
        with contextlib.suppress(FileNotFoundError), self.dir.reading("id") as fd:
            stored = os.read(fd, len(text) + 1)
        if stored != text and self.identify() is None:
            self._write_id(text, work)
        self.owned = True

    def _write_id(self, text: bytes, work: Callable[[], Directory]) -> None:
        """Replace a torn or missing ``id`` by a whole one with the content ``text``.

        It keeps the time of the torn one. The time of a missing one is that of the oldest file.
        """
        status = self.dir.stat_or_none("id")
        oldest = min((reference.created for _, reference in self.references()), default=EPOCH)
        time = nanoseconds(oldest) if status is None else status.st_mtime_ns
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
        """Force the names of the files and the time of activity to the disk, when ``durable``."""
        if self._rules.durable:
            self.files.fsync()
            os.fsync(self._seen)

    def _force_above(self) -> None:
        """Force ``id`` and the names of the directories above the files to the disk.

        Another process may have made them and not forced them yet, or died before it could. Once is
        enough while the folder is open and its journal was not replaced.
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

        These do not count as files: a directory or a symbolic link, which the store never makes; a
        file that a save has only begun to write; a file that a power cut tore.
        """
        status, reference = self.described(file)
        if status is None or reference is None:
            return None
        if not self._is_whole(file, status, reference.size):
            return None
        return reference

    def described(self, file: str) -> tuple[os.stat_result | None, Reference | None]:
        """Return the status of the stored ``file`` and the reference saved for it.

        Each is None when it does not exist. The file may be torn.
        """
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
        """Yield (stored name, reference) of every file."""
        for file, status, reference in self.links():
            if reference is not None and self._is_whole(file, status, reference.size):
                yield file, reference

    def links(self) -> Iterator[tuple[str, os.stat_result, Reference | None]]:
        """Yield (stored name, status, reference) of every stored file.

        The reference is None when neither the journal nor the link holds one.
        """
        known = {(line.file, line.reference.token): line for line in journal.lines(self.dir)}
        for file in self.files.names():
            status = self.files.stat_or_none(file)
            if status is None or is_unfinished(status):
                continue
            line = known.get((file, self.token(status)))
            if line is not None:
                yield file, status, line.reference
                continue
            again, reference = self.described(file)
            if again is not None:
                yield file, again, reference

    def unfinished(self) -> Iterator[str]:
        """Yield the stored names of unfinished files.

        While the caller holds the lock these are files of dead processes.
        """
        for file in self.files.names():
            status = self.files.stat_or_none(file)
            if status is not None and is_unfinished(status):
                yield file

    def has_left(self) -> bool:
        """Return whether a killed process or a power cut may have left unfinished or torn files."""
        return self.dir.has(NEW) or any(self.unfinished()) or any(self.torn())

    def torn(self) -> Iterator[str]:
        """Yield the stored names of files that a power cut tore.

        Such a file has no bytes, a part of them, or all of them without their line in the journal.
        """
        known = {(file, token): size for file, token, size, _ in journal.kept(self.dir)}
        for file in self.files.names():
            status = self.files.stat_or_none(file)
            if status is None:
                continue
            size = known.get((file, self.token(status)))
            if (size is None or not self._is_whole(file, status, size)) and self.is_torn(file):
                yield file

    def is_torn(self, file: str) -> bool:
        """Return whether the store made the stored ``file`` and a power cut tore it.

        False for a file with a name that is too long for the link and is in no line either: such a
        file is left alone.
        """
        status, reference = self.described(file)
        if status is None:
            return False
        if reference is not None:
            return not self._is_whole(file, status, reference.size)
        return stat.S_IMODE(status.st_mode) == FINISHED and names.decode(file) is not None

    def _is_whole(self, file: str, status: os.stat_result, size: int) -> bool:
        """Return whether a stored file has the saved ``size`` and all of its bytes were written.

        The second part is checked only for files that are older than the start of the machine.
        """
        if status.st_size != size:
            return False
        return status.st_mtime_ns > written.BOOTED or not written.is_unwritten(
            self.files, file, status
        )

    def _undescribed(self, file: str, status: os.stat_result) -> Reference | None:
        """Return the reference of a link without a line of its own, None when nothing proves one.

        ``status`` is the link's. There are three proofs, in this order:

        1. The bytes have the digest of a line of that name, as in a store that was copied.
        2. The line is lost, and a blob with the digest of the bytes is the same file. The name is
           then decoded from the link, unless it was too long for that. The time to live is lost
           with the line, so the file gets the shortest of the session.
        3. A line names the same inode with another time, and the blob of that line is the same
           file. Then something wrote to the stored file. It still is that version, and reading it
           finds the damage. Without such a blob the inode may be a later file's, used again.
        """
        digest = self._digest(file)
        saved = [
            line.reference
            for line in journal.lines(self.dir)
            if line.file == file and line.reference.digest == digest
        ]
        if saved:
            return saved[-1]._replace(token=self.token(status))
        name = names.decode(file)
        if name is None or digest is None or not self._is_blob(digest, status):
            written_to = journal.find_inode(self.dir, file, status.st_ino, self._search)
            if written_to is None or not self._is_blob(written_to.digest, status):
                return None
            return written_to._replace(token=self.token(status))
        expiring = self.dir.stat_or_none("expiring")
        expires = None if expiring is None else moment(expiring.st_mtime_ns)
        created = moment(status.st_ctime_ns)
        return Reference(name, status.st_size, digest, created, expires, self.token(status))

    def _is_blob(self, digest: str, status: os.stat_result) -> bool:
        """Return whether the blob of ``digest`` is the file with that ``status``."""
        blob = self._rules.blob(digest)
        return blob is not None and os.path.samestat(blob, status)

    def _digest(self, file: str) -> str | None:
        """Return the digest of the bytes of the stored ``file``, None when it is gone."""
        digest = hasher(self._rules.algorithm)
        with contextlib.suppress(FileNotFoundError), self.files.reading(file) as fd:
            while chunk := os.read(fd, CHUNK):
                digest.update(chunk)
            return digest.hexdigest()
        return None

    def note(self, file: str, reference: Reference) -> None:
        """Write the line of ``reference``. The caller makes the link afterwards.

        Compact the journal when fewer than half of its lines are of a file that exists.
        """
        durable = self._rules.durable
        grown = self._journal.append(file, reference, durable=durable)
        if grown and sum(1 for _ in self.files.names()) * 2 < journal.count(self.dir):
            self._compact([*map(Line._make, self.references()), Line(file, reference)])
        if durable:
            self._force_above()

    def _compact(self, keep: list[Line]) -> None:
        """Rewrite the journal with the lines ``keep`` only."""
        before = os.fstat(self._seen)
        # Processes that have the journal open see the new length of ``seen`` and open it again.
        os.ftruncate(self._seen, before.st_size + 1)
        self._set_active(before.st_mtime_ns)
        self._identity = os.fstat(self._seen)
        self._journal.close()
        self._forced = False
        journal.compact(self.dir, keep)

    def place(self, file: str, link: Step, settle: Step) -> bool:
        """Give a file its name here by ``link(directory, name)``; return False if it is taken.

        The name is removed again when ``settle(directory, name)`` raises.
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
        """Give a file the name ``file``, atomically replacing the file that has it.

        Call ``link(directory, name)`` and ``settle(directory, name)``, then rename inside the
        context manager ``around``. If anything raises before the rename, the older file stays.
        """
        self.dir.unlink(NEW)
        link(self.dir, NEW)
        try:
            settle(self.dir, NEW)
            with around:
                self.dir.rename(NEW, self.files, file)
        finally:
            # rename(2) between two links of one inode does nothing and leaves both. If this removal
            # fails, the next replacement or drop removes the link.
            with contextlib.suppress(OSError):
                self.dir.unlink(NEW)


def token_of(status: os.stat_result) -> str:
    """Return a token of the version of a stored file, unique even if its inode is reused."""
    return f"{status.st_ino}.{status.st_mtime_ns}"


def token_of_copy(status: os.stat_result) -> str:
    """Return a token of the version of a stored file where the disk has no hard links.

    Such file systems (FAT) assign new inode numbers at each mount, and keep times to two seconds.
    """
    return f"{status.st_size}.{status.st_mtime_ns // 2_000_000_000}"


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
    # Every listing reads these marks of every session, and most sessions have neither. ``has`` is
    # the cheapest test for that.
    ended = _mark(sessions, f"{sid}/ended") if sessions.has(f"{sid}/ended") else None
    expiring = _mark(sessions, f"{sid}/expiring") if sessions.has(f"{sid}/expiring") else None
    active = moment(seen.st_mtime_ns)
    active = active if ended is None else max(active, ended)
    return SessionRecord(sid, active, ended, oldest, expiring)


def _mark(sessions: Directory, name: str) -> datetime | None:
    """Return the time of the mark ``name``, None when it is gone.

    If the check for the mark fails, the session counts as not ended; the next sweep checks again.
    """
    status = sessions.stat_or_none(name)
    return None if status is None else moment(status.st_mtime_ns)


def make(work: Directory, name: str, key: SessionKey, now: datetime) -> None:
    """Create a complete session folder ``name`` in this process's workspace ``work``."""
    work.mkdir(name)
    with work.sub(name) as folder:
        folder.mkdir("files")
        with open(folder.open("id", os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(_identity(key))
        os.close(folder.open("seen", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        folder.utime("id", nanoseconds(now))
        folder.utime("seen", nanoseconds(now))


def _identity(key: SessionKey) -> bytes:
    """Return the content of ``id`` for ``key``."""
    return json.dumps({"id": key.id, "owner": key.owner}).encode()
