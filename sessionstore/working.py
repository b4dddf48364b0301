"""Working copies: ordinary local files for code that needs a path.

A copy is private to one version of one file, read-only, and no link to anything stored: whatever
a program does to it (root ignores modes), the stored bytes stay what they are. Copies live in this
process's workspace and go with their file, their session, the store, or, after a kill, with the
next sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from sessionstore.backend import Reference
from sessionstore.content import CHUNK
from sessionstore.copies import Copies, Place
from sessionstore.errors import FileNotStored
from sessionstore.oserrors import translated
from sessionstore.workspace import Workspace

_UNFIT = re.compile(r"[\x00-\x1f\x7f\\:*?\"<>|]")

_LONGEST = 200
"""Bytes of a copy's name: file systems take 255, and an app may put something before it."""


class WorkingCopies:
    """The copies of one store, under ``<directory>/<token>/<session>/<name>/<version>/``.

    With ``size`` it is a cache of at most so many bytes: copies that nobody has asked for in ten
    minutes make room, the least recently used first, and are made again when they are wanted.
    """

    def __init__(
        self,
        directory: Path | None = None,
        size: int | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """``directory`` is shared by all processes; None: one in the system's temporary folder.

        Nothing is made before the first copy.
        """
        self._directory = directory
        self._made: Workspace | None = None
        self._lock = threading.Lock()
        self._copies = Copies(size, seconds)
        self._secret = secrets.token_bytes(16)

    @property
    def directory(self) -> Path:
        """Where the copies of all processes are."""
        return self._workspace.parent

    @property
    def size(self) -> int | None:
        """How many bytes of copies are kept; None: no limit."""
        return self._copies.cap

    @property
    def _workspace(self) -> Workspace:
        with self._lock:
            if self._made is None:
                self._made = Workspace(self._directory or _own_temporary())
            return self._made

    def path(
        self,
        sid: str,
        reference: Reference,
        stream: Callable[[], BinaryIO],
        check: Callable[[], None] = lambda: None,
    ) -> Path:
        """The copy of a version, made from ``stream()`` when there is none.

        ``check()`` is asked, at most every two seconds, and raises when the version is no longer
        the file. Raises LimitExceeded when the disk is full, BackendUnavailable when it refuses.
        """
        with self._translated(f"make a local copy of {reference.name!r}"):
            place = self._place(sid, reference)
            folder = self._folder(place)
            path = folder / fit(reference.name)
            if not self._copies.use(place):
                self._check(place, folder, check)
            if not path.exists():
                self._remove(self._copies.over(reference.size))
                try:
                    self._make(folder, path, stream)
                except FileNotStored:
                    raise
                except FileNotFoundError:  # the folder was cleared away in between
                    self._make(folder, path, stream)
                self._copies.made(place, reference.size)
            return path

    @contextlib.contextmanager
    def pinned(
        self,
        sid: str,
        reference: Reference,
        stream: Callable[[], BinaryIO],
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Path]:
        """``path``, kept from being evicted inside the block."""
        place = self._place(sid, reference)
        path = self.path(sid, reference, stream, check)
        with self._copies.pinned(place):
            yield path

    def _place(self, sid: str, reference: Reference) -> Place:
        return Place(sid, self._blind(reference.name), self._blind(reference.token))

    def _folder(self, place: Place) -> Path:
        return self._workspace.path / self._blind(place.sid) / place.name / place.version

    def _blind(self, text: str) -> str:
        """A folder's name that nobody can work out: an app may serve copies to who knows a path."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:20]

    def _check(self, place: Place, folder: Path, check: Callable[[], None]) -> None:
        try:
            check()
        except FileNotStored:
            self._copies.drop(place)
            self._clear(folder)
            raise
        self._copies.checked(place)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private empty directory, gone after the block, or with the next sweep after a kill.

        Raises as ``path`` does.
        """
        with self._translated("make a local directory"):
            parent = self._workspace.path
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = tempfile.TemporaryDirectory(prefix="directory-", dir=parent)
        with made as path:
            yield Path(path)

    def _translated(self, what: str) -> translated:
        where = str(self._directory or "the temporary folder")
        return translated(what, where, "cache_dir")

    def _make(self, folder: Path, path: Path, stream: Callable[[], BinaryIO]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder.parent / f"{secrets.token_hex(8)}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            with open(fd, "wb") as to, stream() as source:
                shutil.copyfileobj(source, to, CHUNK)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            self._prune(folder)
            raise

    def forget_file(self, sid: str, name: str) -> None:
        """Remove the copies of a file that is gone."""
        if self._copies.forget(sid, self._blind(name)):
            self._clear(self._folder(Place(sid, self._blind(name), "")))

    def forget_session(self, sid: str) -> None:
        """Remove the copies of a session that is gone."""
        if self._copies.forget(sid):
            shutil.rmtree(self._workspace.path / self._blind(sid), ignore_errors=True)

    def sweep(self, files: Callable[[str], Iterable[Reference]]) -> None:
        """Remove copies of what other processes deleted, and those of dead processes."""
        try:
            workspace = self._workspace
        except OSError:  # no temporary folder, so no copies either
            return
        with self._translated("clear old local copies"), workspace.dead():
            pass  # they are erased when the block is left
        for sid in self._copies.sessions():
            # The copies are listed before the files: one made meanwhile is not taken for dead.
            copies = self._copies.of(sid)
            live = {self._place(sid, it) for it in files(sid)}
            self._remove([it for it in copies if it not in live])

    def _remove(self, places: Iterable[Place]) -> None:
        for place in places:
            self._copies.drop(place)
            self._clear(self._folder(place))

    def _clear(self, folder: Path) -> None:
        """Remove a folder with everything in it, and the folders above it that are empty then."""
        shutil.rmtree(folder, ignore_errors=True)
        self._prune(folder.parent)

    def _prune(self, folder: Path) -> None:
        """Remove the folder if it is empty, and so on upwards, but never the workspace itself."""
        with contextlib.suppress(OSError):  # another version, or another file, is still there
            while self._workspace.path in folder.parents:
                folder.rmdir()
                folder = folder.parent

    def close(self) -> None:
        """Remove every copy of this process."""
        self._copies.clear()
        with self._lock:
            made = self._made
        if made is not None:
            made.close()


def _own_temporary() -> Path:
    """A folder that all processes of this user share, and nobody else has prepared for us."""
    uid = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"sessionstore-{uid}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    there = path.stat(follow_symlinks=False)
    mine = not hasattr(os, "getuid") or (there.st_uid == uid and not there.st_mode & 0o077)
    if stat.S_ISDIR(there.st_mode) and mine:
        return path
    return Path(tempfile.mkdtemp(prefix="sessionstore-"))


def fit(name: str) -> str:
    """A name any file system takes, with the extension: programs go by it."""
    base = _UNFIT.sub("_", name.rpartition("/")[2]).strip(". ") or "file"
    stem, dot, extension = base.rpartition(".")
    while len(base.encode()) > _LONGEST:
        stem = stem[: len(stem) * 9 // 10]
        base = f"{stem}{dot}{extension}" if stem else extension[:50]
    return base
