"""A store in a local directory: a reference is a hard link.

    <root>/layout                      {"version": 1, "digest": "sha256"}
    <root>/blobs/ab/<digest>           a blob, mode 0444
    <root>/sessions/<sid>/             a session (``session_dir``), its files as links to blobs
    <root>/tmp/<token>/                unfinished work of one process (``_os.workspace``)
    <root>/secret                      created on first use

The number of links of a blob (``st_nlink``) is its reference count. No index and no database can
therefore disagree with the disk. A save makes the file's link before the blob's name, and a delete
removes the blob's name before the last link. A blob name without any other link to its inode is
therefore unreferenced, however young it is. docs/architecture.md lists the races and explains why
each is harmless.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, ClassVar, Self, cast

from sessionstore import parsers
from sessionstore._os.errors import FULL, from_os_error, translated
from sessionstore._os.workspace import Workspace
from sessionstore.clock import Clock
from sessionstore.content import DIGESTS, Content, limited, verified
from sessionstore.doctor import Check
from sessionstore.errors import BackendUnavailable, FileNotStored, SessionStoreError
from sessionstore.model import (
    Collected,
    Dropped,
    Location,
    Problem,
    Reference,
    Saved,
    SessionKey,
    SessionRecord,
    Stored,
)
from sessionstore.names import encode, is_sid
from sessionstore.parsers import Parser

from . import journal, session_dir
from .damage import Inspector
from .directory import Blobs, Directory
from .eraser import Eraser
from .layout import NO_LINKS, keep_secret, open_root
from .save import SMALL, LocalSpool, Save, SaveLock, can_be_unfinished, can_be_unnamed
from .session_dir import NEW, Disk, SessionDir, SessionDirPool

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, *((errno.EACCES,) if os.name == "nt" else ()))
"""The errors of renaming a folder onto another one: those of rename(2), and the one of Windows."""

_AT_ONCE = 64
"""Files to delete before the session's lock is released for other callers: some ms of work."""
_TURN = 0.001
"""Seconds without the lock after that: who takes it again at once gets it before those who wait."""


class LocalBackend:
    """Files in a directory of a local (or network) file system, safe for many processes at once.

    Options: ``digest`` (``sha256``, the default, or ``blake3``; fixed when the store is created)
    and ``durable`` (default false: a save does not fsync its file before it returns, so a power cut
    may lose the last seconds of saves, as with any other program).
    """

    options: ClassVar[Mapping[str, Parser]] = {
        "digest": parsers.choice(*DIGESTS),
        "durable": parsers.boolean,
    }

    def __init__(self, root: Path, digest: str | None, clock: Clock, *, durable: bool) -> None:
        self._where = str(root)
        self._clock = clock
        self._workspace = Workspace(root / "tmp")
        self._open = True
        with translated("open the store", str(root)), contextlib.ExitStack() as opened:
            opened.callback(self._workspace.close)
            self.digest: str = open_root(root, digest, self._workspace)
            self._sessions = opened.enter_context(Directory(str(root / "sessions")))
            blobs = opened.enter_context(Directory(str(root / "blobs")))
            self._claim()
            links = _can_link(root / "layout", self._workspace.name_to_try())
            opened.pop_all()
        self._blobs = Blobs(blobs, durable=durable)
        self._disk = Disk(
            str(root), self._workspace, self._sessions, self._blobs, self.digest, durable, links
        )
        self._folders = SessionDirPool(self._disk)
        self._turns = SaveLock()
        self._eraser = Eraser(self._disk)
        if not links:
            warnings.warn(
                f"The file system of {root} has no hard links: every file is a copy of its own, "
                "without deduplication.",
                RuntimeWarning,
                stacklevel=5,
            )

    @classmethod
    def examine(cls, location: Location, options: Mapping[str, object]) -> Iterator[Check]:
        from . import doctor  # seldom needed

        return doctor.examine(Path(location.path))

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        digest = cast("str | None", options.get("digest"))
        durable = bool(options.get("durable", False))
        return cls(Path(location.path), digest, clock, durable=durable)

    def _claim(self) -> bool:
        """Create this process's workspace, which others see; return False without room for it."""
        try:
            return self._workspace.path.is_dir()
        except OSError as error:
            if error.errno not in FULL:
                raise
            return False

    def _prepare(self, action: str) -> None:
        """Create this process's workspace, and try the abilities of the disk: both take room."""
        disk = self._disk
        with self._does(action), Directory(str(disk.workspace.path)) as work:
            if disk.in_place is None:
                disk.unnamed = disk.links and can_be_unnamed(work)
                disk.in_place = disk.unnamed and not disk.durable and can_be_unfinished(work)

    def now(self) -> datetime:
        return self._clock.now()

    def spool(self) -> LocalSpool:
        self._prepare("make a new file")
        with self._does("make a new file"):
            return LocalSpool(self._disk)

    # Saving

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
        created: datetime | None = None,
    ) -> Saved:
        """Implement ``Backend.put``; with ``created`` also ``Restores.restore``."""
        disk = self._disk
        if not self._open or disk.in_place is None or self._workspace.pid != os.getpid():
            self._prepare(f"save {name!r}")
        # The bytes of a small content are written under the lock, while other callers wait.
        small = bool(disk.in_place) and content.data is not None and content.size <= SMALL
        save = Save(disk, content, name, encode(name), expires, fresh, small, created)
        return self._turns.run(self._put, key, save) if small else self._put(key, save)

    restore = put

    def _put(self, key: SessionKey, save: Save) -> Saved:
        blobs, digest = self._blobs, save.content.digest
        try:
            known = blobs.stat(digest) if self._disk.links else None
            if known is None and not save.small:
                save.spool()
            while True:
                make = partial(self._make, key, save)
                with self._folders.changing(key.sid, make=make) as folder:
                    assert folder is not None, "_make made it"  # noqa: S101 - for mypy
                    if not folder.owned:
                        folder.belongs_to(key)
                    saved = save.run(folder, known, self._clock.now())
                if saved is not None:
                    return saved
                # The blob was there a moment ago. Now it is gone or cannot be used, so write the
                # bytes.
                save.spool()
                known = blobs.stat(digest)
        except SessionStoreError:
            raise
        except OSError as error:  # like ``_does``, but without its calls: this path is hot
            if save.made:
                self._unmake(key.sid)
            raise from_os_error(error, f"save {save.name!r}", self._where) from error

    # Reading

    def get(self, sid: str, name: str) -> Reference:
        file = encode(name)
        with self._does(f"look up {name!r}"), self._folders.reading(sid) as folder:
            reference = None if folder is None else folder.find(file)
        if reference is None:
            raise FileNotStored(name)
        return reference

    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        with self._does(f"read {reference.name!r}"):
            stream = _Stored(self._open_version(sid, reference), self._where)
        if start == 0 and (length is None or length >= reference.size):
            return verified(stream, reference, self.digest)
        stream.seek(start)
        left = max(reference.size - start, 0)
        return limited(stream, left if length is None else min(length, left), reference)

    def _open_version(self, sid: str, reference: Reference) -> int:
        """Open the file of ``reference``. Raises FileNotStored when it is another version now."""
        with self._folders.reading(sid) as folder:
            if folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    fd = folder.files.open(encode(reference.name), os.O_RDONLY)
                    if folder.token(os.fstat(fd)) == reference.token:
                        return fd
                    os.close(fd)
        raise FileNotStored(reference.name)

    def files(self, sid: str) -> Iterator[Reference]:
        with self._does("list the files of a session"), self._folders.reading(sid) as folder:
            if folder is not None:
                for _, reference in folder.references():
                    yield reference

    def since(self, sid: str, mark: object) -> tuple[object, list[Reference] | None]:
        with self._does("list the files of a session"), self._folders.reading(sid) as folder:
            if folder is None:
                return None, None
            new, lines = journal.since(folder.dir, mark if isinstance(mark, journal.Mark) else None)
            return new, None if lines is None else [line.reference for line in lines]

    # Deleting

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        return self._delete(sid, [(encode(name), None) for name in names])

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        return self._delete(sid, [(encode(each.name), each) for each in references])

    def _delete(self, sid: str, wanted: list[tuple[str, Reference | None]]) -> list[Reference]:
        """Delete stored files, any version or exactly the given one, in parts of ``_AT_ONCE``."""
        deleted: list[Reference] = []
        with self._does("delete files"):
            for start in range(0, len(wanted), _AT_ONCE):
                if start:
                    time.sleep(_TURN)
                with self._folders.changing(sid) as folder:
                    if folder is None:
                        break
                    version: Reference | None = None
                    for file, version in wanted[start : start + _AT_ONCE]:
                        found = version or folder.find(file)
                        if version is None or folder.is_version(file, version):
                            self._remove(folder, file, found)
                            deleted += [found] if found else []
                    folder.settle()
                    # The removals are forced first. A power cut before ``tighten`` then leaves
                    # bounds that still hold for the files that are left.
                    if version is not None and start + _AT_ONCE >= len(wanted):
                        folder.tighten(self.now())
        return deleted

    def _remove(self, folder: SessionDir, file: str, reference: Reference | None) -> None:
        with self._blobs.releasing(reference) if reference else contextlib.nullcontext():
            folder.files.unlink(file)

    # Sessions

    def sessions(self) -> Iterator[SessionRecord]:
        with self._does("list the sessions"):
            yield from filter(None, map(self._record, self._sessions.names()))

    def session(self, sid: str) -> SessionRecord | None:
        with self._does("look up a session"):
            return self._record(sid)

    def _record(self, sid: str) -> SessionRecord | None:
        with contextlib.suppress(NotADirectoryError):
            return session_dir.record(self._sessions, sid) if is_sid(sid) else None
        return None

    def identify(self, sid: str) -> SessionKey | None:
        with self._does("look up a session"), self._folders.reading(sid) as folder:
            return None if folder is None else folder.identify()

    def touch(self, sid: str) -> None:
        with self._does("touch a session"), self._folders.changing(sid) as folder:
            if folder is not None:
                folder.active(self.now())
                folder.settle()

    def end(self, sid: str) -> SessionRecord | None:
        with self._does("end a session"), self._folders.changing(sid) as folder:
            if folder is None:
                return None
            folder.mark("ended", self.now())
            return self._record(sid)

    def resume(self, sid: str) -> bool:
        with self._does("resume a session"), self._folders.changing(sid) as folder:
            if folder is None:
                return False
            folder.active(self.now())
            folder.settle()
            folder.unmark("ended")
            return True

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        with self._does("drop a session"), self._eraser.taking() as (work, name):
            with self._folders.changing(sid, wait=unless_active_after is None) as folder:
                record = None if folder is None else self._record(sid)
                if record is None or (unless_active_after and record.active > unless_active_after):
                    return None
                if only_ended and record.ended is None:
                    return None
                assert folder is not None, "it has a record"  # noqa: S101 - for mypy
                folder.move(work, name)
                if self._disk.durable:  # before the removals: after a power cut it is whole or gone
                    self._sessions.fsync()
            return self._eraser.erase(work, name, folder)

    # Garbage collection

    def collect(self, *, force: bool = False) -> Collected:
        with self._does("collect garbage"):
            leftovers = self._eraser.finish_own()
            leftovers += self._eraser.finish_dead(self._remove_left)
            blobs, size = self._blobs.collect()
        return Collected(blobs, size, leftovers)

    def _remove_left(self) -> int:
        """Remove the files that dead processes or a power cut left; return their number.

        This looks at every file and every journal.
        """
        count = 0
        for sid in filter(is_sid, list(self._sessions.names())):
            with self._folders.reading(sid) as folder:
                if folder is None or not (folder.dir.has(NEW) or folder.left()):
                    continue
            with self._folders.changing(sid, wait=False) as folder:
                if folder is None:
                    continue
                for file in folder.left():
                    self._remove(folder, file, folder.described(file)[1])
                    count += 1
                folder.dir.unlink(NEW)
        return count

    def stored(self) -> Stored:
        with self._does("measure the store"):
            sizes = (status.st_size for _, status in self._blobs.everything())
            if not self._disk.links:
                sids = [record.sid for record in self.sessions()]
                sizes = (reference.size for sid in sids for reference in self.files(sid))
            blobs = total = 0
            for size in sizes:
                blobs, total = blobs + 1, total + size
            return Stored(blobs, total)

    def _inspector(self) -> Inspector:
        return Inspector(self._disk, self._folders, self._eraser, self.discard)

    def inspect(self) -> Iterator[Problem]:
        with self._does("inspect the store"):
            for problem in self._inspector().problems():
                yield replace(problem, repair=partial(self._repair, problem))

    def omitted(self, *, files: bool = True) -> Iterator[Problem]:
        with self._does("look for unlisted files"):
            yield from self._inspector().omitted(files=files)

    def _repair(self, problem: Problem) -> bool:
        with self._does(f"repair {problem.place}"):
            return problem.repair()

    # The store as a whole

    def free(self) -> int:
        with self._does("read the free space"):
            return shutil.disk_usage(self._where).free

    def alone(self) -> bool:
        with self._does("look for other processes"):
            return self._claim() and self._workspace.alone()

    def lease(self) -> bytes | None:
        with self._does("read which process sweeps"), contextlib.suppress(FileNotFoundError):
            note = Path(self._where, "sweeper").read_bytes()
            return None if self.alone() else note  # the process that wrote it has ended
        return None

    def write_lease(self, note: bytes) -> None:
        # In place: a reader that gets half of it sweeps once more.
        with self._does("note which process sweeps"):
            self._claim()  # so that no other process believes that it is alone
            path = Path(self._where, "sweeper")
            path.write_bytes(note)

    def secret(self) -> bytes:
        with self._does("keep the secret"):
            return keep_secret(Path(self._where), self._workspace)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._workspace.close()
            self._folders.end()
            self._sessions.close()
            self._blobs.close()

    # Helpers

    def _does(self, action: str) -> contextlib.AbstractContextManager[None]:
        """Translate OSErrors of a block; ``action`` completes "Could not ...".

        Raises BackendUnavailable when the store is closed.
        """
        if not self._open:
            raise BackendUnavailable(errno.EBADF, f"Could not {action}: the store is closed.")
        return translated(action, self._where)

    def _make(self, key: SessionKey, save: Save) -> SessionDir | None:
        """Create the session of ``key`` for ``save``, as ``SessionDirPool.changing`` describes."""
        work, name = self._disk.work(), secrets.token_hex(8)
        folder: SessionDir | None = None
        try:
            folder = session_dir.make(work, name, key, self.now(), self._disk)
            work.rename(name, self._sessions, key.sid)
        except OSError as error:
            if folder is not None:
                folder.close()
            shutil.rmtree(os.path.join(work.path, name), ignore_errors=True)
            if error.errno not in _TAKEN:
                raise
            return None
        save.made = True
        return folder

    def _unmake(self, sid: str) -> None:
        """Remove the session ``sid``, created for a save that failed, unless it has a file now."""
        with contextlib.suppress(OSError), self._eraser.taking() as (work, name):
            with self._folders.changing(sid, wait=False) as folder:
                if folder is None or next(folder.files.names(), None) is not None:
                    return
                folder.move(work, name)
            self._eraser.erase(work, name, folder)


class _Stored(io.FileIO):
    """An open stored file. Its OSErrors while reading become errors of our own tree."""

    def __init__(self, fd: int, root: str) -> None:
        super().__init__(fd, "rb")
        self._root = root

    def read(self, size: int | None = -1, /) -> bytes:
        with translated("read a file", self._root):
            return super().read(-1 if size is None else size)


def _can_link(file: Path, other: Path) -> bool:
    """Return whether the file system has hard links, by linking ``file`` to ``other``.

    ``file`` exists already, so that the test needs no new file on a full disk.
    """
    try:
        os.link(file, other)
    except OSError as error:
        if error.errno not in (*NO_LINKS, *FULL):
            raise
        return error.errno in FULL  # the disk has links: it only lacks the room for another name
    finally:
        other.unlink(missing_ok=True)
    return True
