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
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from sessionstore._os.errors import translated
from sessionstore._os.workspace import Workspace
from sessionstore.content import CHUNK
from sessionstore.errors import FileNotStored, LimitExceeded
from sessionstore.model import Reference, SessionKey
from sessionstore.parsers import show_size

_UNFIT = re.compile(r"[\x00-\x1f\x7f\\:*?\"<>|]")

_LONGEST = 200  # bytes of a name: file systems take 255, an app may put something before it

RECHECK = 2.0  # seconds that a check that a file still exists is trusted
_SLACK = 0.9  # of the cap: so much an eviction leaves, so that not every new copy needs one

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # the class of this system's paths; ``Path`` has subclasses from 3.12 on


class CopyPath(_Path):
    """The path of a copy, which is not evicted while this object is in use."""

    __slots__ = ("__weakref__",)


class CopyKey(NamedTuple):
    """One copy: session, and folders of name and version."""

    sid: str
    name: str
    version: str


class Listed(NamedTuple):
    """The ``tokens`` of the files of some sessions, listed ``at`` that ``moment()`` or later."""

    tokens: Mapping[str, Collection[str]]
    at: float


@dataclass(slots=True)
class _Copy:
    size: int
    checked: float
    path: weakref.ref[CopyPath] | None = None
    """The path that was returned, for as long as the caller has it."""

    @property
    def is_in_use(self) -> bool:
        return self.path is not None and self.path() is not None


class LocalCopies:
    """The copies of one store, under ``<directory>/<token>/<session>/<name>/<version>/``.

    With ``size`` it is a cache of at most ``size`` bytes: the least recently used copies are
    evicted, and made again at the next use. A copy is in use while the path that was returned is.
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
        self._copies: OrderedDict[CopyKey, _Copy] = OrderedDict()
        """The least recently used first."""
        self._sessions: dict[str, set[CopyKey]] = {}
        self._total = 0
        """The bytes of the copies, and of those that are being made."""
        self._making: weakref.WeakValueDictionary[CopyKey, threading.Lock] = (
            weakref.WeakValueDictionary()
        )
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
        """Return the copy of a version. A missing copy is made from ``stream()``, by one caller.

        ``check()`` is called for an existing copy, at most every two seconds, and raises if the
        version is no longer current; so does ``stream()``. Raises LimitExceeded if the disk is full
        or the copies in use leave no room, BackendUnavailable for the disk's other errors.
        """
        place = self._place(sid, reference)
        with self._lock:
            making = self._making.setdefault(place, threading.Lock())
        with making, self._translated(f"make a local copy of {reference.name!r}"):
            path = self._folder(place) / fit(reference.name)
            if not path.exists():
                self._add(place, path, reference, stream)
            elif not self._is_checked(place):
                self._check(place, check)
            return self._returned(place, path)

    def _add(
        self, place: CopyKey, path: Path, reference: Reference, stream: Callable[[], BinaryIO]
    ) -> None:
        self._make_room(reference)
        try:
            try:
                self._make(path, stream)
            except FileNotStored:
                raise
            except FileNotFoundError:  # another thread removed the folder in between
                self._make(path, stream)
        except BaseException:
            with self._lock:
                self._total -= reference.size
            raise
        with self._lock:
            self._forget(place)  # of one that another program removed
            self._copies[place] = _Copy(reference.size, self._seconds())
            self._sessions.setdefault(place.sid, set()).add(place)

    def _returned(self, place: CopyKey, path: Path) -> Path:
        with self._lock:
            copy = self._copies.get(place)
            if copy is None:  # forgotten in between
                return path
            self._copies.move_to_end(place)
            returned = None if copy.path is None else copy.path()
            if returned is None:
                returned = CopyPath(path)
                copy.path = weakref.ref(returned)
            return returned

    def returned(self, path: Path, key: SessionKey, reference: Reference) -> None:
        """Note for which file a path is returned, in a subclass."""

    def _place(self, sid: str, reference: Reference) -> CopyKey:
        return CopyKey(sid, self._blind(reference.name), self._blind(reference.token))

    def _folder(self, place: CopyKey) -> Path:
        return self._workspace.path / self._blind(place.sid) / place.name / place.version

    def _blind(self, text: str) -> str:
        """Return an unguessable name: an app may serve a copy to anyone who knows its path."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:20]

    def _is_checked(self, place: CopyKey) -> bool:
        with self._lock:
            copy = self._copies.get(place)
            return copy is not None and self._seconds() - copy.checked < RECHECK

    def _check(self, place: CopyKey, check: Callable[[], None]) -> None:
        try:
            check()
        except FileNotStored:
            self._remove([place])
            raise
        with self._lock:
            if (copy := self._copies.get(place)) is not None:
                copy.checked = self._seconds()

    def _make_room(self, coming: Reference) -> None:
        """Reserve the bytes of a copy; evict the least recently used ones if they do not fit.

        Raises LimitExceeded if those in use leave no room.
        """
        doomed: list[CopyKey] = []
        with self._lock:
            fits = self._cap is None or self._total + coming.size <= self._cap
            goal = self._total if self._cap is None else int(self._cap * _SLACK)
            for _ in range(0 if fits else len(self._copies)):
                if self._total + coming.size <= goal:
                    break
                place, copy = next(iter(self._copies.items()))
                if copy.is_in_use:
                    self._copies.move_to_end(place)
                else:
                    doomed.append(place)
                    self._forget(place)
            full = self._cap is not None and self._total + coming.size > self._cap
            self._total += 0 if full else coming.size
        self._remove(doomed)
        if full:
            raise LimitExceeded(
                f"A local copy of {coming.name!r} ({show_size(coming.size)}) does not fit: the "
                f"copies in use have {show_size(self._total)} of cache_size="
                f"{show_size(self._cap or 0)}. Let go of paths that are no longer used, or raise "
                "the setting.",
                limit="cache_size",
            )

    def _forget(self, place: CopyKey) -> None:
        copy = self._copies.pop(place, None)
        if copy is not None:
            self._total -= copy.size
            of_session = self._sessions[place.sid]
            of_session.discard(place)
            if not of_session:
                del self._sessions[place.sid]

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

    def _make(self, path: Path, stream: Callable[[], BinaryIO]) -> None:
        folder = path.parent
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
        if copies := self._of(sid):
            blind = self._blind(name)
            self._remove([place for place in copies if place.name == blind])

    def forget_session(self, sid: str) -> None:
        self._remove(self._of(sid))

    def holders(self) -> list[str]:
        """Return the sessions with copies."""
        with self._lock:
            return list(self._sessions)

    def sweep(
        self,
        files: Callable[[str], Iterable[Reference]],
        absent: Iterable[str] = (),
        listed: Listed | None = None,
    ) -> None:
        """Remove copies of files that other processes deleted, and the copies of dead processes.

        ``absent`` are sessions with copies that do not exist any more. With ``listed``, ``files``
        is not called.
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
        if listed is not None:
            self._sweep_listed(listed)
            return
        for sid in list(self._sessions):
            # List the copies before the files: a copy made in between must not count as dead.
            copies = self._of(sid)
            live = {self._place(sid, reference) for reference in files(sid)}
            self._remove([place for place in copies if place not in live])

    def _sweep_listed(self, listed: Listed) -> None:
        for sid, tokens in listed.tokens.items():
            versions = {self._blind(token) for token in tokens}
            with self._lock:
                dead = [
                    place
                    for place in self._sessions.get(sid, ())
                    if place.version not in versions and self._copies[place].checked < listed.at
                ]
            self._remove(dead)

    def moment(self) -> float:
        """Return the time by the clock of the copies, in seconds."""
        return self._seconds()

    def _of(self, sid: str) -> list[CopyKey]:
        with self._lock:
            return list(self._sessions.get(sid, ()))

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
            self._sessions.clear()
            self._total = 0
            made, self._made = self._made, None
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
