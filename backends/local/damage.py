"""Find damage in a local store, and repair it.

Content is read once: first every blob, then the files that are not links to their blob. Only the
damaged blobs are kept in memory. Each problem is checked again, as files change meanwhile.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sessionstore.model import Problem, Reference
from sessionstore.names import decode, encode, is_shortened, is_sid

from .directory import Directory, digest_of, is_unfinished
from .eraser import Eraser
from .journal import NAME as JOURNAL
from .layout import HARMLESS, OURS
from .session_dir import NEW, Disk, SessionDir, SessionDirPool

_OF_A_SESSION = {"files", "id", "seen", "ended", "expiring", JOURNAL, JOURNAL + ".new", NEW}
_LEFT_ALONE = "It is left alone: a later version or another program may own it. Remove it by hand."
_MAY_BE_REMOVED = "a power cut may have removed that."
_INCOMPLETE = (
    "It is left alone: the visitor's next save completes it, and a sweep deletes it when it is "
    "idle."
)
_UNLISTED = "No listing shows the file."
_TORN = "It is left alone. To repair it, run a repair (it needs another copy) or save it again."
_LOST_NAME = "It is left alone. To repair it, save the file again under its name."

SETTLED = 60
"""Seconds after which a blob without a file is a leftover.

A delete removes the link first (``st_ctime`` of the inode) and the blob's name a moment later.
"""


class Bad(NamedTuple):
    """A stored file with wrong bytes; ``unreadable``: the disk cannot read them."""

    inode: int
    problem: str
    unreadable: bool = False


@dataclass(slots=True)
class Inspector:
    """One inspection. ``discard`` is that of the backend."""

    disk: Disk
    folders: SessionDirPool
    eraser: Eraser
    discard: Callable[[str, Iterable[Reference]], list[Reference]]
    _bad: dict[str, Bad] = field(default_factory=dict)
    """Damaged blobs, by digest."""
    _used: set[str] = field(default_factory=set)
    """Digests of damaged blobs that are linked to a file."""
    _sound: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    """By digest of a damaged blob: session and stored name of an intact file, None without one."""

    def problems(self) -> Iterator[Problem]:
        """Implement ``Backend.inspect``."""
        idle: list[str] = []
        for digest, status in self.disk.blobs.everything():
            if self.disk.links and status.st_nlink == 1:
                idle.append(digest)
            with suppress(FileNotFoundError), self.disk.blobs.reading(digest) as fd:
                bad = self._problem(fd, digest)
                if bad is not None:
                    self._bad[digest] = bad
        for sid in filter(is_sid, self.disk.sessions.names()):
            yield from self._unlisted(sid)
            with self.folders.reading(sid) as folder:
                if folder is not None:
                    yield from self._session(folder)
        for digest in sorted(self._bad.keys() - self._used):
            bad, place = self._bad[digest], f"blobs/{digest[:2]}/{digest}"
            words = f"The stored bytes of an unreferenced blob are damaged: {bad.problem}."
            remedy = "It is deleted, so that no save of the same content links to it."
            repair = partial(self.disk.blobs.forget, digest, bad.inode)
            yield Problem("damaged", place, words, remedy, repair)
        yield from filter(None, map(self._idle_blob, idle))
        for path in self.disk.workspace.abandoned():
            place, words = f"tmp/{path.name}", "A process that no longer runs left unfinished work."
            remedy = "It is finished or removed, as the next sweep would do."
            yield Problem("leftover", place, words, remedy, partial(self._finish, path))
        strange = [f"sessions/{sid}" for sid in self.disk.sessions.names() if not is_sid(sid)]
        yield from map(_stranger, sorted([*strange, *self._strange()]))

    def omitted(self, *, files: bool) -> Iterator[Problem]:
        """Implement ``Omits.omitted``."""
        for sid in self.disk.sessions.names():
            if not is_sid(sid):
                yield _stranger(f"sessions/{sid}")
                continue
            yield from self._unlisted(sid)
            if files:
                with self.folders.reading(sid) as folder:
                    if folder is not None:
                        known = {file for file, _ in folder.references()}
                        yield from self._besides(folder, known)
        if files:
            yield from map(_stranger, self._strange())

    def _unlisted(self, sid: str) -> Iterator[Problem]:
        """Yield problems of the entry ``sid`` of sessions/ that no listing shows as a session."""
        sessions, place = self.disk.sessions, f"sessions/{sid}"
        status = sessions.stat_or_none(sid)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            yield _stranger(place)
            return
        parts = ("files", "id", "seen")
        lacking = [repr(name) for name in parts if sessions.stat_or_none(f"{sid}/{name}") is None]
        again = sessions.stat_or_none(sid)
        if lacking and again and os.path.samestat(status, again):  # no drop has moved it
            words = f"The folder of a session lacks {' and '.join(lacking)}: {_MAY_BE_REMOVED}"
            yield Problem("damaged", place, words, _INCOMPLETE, sid=sid)

    def _problem(self, fd: int, digest: str) -> Bad | None:
        inode = os.fstat(fd).st_ino
        try:
            if digest_of(fd, self.disk.algorithm) == digest:
                return None
        except OSError as error:
            return Bad(inode, f"they cannot be read: {error.strerror}", unreadable=True)
        return Bad(inode, f"their digest is not the one saved, {digest}")

    def _idle_blob(self, digest: str) -> Problem | None:
        status = self.disk.blobs.stat(digest)
        if status is None or status.st_nlink != 1 or digest in self._bad:
            return None
        if time.time() - status.st_ctime < SETTLED:  # its last link was removed just now
            return None
        return Problem(
            "leftover",
            f"blobs/{digest[:2]}/{digest}",
            f"A blob of {status.st_size} bytes is unreferenced.",
            "It is deleted, as the next sweep would do.",
            lambda: self.disk.blobs.unlink(digest, links=1) >= 0,
        )

    def _session(self, folder: SessionDir) -> Iterator[Problem]:
        known: set[str] = set()
        for file, status, found in folder.links():
            reference = found or self._of_damaged_blob(folder, file, status)
            if reference is not None:
                known.add(file)
                bad = self._look_at_file(folder, file, reference)
                if bad is not None:
                    yield self._damaged_file(folder.sid, file, reference, bad)
            elif folder.is_torn(file):
                known.add(file)
                yield self._unproven(folder.sid, file)
        yield from self._besides(folder, known)
        for file in list(filter(folder.is_unfinished, folder.files.names())):
            with self.folders.changing(folder.sid) as locked:  # under the lock no save writes it
                left = locked is not None and locked.is_unfinished(file)
            if left:
                words = "A save that did not finish left a file that no listing shows."
                remedy = "It is deleted, as the next save of that name would do."
                repair = partial(self._remove, folder.sid, file, SessionDir.is_unfinished)
                place = f"sessions/{folder.sid}/files/{file}"
                yield Problem("leftover", place, words, remedy, repair)

    def _of_damaged_blob(
        self, folder: SessionDir, file: str, status: os.stat_result
    ) -> Reference | None:
        """Return the reference of a link to a damaged blob that a repair has just removed."""
        reference = folder.written_to(file, status)
        bad = None if reference is None else self._bad.get(reference.digest)
        return reference if bad is not None and bad.inode == status.st_ino else None

    def _besides(self, folder: SessionDir, known: set[str]) -> Iterator[Problem]:
        """Yield problems of a session's entries, except of files unfinished or in ``known``."""
        for file in [name for name in folder.files.names() if name not in known]:
            status = folder.files.stat_or_none(file)
            if status is None or is_unfinished(status) or folder.find(file) is not None:
                continue  # deleted or saved since, or being saved
            place, sid = f"sessions/{folder.sid}/files/{file}", folder.sid
            reference = folder.described(file)[1]
            if reference is not None:
                words = (
                    f"The stored bytes of {reference.name!r} are damaged: they are not the "
                    f"{reference.size} bytes that were saved, as after a power cut. {_UNLISTED}"
                )
                yield Problem("damaged", place, words, _TORN, sid=sid, reference=reference)
            elif folder.is_torn(file):
                yield self._unproven(sid, file)
            elif stat.S_ISREG(status.st_mode) and is_shortened(file):
                words = f"The name of a file is lost: it is too long for the link. {_UNLISTED}"
                yield Problem("damaged", place, words, _LOST_NAME, sid=sid)
            else:
                yield _stranger(place)
        for name in folder.dir.names():
            if name not in _OF_A_SESSION:
                yield _stranger(f"sessions/{folder.sid}/{name}")

    def _unproven(self, sid: str, file: str) -> Problem:
        return Problem(
            "damaged",
            f"sessions/{sid}/files/{file}",
            f"Nothing proves the stored bytes of {decode(file)!r}: their line in the journal is "
            "lost, as after a power cut, and no blob has their digest.",
            "The file is deleted: no listing shows it. Save it again.",
            partial(self._remove, sid, file, SessionDir.is_torn),
            sid,
        )

    def _remove(self, sid: str, file: str, is_left: Callable[[SessionDir, str], bool]) -> bool:
        """Remove a stored file if ``is_left(folder, file)`` under the session's lock."""
        with self.folders.changing(sid) as folder:
            if folder is None or not is_left(folder, file):
                return False
            folder.files.unlink(file)
            return True

    def _look_at_file(self, folder: SessionDir, file: str, reference: Reference) -> Bad | None:
        """Return the problem of a file's bytes, None also when it is no longer that version."""
        blob = self.disk.blobs.stat(reference.digest) if self.disk.links else None
        status = folder.files.stat_or_none(file)
        if status is None or folder.token(status) != reference.token:
            return None
        if blob is not None and blob.st_ino == status.st_ino:
            bad = self._bad.get(reference.digest)
            if bad is not None and bad.inode == status.st_ino:
                self._used.add(reference.digest)
                return bad
            return None
        with suppress(FileNotFoundError), folder.files.reading(file) as fd:
            bad = self._problem(fd, reference.digest)
            return bad if folder.token(os.fstat(fd)) == reference.token else None
        return None

    def _damaged_file(self, sid: str, file: str, reference: Reference, bad: Bad) -> Problem:
        place = f"sessions/{sid}/files/{file}"
        words = f"The stored bytes of {reference.name!r} are damaged: {bad.problem}."
        found = partial(Problem, "damaged", place, words, sid=sid, reference=reference)
        if bad.unreadable:
            remedy = "It is left alone: a later read may succeed. Check the health of the disk."
            return found(remedy)
        donor = self._donor(reference.digest, bad)
        if donor is not None:
            repair = partial(self._relink, sid, reference, bad, donor)
            return found("The file is linked to a sound copy of the same content.", repair)
        repair = partial(self._delete, sid, reference, bad)
        remedy = "The file is deleted, because no other copy exists. Save it again."
        return found(remedy, repair, lost=True)

    def _delete(self, sid: str, reference: Reference, bad: Bad) -> bool:
        self.disk.blobs.forget(reference.digest, bad.inode)
        return bool(self.discard(sid, [reference]))

    def _donor(self, digest: str, bad: Bad) -> tuple[str, str] | None:
        """Return (session, stored name) of a sound file; ("", "") if the blob itself is sound."""
        blob = self.disk.blobs.stat(digest)
        if not self.disk.links:
            return None
        if blob is not None and blob.st_ino != bad.inode and digest not in self._bad:
            return "", ""
        if digest not in self._sound:
            self._sound[digest] = next(self._copies(digest), None)
        return self._sound[digest]

    def _copies(self, digest: str) -> Iterator[tuple[str, str]]:
        # This reads every session, so it is called only for damaged content.
        for sid in filter(is_sid, self.disk.sessions.names()):
            with self.folders.reading(sid) as folder:
                for file, reference in folder.references() if folder is not None else ():
                    if reference.digest == digest and folder is not None:
                        with suppress(FileNotFoundError), folder.files.reading(file) as fd:
                            if self._problem(fd, digest) is None:
                                yield sid, file

    def _relink(self, sid: str, reference: Reference, bad: Bad, donor: tuple[str, str]) -> bool:
        """Replace a damaged file by a link to the sound copy, with the same properties."""
        self.disk.blobs.forget(reference.digest, bad.inode)
        file = encode(reference.name)
        with self.folders.changing(sid) as folder:
            if folder is None or not folder.is_version(file, reference):
                return False
            folder.dir.unlink(NEW)
            if not self._link(reference.digest, donor, folder.dir):
                return False
            token = folder.token(folder.dir.stat(NEW))
            folder.note(file, reference._replace(token=token))
            folder.dir.rename(NEW, folder.files, file)
            self.disk.blobs.adopt(folder.files, file, reference.digest)
            folder.settle()
            return True

    def _link(self, digest: str, donor: tuple[str, str], to: Directory) -> bool:
        """Make a link ``NEW`` to the sound copy in ``to``; return False when the copy is gone."""
        sid, file = donor
        with suppress(FileNotFoundError):
            if not sid:
                self.disk.blobs.link(digest, to, NEW)
                return True
            with self.folders.reading(sid) as folder:
                if folder is not None:
                    folder.files.link(file, to, NEW)
                    return True
        return False

    def _finish(self, path: Path) -> bool:
        self.eraser.finish_dead()
        return not path.exists()

    def _strange(self) -> list[str]:
        strange = [name for name in os.listdir(self.disk.root) if name not in OURS | HARMLESS]
        strange += [f"blobs/{name}" for name in self.disk.blobs.strangers()]
        strange += [f"tmp/{name}" for name in self.disk.workspace.strangers()]
        return sorted(strange)


def _stranger(place: str) -> Problem:
    return Problem("unknown", place, f"{place!r} does not belong to the store.", _LEFT_ALONE)
