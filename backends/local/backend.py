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
from typing import BinaryIO, ClassVar, NoReturn, Self

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

from . import session_dir
from .blobs import Blobs
from .dir_pool import SessionDirPool
from .directory import Directory
from .eraser import Eraser
from .inspect import Inspector
from .layout import NO_LINKS, keep_secret, open_root
from .lookup import Tables
from .save import Disk, Save
from .save_lock import SaveLock
from .session_dir import NEW, Rules, SessionDir, token_of, token_of_copy
from .spool import LocalSpool, can_be_unfinished, can_be_unnamed

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, *((errno.EACCES,) if os.name == "nt" else ()))
"""The errors of renaming a folder onto another one: those of rename(2), and the one of Windows."""

_AT_ONCE = 64
"""Files to delete before the session's lock is released for other callers: some ms of work."""
_TURN = 0.001
"""Seconds without the lock after that. The lock is not fair: a caller who takes it again at once
gets it before those who wait."""


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
        self._root = root
        self._where = str(root)
        self._clock = clock
        self._durable = durable
        self._workspace = Workspace(root / "tmp")
        self._open = True
        with translated("open the store", str(root)), contextlib.ExitStack() as opened:
            opened.callback(self._workspace.close)
            self.digest = open_root(root, digest, self._workspace)
            self._sessions = opened.enter_context(Directory(str(root / "sessions")))
            blobs = opened.enter_context(Directory(str(root / "blobs")))
            self._claim()
            self._links = _can_link(root / "layout", self._workspace.name_to_try())
            opened.pop_all()
        self._blobs = Blobs(blobs, durable=durable)
        self._token = token_of if self._links else token_of_copy
        self._abilities: Disk | None = None
        rules = Rules(self._token, self.digest, self._blobs.stat, durable, Tables())
        self._folders = SessionDirPool(self._sessions, rules)
        self._turns = SaveLock()
        self._eraser = Eraser(self._workspace, self._blobs, rules)
        if not self._links:
            warnings.warn(
                f"The file system of {root} has no hard links: every file is a copy of its own, "
                "without deduplication.",
                RuntimeWarning,
                stacklevel=5,
            )

    @classmethod
    def examine(cls, location: Location, options: Mapping[str, object]) -> Iterator[Check]:
        """Implement ``doctor.Examinable.examine``."""
        from . import doctor as _local_doctor

        yield from _local_doctor.examine(Path(location.path))

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        digest = options.get("digest")
        return cls(
            Path(location.path),
            None if digest is None else str(digest),
            clock,
            durable=bool(options.get("durable", False)),
        )

    def _claim(self) -> bool:
        """Create this process's workspace; return False when the disk has no room for it.

        Other processes see by the workspace that this one uses the store.
        """
        try:
            return self._workspace.path.is_dir()
        except OSError as error:
            if error.errno not in FULL:
                raise
            return False

    @property
    def _disk(self) -> Disk:
        """Return the abilities of the disk. The first save tries them, since that takes room."""
        if self._abilities is None:
            with self._does("make a new file"), self._work() as work:
                unnamed = self._links and can_be_unnamed(work)
                self._abilities = Disk(
                    self._blobs, self._work, self._new_spool, durable=self._durable,
                    links=self._links, unnamed=unnamed,
                    in_place=unnamed and not self._durable and can_be_unfinished(work),
                )  # fmt: skip
        return self._abilities

    def now(self) -> datetime:
        return self._clock.now()

    def spool(self) -> LocalSpool:
        with self._does("make a new file"):
            return self._new_spool()

    def _new_spool(self) -> LocalSpool:
        self._workspace.path  # noqa: B018 - creates the workspace: it shows that a fork is working
        if self._disk.unnamed:
            return LocalSpool.unnamed(self._sessions, self._where)
        work = self._work()
        try:
            return LocalSpool.named(work, self._where)
        except BaseException:
            work.close()
            raise

    # Saving

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
    ) -> Saved:
        small = self._disk.is_small(content)
        save = Save(self._disk, content, name, encode(name), expires, fresh, small)
        if small:
            return self._turns.run(self._put, key, save)
        return self._put(key, save)

    def restore(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        created: datetime,
        expires: datetime | None = None,
    ) -> Saved:
        small = self._disk.is_small(content)
        return self._put(
            key,
            Save(self._disk, content, name, encode(name), expires, False, small, created),  # noqa: FBT003 - the field ``fresh``
        )

    def _put(self, key: SessionKey, save: Save) -> Saved:
        if not self._open:
            self._refuse(f"save {save.name!r}")
        try:
            self._workspace.path  # noqa: B018 - creates it: it shows that a fork is working
            with self._blobs.at(save.content.digest) as blob:
                known = blob.stat() if self._disk.links else None
                if known is None and not save.small:
                    save.spool()
                while True:
                    with self._folders.changing(
                        key.sid, make=partial(self._make, key, save)
                    ) as folder:
                        assert folder is not None, "_make made it"  # noqa: S101 - for mypy
                        folder.belongs_to(key, self._work)
                        saved = save.run(folder, blob, known, self._clock.now())
                    if saved is not None:
                        return saved
                    # The blob was there a moment ago. Now it is gone or cannot be used, so write
                    # the bytes.
                    save.spool()
                    known = blob.stat()
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
            fd = self._open_version(sid, reference)
            stream = _Stored(fd, self._where)
        if start == 0 and (length is None or length >= reference.size):
            return verified(stream, reference, self.digest)
        stream.seek(start)
        left = max(reference.size - start, 0)
        return limited(stream, left if length is None else min(length, left), reference)

    def _open_version(self, sid: str, reference: Reference) -> int:
        """Open the file of ``reference`` and return its descriptor.

        Raises FileNotStored when the file is no longer that version.
        """
        with self._folders.reading(sid) as folder:
            if folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    fd = folder.files.open(encode(reference.name), os.O_RDONLY)
                    if self._token(os.fstat(fd)) == reference.token:
                        return fd
                    os.close(fd)
        raise FileNotStored(reference.name)

    def files(self, sid: str) -> Iterator[Reference]:
        with self._does("list the files of a session"), self._folders.reading(sid) as folder:
            if folder is not None:
                for _, reference in folder.references():
                    yield reference

    # Deleting

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        files = [encode(name) for name in names]
        deleted: list[Reference] = []
        with self._does("delete files"):
            # In parts, so that others wait for the lock only during one part of a large deletion.
            for start in range(0, len(files), _AT_ONCE):
                if start:
                    time.sleep(_TURN)
                with self._folders.changing(sid) as folder:
                    if folder is None:
                        break
                    deleted += self._deleted(folder, files[start : start + _AT_ONCE])
        return deleted

    def _deleted(self, folder: SessionDir, files: list[str]) -> Iterator[Reference]:
        for file in files:
            reference = folder.find(file)
            self._remove(folder, file, reference)
            if reference is not None:
                yield reference
        folder.settle()

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        with self._does("delete files"), self._folders.changing(sid) as folder:
            if folder is None:
                return []
            deleted: list[Reference] = []
            for reference in references:
                file = encode(reference.name)
                _, current = folder.described(file)  # also finds a file that a power cut tore
                if current == reference:
                    self._remove(folder, file, current)
                    deleted.append(reference)
            # The removals are forced first. A power cut before ``tighten`` then leaves bounds that
            # still hold for the files that are left.
            folder.settle()
            folder.tighten(self.now())
            return deleted

    def _remove(self, folder: SessionDir, file: str, reference: Reference | None) -> None:
        if reference is None:
            folder.files.unlink(file)
            return
        with self._blobs.releasing(reference):
            folder.files.unlink(file)

    # Sessions

    def sessions(self) -> Iterator[SessionRecord]:
        with self._does("list the sessions"):
            for sid in self._sessions.names():
                record = self._record(sid)
                if record is not None:
                    yield record

    def session(self, sid: str) -> SessionRecord | None:
        with self._does("look up a session"):
            return self._record(sid)

    def _record(self, sid: str) -> SessionRecord | None:
        if not is_sid(sid):
            return None
        try:
            return session_dir.record(self._sessions, sid)
        except NotADirectoryError:
            return None

    def identify(self, sid: str) -> SessionKey | None:
        with self._does("look up a session"), self._folders.reading(sid) as folder:
            return None if folder is None else folder.identify()

    def touch(self, sid: str) -> None:
        with self._does("touch a session"), self._folders.changing(sid) as folder:
            if folder is not None:
                folder.active(self.now())
                folder.settle()

    def end(self, sid: str) -> None:
        with self._does("end a session"), self._folders.changing(sid) as folder:
            if folder is not None:
                folder.mark("ended", self.now())

    def resume(self, sid: str) -> None:
        with self._does("resume a session"), self._folders.changing(sid) as folder:
            if folder is not None:
                folder.active(self.now())
                folder.settle()
                folder.unmark("ended")

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
                self._sessions.rename(sid, work, name)
                if self._durable:  # before the removals: after a power cut it is whole or gone
                    self._sessions.fsync()
            self._folders.close(sid)
            return self._eraser.erase(work, name)

    # Garbage collection

    def collect(self, *, force: bool = False) -> Collected:
        with self._does("collect garbage"):
            leftovers = self._eraser.finish_own()
            leftovers += self._eraser.finish_dead(self._remove_left)
            blobs, size = self._blobs.collect()
        return Collected(blobs, size, leftovers)

    def _remove_left(self) -> int:
        """Remove the files that dead processes left unfinished and those that a power cut tore.

        This looks at every file and every journal. Return the number of files removed.
        """
        count = 0
        for sid in filter(is_sid, list(self._sessions.names())):
            with self._folders.reading(sid) as folder:
                left = folder is not None and folder.has_left()
            if left:
                with self._folders.changing(sid, wait=False) as folder:
                    count += 0 if folder is None else self._remove_torn(folder)
        return count

    def _remove_torn(self, folder: SessionDir) -> int:
        left = [*folder.unfinished(), *folder.torn()]
        for file in left:
            self._remove(folder, file, folder.described(file)[1])
        folder.dir.unlink(NEW)
        return len(left)

    def stored(self) -> Stored:
        with self._does("measure the store"):
            if self._links:
                return self._blobs.stored()
            references = [
                reference
                for record in list(self.sessions())
                for reference in self.files(record.sid)
            ]
            return Stored(len(references), sum(reference.size for reference in references))

    def inspect(self) -> Iterator[Problem]:
        with self._does("inspect the store"), self._inspector() as inspector:
            for problem in inspector.problems():
                yield replace(problem, repair=partial(self._repair, problem))

    def omitted(self, *, files: bool = True) -> Iterator[Problem]:
        with self._does("look for unlisted files"), self._inspector() as inspector:
            yield from inspector.omitted(files=files)

    @contextlib.contextmanager
    def _inspector(self) -> Iterator[Inspector]:
        with Directory(str(self._root)) as root:
            yield Inspector(
                root, self._sessions, self._blobs, self._eraser, self._workspace, self.digest,
                self._folders.reading, self._folders.changing, self.discard, links=self._links,
            )  # fmt: skip

    def _repair(self, problem: Problem) -> bool:
        with self._does(f"repair {problem.place}"):
            return problem.repair()

    # The store as a whole

    def free(self) -> int:
        with self._does("read the free space"):
            return shutil.disk_usage(self._root).free

    def alone(self) -> bool:
        with self._does("look for other processes"):
            return self._claim() and self._workspace.alone()

    def secret(self) -> bytes:
        with self._does("keep the secret"):
            return keep_secret(self._root, self._workspace)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._workspace.close()
            self._folders.close()
            self._sessions.close()
            self._blobs.close()

    # Helpers

    def _does(self, action: str) -> contextlib.AbstractContextManager[None]:
        """Translate OSErrors of a block; ``action`` completes "Could not ...".

        Raises BackendUnavailable when the store is closed.
        """
        if not self._open:
            self._refuse(action)
        return translated(action, self._where)

    def _refuse(self, action: str) -> NoReturn:
        raise BackendUnavailable(errno.EBADF, f"Could not {action}: the store is closed.")

    def _work(self) -> Directory:
        """Open this process's workspace."""
        return Directory(str(self._workspace.path))

    def _make(self, key: SessionKey, save: Save) -> bool:
        """Create the session of ``key`` for ``save``; return False if another process just did."""
        with self._work() as work:
            name = secrets.token_hex(8)
            try:
                session_dir.make(work, name, key, self.now())
                work.rename(name, self._sessions, key.sid)
            except OSError as error:
                shutil.rmtree(os.path.join(work.path, name), ignore_errors=True)
                if error.errno not in _TAKEN:
                    raise
                return False
        save.made = True
        return True

    def _unmake(self, sid: str) -> None:
        """Remove the session ``sid``, created for a save that failed, unless it has a file now."""
        with contextlib.suppress(OSError), self._eraser.taking() as (work, name):
            with self._folders.changing(sid, wait=False) as folder:
                if folder is None or next(folder.files.names(), None) is not None:
                    return
                self._sessions.rename(sid, work, name)
            self._folders.close(sid)
            self._eraser.erase(work, name)


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
