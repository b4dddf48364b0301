"""Gradio's cache directory as a size-limited cache: local copies of files in the store.

A copy is used only while its size and modification time are those noted with its digest. Copies
carry the sticky bit, which has no meaning on files, and a living process renews the modification
time of its own. So the copies that a killed process leaves are found without a list: by a process
that is alone in the directory (``leases``) at once, else after an hour without a renewal.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final
from weakref import WeakValueDictionary

from sessionstore._os.errors import translated
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.leases import Leases
from sessionstore.adapters.gradio.paths import OURS
from sessionstore.content import CHUNK
from sessionstore.errors import BackendUnavailable
from sessionstore.model import Reference
from sessionstore.names import is_sid

MARK: Final = stat.S_ISVTX
LEASE: Final = 3600.0
"""Seconds without a renewal after which a file counts as left behind."""

_RENEW: Final = LEASE / 3
_SLACK: Final = 0.9
"""Eviction stops at this part of the cap, so that not every new copy needs an eviction."""

_AT_ONCE: Final = 64
_TRIES: Final = 10
_PROCESSES: Final = "processes"

_is_hash = re.compile(r"[0-9a-f]{64}").fullmatch
_is_leftover = re.compile(r"tmp[a-z0-9_]{8}(\.ts)?").fullmatch
"""Python's temporary names. Gradio makes an empty one for each input file and never removes it. One
with bytes is an interrupted upload, or a piece of a stream that was joined."""

Stamp = tuple[int, int]
"""A file's modification time in nanoseconds, and its size in bytes."""

Copying = Callable[[BinaryIO, BinaryIO], None]
"""Writes all bytes of a stream to a new file, which is open for reading too."""


def copied(source: BinaryIO, target: BinaryIO) -> None:
    """Copy the bytes, and do nothing else."""
    shutil.copyfileobj(source, target, CHUNK)


@dataclass(slots=True)
class _Copy:
    size: int
    digest: str
    stamp: Stamp
    pins: int = 0
    holders: set[str] = field(default_factory=set)


class CacheDir:
    """The local copies of one process. Names are relative to ``root``, with slashes."""

    def __init__(
        self,
        root: Path,
        cap: int | None,
        *,
        keep: bool = True,
    ) -> None:
        self.root = root
        self._root = f"{root}{os.sep}"
        self.cap = cap
        self.keep = keep
        self._lock = threading.Lock()  # an event loop waits for it: no system call is made under it
        self._making: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        """The least recently used first."""
        self._held: dict[str, set[str]] = {}
        self._total = 0
        self._started = time.time()
        self._later: dict[str, Stamp] = {}
        """Copies to remove later, since their removal would have waited for a lock."""
        self.leases: Final = Leases(root / OURS / _PROCESSES)

    def path(self, name: str) -> Path:
        return self.root / name

    def stamp(self, name: str) -> Stamp | None:
        """Return the file's stamp, which changes when the file does; None without a file."""
        try:
            file = os.stat(self._root + name)  # a Path takes longer than the call
        except OSError:
            return None
        return stamp_of(file) if stat.S_ISREG(file.st_mode) else None

    def ready(self, name: str, reference: Reference, holder: str) -> bool:
        """Return whether a copy with these bytes exists; if so, ``holder`` now holds it too."""
        stamp = self.stamp(name)
        with self._lock:
            copy = self._copies.get(name)
            if copy is None or copy.stamp != stamp or copy.digest != reference.digest:
                return False
            self._copies.move_to_end(name)
            self._hold(name, copy, holder)
            return True

    def note(self, name: str, reference: Reference, holder: str, stamp: Stamp) -> None:
        """Register a file as a copy: it had the bytes of ``reference`` when it had ``stamp``."""
        stamp = self._marked(name, stamp)
        with self._lock:
            copy = self._copies.get(name)
            if copy is None:
                copy = self._copies[name] = _Copy(0, "", stamp)
            self._total += reference.size - copy.size
            copy.size, copy.digest, copy.stamp = reference.size, reference.digest, stamp
            self._copies.move_to_end(name)
            self._hold(name, copy, holder)

    def _marked(self, name: str, stamp: Stamp) -> Stamp:
        """Mark the file as a copy in use, and return its stamp after that."""
        with contextlib.suppress(OSError):
            file = self._mark(name)
            old = file.st_mtime < max(self._started, time.time() - _RENEW)
            if old and stamp_of(file) == stamp:
                os.utime(self.path(name))  # Gradio copies a file with its time, perhaps years ago
                return self.stamp(name) or stamp
        return stamp

    def _mark(self, name: str) -> os.stat_result:
        """Mark the file as a copy, and return its status before that."""
        path = self._root + name
        file = os.stat(path)
        if not file.st_mode & MARK:
            os.chmod(path, stat.S_IMODE(file.st_mode) | MARK)
        return file

    def takes(self, size: int) -> bool:
        """Return whether a copy of ``size`` bytes would stay, within the cap and on the disk."""
        return (self.cap is None or size <= self.cap) and self.has_room(size)

    def has_room(self, size: int) -> bool:
        """Return whether copies are kept, and one of ``size`` bytes fits on the disk."""
        if not self.keep:
            return False
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.root).free > size
        return True

    def make(
        self,
        name: str,
        reference: Reference,
        holder: str,
        stream: Callable[[], BinaryIO],
        equal: Path | None = None,
        *,
        copy: Copying = copied,
    ) -> Path:
        """Return the path of the copy; make it from ``stream()`` if it does not exist.

        ``equal`` is a local file with these bytes, which is linked instead where links work.
        Otherwise ``copy`` writes it. Raises the errors of the stream, LimitExceeded for a full
        disk, and BackendUnavailable for its other errors.
        """
        path = self.path(name)
        if self.ready(name, reference, holder):
            return path
        with self._lock:
            making = self._making.setdefault(name, threading.Lock())
        with making:
            if not self.ready(name, reference, holder):
                self._remove(self._over(reference.size))
                stamp = self._linked(path, equal) or self._written(path, stream, copy)
                self.note(name, reference, holder, stamp)
        return path

    def _linked(self, path: Path, equal: Path | None) -> Stamp | None:
        # The file system may have no links, and the equal may be gone.
        with contextlib.suppress(OSError):
            if equal is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with _replacing(path) as new:
                    os.link(equal, new)
                    return stamp_of(new.stat())
        return None

    def _written(self, path: Path, stream: Callable[[], BinaryIO], copy: Copying) -> Stamp:
        problem = translated("make a local copy", str(self.root))
        with stream() as source, problem, _replacing(path) as new:
            with open(_created(new), "wb") as target:
                copy(source, target)
            return stamp_of(new.stat())

    def pin(self, name: str, *, wait: bool = True) -> bool:
        """Keep the copy from eviction until ``unpin``. Return False without one, or if it changed.

        With ``wait=False``, for an event loop, also while another process holds the lock for
        removals.
        """
        with self._lock:
            copy = self._copies.get(name)
            if copy is not None and copy.pins and self.leases.are_there():
                copy.pins += 1
                return True
        if copy is None:
            return False
        with self.leases.locked(wait=wait) as locked:
            if not locked:
                return False
            stamp = self.stamp(name)
            with self._lock:
                copy = self._copies.get(name)
                if copy is None or copy.stamp != stamp:
                    return False
                copy.pins += 1
                is_first = copy.pins == 1
            if is_first:
                self.leases.take(name)
            return True

    def unpin(self, name: str) -> None:
        """Undo one ``pin``. The last one removes the copy if nothing else keeps it."""
        with self._lock:
            copy = self._copies.get(name)
            is_last = copy is not None and copy.pins == 1
            if copy is not None and copy.pins:
                copy.pins -= 1
        if is_last:
            self.leases.give_back(name)
        self.settle(name)

    def settle(self, name: str) -> None:
        """Remove the copy if it is not pinned, and no session holds it or ``keep`` is False."""
        with self._lock:
            copy = self._copies.get(name)
            if copy is None or copy.pins or (self.keep and copy.holders):
                return
            self._forget(name)
        self._unlink(name, copy.stamp)

    def _hold(self, name: str, copy: _Copy, holder: str) -> None:
        copy.holders.add(holder)
        self._held.setdefault(holder, set()).add(name)

    def release(self, holder: str, names: Iterable[str] | None = None) -> None:
        """Note that the holder no longer has these files (None: any file); remove unused copies."""
        with self._lock:
            held = self._held.get(holder, set())
            released = list(held) if names is None else [name for name in names if name in held]
            for name in released:
                held.discard(name)
                self._copies[name].holders.discard(holder)
            if not held:
                self._held.pop(holder, None)
        for name in released:
            self.settle(name)

    def holders(self) -> list[str]:
        with self._lock:
            return list(self._held)

    def held_by(self, holder: str) -> list[str]:
        with self._lock:
            return list(self._held.get(holder, ()))

    def has(self, name: str) -> bool:
        """Return whether a file is registered as a copy, even if it changed since."""
        with self._lock:
            return name in self._copies

    def is_copy(self, name: str, stamp: Stamp) -> bool:
        """Return whether a file with this ``stamp`` is a copy, unchanged."""
        with self._lock:
            copy = self._copies.get(name)
            return copy is not None and copy.stamp == stamp

    def is_of_the_app(self, name: str) -> bool:
        """Return whether no process has ever marked the file: it is in no session."""
        with contextlib.suppress(OSError):
            return not self.path(name).stat().st_mode & MARK
        return False

    def abandon(self, name: str) -> None:
        """Have ``clean`` remove the file in an hour, unless it is a copy by then."""
        with contextlib.suppress(OSError):
            self._mark(name)
            if not self.has(name):
                os.utime(self.path(name))

    def discard(self, name: str) -> None:
        """Remove a file that was refused, unless it has become a copy or is leased."""
        self.abandon(name)  # so that ``clean`` removes it if this cannot
        stamp = self.stamp(name)
        if stamp is not None:
            self._unlink(name, stamp)

    def _over(self, coming: int) -> dict[str, Stamp]:
        """Unregister the least recently used copies so that ``coming`` more bytes fit.

        The event loop waits for this lock, so it is held for a few copies at a time.
        """
        doomed: dict[str, Stamp] = {}
        with self._lock:
            fits = self.cap is None or self._total + coming <= self.cap
            left = 0 if fits else len(self._copies)
            goal = int((self.cap or 0) * _SLACK) - coming
        while left > 0:
            with self._lock:
                for name, copy in list(islice(self._copies.items(), _AT_ONCE)):
                    if self._total <= goal:
                        return doomed
                    if copy.pins:
                        self._copies.move_to_end(name)
                    else:
                        doomed[name] = copy.stamp
                        self._forget(name)
            left -= _AT_ONCE
        return doomed

    def is_over(self) -> bool:
        """Return whether ``make_room`` has something to remove."""
        return bool(self._later) or (self.cap is not None and self._total > self.cap)

    def make_room(self) -> None:
        """Evict copies until they are within the cap."""
        with self._lock:
            later, self._later = self._later, {}
        self._remove(later | self._over(0))

    def _forget(self, name: str) -> None:
        copy = self._copies.pop(name)
        self._total -= copy.size
        for holder in copy.holders:
            held = self._held.get(holder)
            if held is not None:
                held.discard(name)
                if not held:
                    del self._held[holder]

    def _remove(self, doomed: dict[str, Stamp]) -> None:
        for name, stamp in doomed.items():
            self._unlink(name, stamp, wait=True)

    def _unlink(self, name: str, stamp: Stamp, *, wait: bool = False) -> None:
        """Remove a file that is no longer a copy, if it still has ``stamp`` and no lease."""
        # Pins are made under the lock of the leases too. A copy that is noted from here on is
        # missing, and is fetched when it is needed.
        with self.leases.locked(wait=wait) as locked:
            if not locked:
                with self._lock:
                    self._later[name] = stamp
            elif self.has(name):
                pass  # it has become a copy again
            elif self.stamp(name) != stamp:
                with contextlib.suppress(OSError):
                    self._mark(name)
            else:
                with contextlib.suppress(OSError):
                    if not self.leases.others_have(name):
                        os.unlink(self._root + name)
                        self._prune(name)

    def _prune(self, name: str) -> None:
        """Remove the empty folders of a file. Raises OSError at one that is not empty."""
        while folder := name.rpartition("/")[0]:
            os.rmdir(self._root + folder)
            name = folder

    def clear(self) -> None:
        """Remove every copy of this process, except leased or changed ones."""
        with self._lock:
            doomed = {name: copy.stamp for name, copy in self._copies.items()}
            self._copies.clear()
            self._held.clear()
            self._total = 0
        self._remove(doomed)

    # Files that Gradio or a killed process left behind

    def renew(self) -> None:
        """Renew this process's leases and the modification times of its copies."""
        with self.leases.locked(wait=True):
            pass  # it restores leases that another program removed
        now = time.time()
        with self._lock:
            old = [
                name
                for name, copy in self._copies.items()
                if now - copy.stamp[0] / 1e9 > _RENEW and copy.stamp == self.stamp(name)
            ]
        for name in old:
            with contextlib.suppress(OSError):
                os.utime(self.path(name))
                stamp = self.stamp(name)
                with self._lock:
                    copy = self._copies.get(name)
                    if copy is not None and stamp is not None:
                        copy.stamp = stamp

    def clean(self) -> None:
        """Remove what Gradio or killed processes left behind, when it is an hour old.

        These are marked copies, temporary files and empty directories: any other file may belong to
        an app that is not attached.
        """
        old = time.time() - LEASE
        orphaned = max(self._started, old) if self.leases.alone() else old
        for entry in _entries(self.root):
            if entry.is_file(follow_symlinks=False):
                if _is_leftover(entry.name) or _is_marked(entry):
                    self._clean_file(entry, orphaned if _is_marked(entry) else old)
            elif _is_hash(entry.name):
                self._clean_directory(entry, old, orphaned)
            elif entry.name == OURS:  # it also has the workspaces of copies by ``local_path()``
                for session in _entries(entry):
                    if is_sid(session.name):
                        self._clean_directory(session, old, orphaned)

    def _clean_directory(self, directory: os.DirEntry[str], old: float, orphaned: float) -> None:
        for entry in _entries(directory):
            if entry.is_dir(follow_symlinks=False):
                self._clean_directory(entry, old, orphaned)
            elif _is_marked(entry):
                self._clean_file(entry, orphaned)
            elif entry.name.startswith("."):  # the write of a copy was interrupted
                self._clean_file(entry, old)
        with contextlib.suppress(OSError):
            if directory.stat().st_mtime < old:
                os.rmdir(directory)  # fails when it is not empty

    def _clean_file(self, entry: os.DirEntry[str], oldest: float) -> None:
        name = Path(entry.path).relative_to(self.root).as_posix()
        stamp = self.stamp(name)
        if stamp is not None and stamp[0] / 1e9 < oldest:
            self._unlink(name, stamp, wait=True)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path``. After the block the file there replaces that of ``path``."""
    new = path.parent / f".{secrets.token_hex(8)}.new"
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)  # rename(2) between links of one inode leaves both


def _created(path: Path) -> int:
    """Create a file to write to; again if another process removed its empty directory."""
    for _ in range(_TRIES):
        # ``mkdir`` raises FileExistsError if the directory is removed while it looks at it.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    raise BackendUnavailable(
        f"No file could be made in {str(path.parent)!r}: another program removed the directory "
        f"{_TRIES} times. Try again."
    )


def gradio_hash(file: FileIO) -> str:
    """Return the directory that Gradio's functions give a file of these bytes."""
    return hashlib.file_digest(file, lambda: hashlib.sha256(compat.hash_seed())).hexdigest()


def large_to_cache(path: str, cache: str) -> str:
    """Copy a file into the cache as ``processing_utils.save_file_to_cache``; return the path."""
    with open(path, "rb", buffering=0) as file:
        target = Path(os.path.abspath(cache), gradio_hash(file), compat.cache_name(path))
    try:
        # Gradio does so too: whoever just now removes the copy of another visitor leaves it then.
        os.utime(target)
    except OSError:
        with _replacing(target) as new:
            os.close(_created(new))
            shutil.copyfile(path, new)
    return str(target)


def stamp_of(file: os.stat_result) -> Stamp:
    """Return the stamp of a file with this status."""
    return file.st_mtime_ns, file.st_size


def _entries(directory: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return list(entries)
    return []


def _is_marked(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):
        return bool(entry.stat(follow_symlinks=False).st_mode & MARK)
    return False
