"""Working copies: ordinary local files for code that needs a path.

A copy is private to one version of one file, read-only, and never a link to a stored file: changes
to a copy (root ignores modes) cannot change the stored bytes. Copies are in this process's
workspace. They are removed with their file, their session or the store; after a kill, by the next
sweep.
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
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sessionstore._os.errors import translated
from sessionstore._os.workspace import Workspace
from sessionstore.content import CHUNK
from sessionstore.errors import FileNotStored
from sessionstore.model import Reference

_UNFIT = re.compile(r"[\x00-\x1f\x7f\\:*?\"<>|]")

_LONGEST = 200  # bytes of a name: file systems take 255, an app may put something before it

HELD = 600.0  # seconds that a copy stays after ``local_path`` returned it, even above the cap
RECHECK = 2.0  # seconds that a check that a file still exists is trusted
_SLACK = 0.9  # of the cap: so much an eviction leaves, so that not every new copy needs one


class CopyKey(NamedTuple):
    """One copy: session, and folders of name and version."""

    sid: str
    name: str
    version: str


@dataclass(slots=True)
class _Copy:
    size: int
    used: float
    checked: float
    pins: int = 0


class LocalCopies:
    """The copies of one store, under ``<directory>/<token>/<session>/<name>/<version>/``.

    With ``size`` it is a cache of at most ``size`` bytes: copies that were not used for ten minutes
    are evicted, the least recently used first, and made again at the next use.
    """

    def __init__(
        self,
        directory: Path | None = None,
        size: int | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Configure the copies; nothing is created before the first copy.

        ``directory`` is shared by all processes; None: one in the system's temporary folder.
        """
        self._directory = directory
        self._cap = size
        self._seconds = seconds
        self._made: Workspace | None = None
        self._lock = threading.Lock()
        self._copies: dict[str, dict[CopyKey, _Copy]] = {}
        """By session."""
        self._total = 0
        self._secret = secrets.token_bytes(16)

    @property
    def directory(self) -> Path:
        return self._workspace.parent

    @property
    def size(self) -> int | None:
        """Return the maximum size of the copies in bytes; None: no limit."""
        return self._cap

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
        """Return the copy of a version. A missing copy is made from ``stream()``.

        ``check()`` is called at most every two seconds, and raises if the version is no longer
        current. Raises LimitExceeded if the disk is full, BackendUnavailable for its other errors.
        """
        with self._translated(f"make a local copy of {reference.name!r}"):
            place = self._place(sid, reference)
            folder = self._folder(place)
            path = folder / fit(reference.name)
            if not self._use(place):
                self._check(place, check)
            if not path.exists():
                self._remove(self._evicted(reference.size))
                try:
                    self._make(folder, path, stream)
                except FileNotStored:
                    raise
                except FileNotFoundError:  # another thread removed the folder in between
                    self._make(folder, path, stream)
                with self._lock:
                    self._forget(place)
                    now = self._seconds()
                    self._copies.setdefault(sid, {})[place] = _Copy(reference.size, now, now)
                    self._total += reference.size
            return path

    @contextlib.contextmanager
    def pinned(
        self, sid: str, reference: Reference, stream: Callable[[], BinaryIO]
    ) -> Iterator[Path]:
        """Yield the copy of ``path``, and do not evict it inside the block."""
        path = self.path(sid, reference, stream)
        place = self._place(sid, reference)
        self._use(place, pins=1)
        try:
            yield path
        finally:
            self._use(place, pins=-1)

    def _place(self, sid: str, reference: Reference) -> CopyKey:
        return CopyKey(sid, self._blind(reference.name), self._blind(reference.token))

    def _folder(self, place: CopyKey) -> Path:
        return self._workspace.path / self._blind(place.sid) / place.name / place.version

    def _blind(self, text: str) -> str:
        """Return an unguessable name: an app may serve a copy to anyone who knows its path."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:20]

    def _use(self, place: CopyKey, pins: int = 0) -> bool:
        """Note a use; return whether the file was checked within the last ``RECHECK`` seconds."""
        with self._lock:
            copy = self._copies.get(place.sid, {}).get(place)
            if copy is None:
                return False
            copy.pins += pins
            copy.used = self._seconds()
            return copy.used - copy.checked < RECHECK

    def _check(self, place: CopyKey, check: Callable[[], None]) -> None:
        try:
            check()
        except FileNotStored:
            self._remove([place])
            raise
        with self._lock:
            copy = self._copies.get(place.sid, {}).get(place)
            if copy is not None:
                copy.checked = self._seconds()

    def _evicted(self, coming: int) -> list[CopyKey]:
        """Forget and return the least recently used copies, so that ``coming`` more bytes fit.

        Copies that are pinned, or were used within ``HELD`` seconds, are never evicted, so the
        cache can exceed the cap while all copies are in use.
        """
        with self._lock:
            if self._cap is None or self._total + coming <= self._cap:
                return []
            goal = int(self._cap * _SLACK) - coming
            idle = self._seconds() - HELD
            free = sorted(
                (copy.used, place)
                for copies in self._copies.values()
                for place, copy in copies.items()
                if not copy.pins and copy.used <= idle
            )
            doomed: list[CopyKey] = []
            for _, place in free:
                if self._total <= goal:
                    break
                doomed.append(place)
                self._forget(place)
            return doomed

    def _forget(self, place: CopyKey) -> None:
        copies = self._copies.get(place.sid, {})
        copy = copies.pop(place, None)
        if copy is not None:
            self._total -= copy.size
        if not copies:
            self._copies.pop(place.sid, None)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a private empty directory. It is removed after the block; after a kill, by a sweep.

        Raises the same errors as ``path``.
        """
        with self._translated("make a local directory"):
            parent = self._workspace.path
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = tempfile.TemporaryDirectory(prefix="directory-", dir=parent)
        with made as path:
            yield Path(path)

    def _translated(self, action: str) -> translated:
        return translated(action, str(self._directory or "the temporary folder"), "cache_dir")

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
        blind = self._blind(name)
        self._remove([place for place in self._of(sid) if place.name == blind])

    def forget_session(self, sid: str) -> None:
        self._remove(self._of(sid))

    def holders(self) -> list[str]:
        """Return the sessions with copies."""
        return list(self._copies)

    def sweep(
        self, files: Callable[[str], Iterable[Reference]], absent: Iterable[str] = ()
    ) -> None:
        """Remove copies of files that other processes deleted, and the copies of dead processes.

        ``absent`` are sessions with copies that do not exist any more.
        """
        for sid in absent:
            self.forget_session(sid)
        try:
            workspace = self._workspace
        except OSError:  # no temporary folder, so no copies either
            return
        with self._translated("clear old local copies"):
            workspace.renew()  # before other processes take it for a dead one's
            with workspace.dead():
                pass  # the end of the block erases them
        for sid in list(self._copies):
            # List the copies before the files: a copy made in between must not count as dead.
            copies = self._of(sid)
            live = {self._place(sid, reference) for reference in files(sid)}
            self._remove([place for place in copies if place not in live])

    def _of(self, sid: str) -> list[CopyKey]:
        return list(self._copies.get(sid, ()))

    def _remove(self, places: Iterable[CopyKey]) -> None:
        """Remove copies, and each folder above them that is then empty."""
        for place in places:
            with self._lock:
                self._forget(place)
            folder = self._folder(place)
            shutil.rmtree(folder, ignore_errors=True)
            self._prune(folder.parent)

    def _prune(self, folder: Path) -> None:
        """Remove the folder if it is empty, and so on upwards, but never the workspace itself."""
        with contextlib.suppress(OSError):  # another version, or another file, is still there
            while self._workspace.path in folder.parents:
                folder.rmdir()
                folder = folder.parent

    def close(self) -> None:
        with self._lock:
            self._copies.clear()
            self._total = 0
            made = self._made
        if made is not None:
            made.close()


def _own_temporary() -> Path:
    """Return a folder that the processes of this user share and that no other user prepared."""
    uid = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"sessionstore-{uid}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.stat(follow_symlinks=False)
    mine = not hasattr(os, "getuid") or (status.st_uid == uid and not status.st_mode & 0o077)
    if stat.S_ISDIR(status.st_mode) and mine:
        return path
    return Path(tempfile.mkdtemp(prefix="sessionstore-"))


def fit(name: str) -> str:
    """Return a name that every file system accepts. The extension stays: programs depend on it."""
    base = _UNFIT.sub("_", name.rpartition("/")[2]).strip(". ") or "file"
    stem, dot, extension = base.rpartition(".")
    while len(base.encode()) > _LONGEST:
        stem = stem[: len(stem) * 9 // 10]
        base = f"{stem}{dot}{extension}" if stem else extension[:50]
    return base
