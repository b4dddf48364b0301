"""Leases of local copies in use, visible to all processes that share Gradio's cache directory.

Every process that serves keeps a directory of its own locked, which shows that it is alive. An
entry in it is the lease of one copy. Taking a lease, and looking for those of others and removing a
copy, happen under one lock, so no copy is removed between the two. Nothing is leased where
directories cannot be locked (Windows), or before ``hold``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sessionstore._os.locks import lock, unlock

_PATIENCE: Final = 0.05
"""The longest that an event loop waits for other threads of its process, in seconds."""


class Leases:
    """The leases of one process. All processes use the same ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._gate = threading.Lock()
        self._guard = -1
        self._alive = -1
        self._mine = Path()
        self._held: set[str] = set()
        self._wanted = False

    def hold(self) -> None:
        """Show other processes that this one has copies here, until it ends or calls ``go``."""
        with self._gate:
            self._wanted = True
            self._hold()

    def _hold(self) -> None:
        while self._alive < 0:
            mine = self.directory / secrets.token_hex(8)
            mine.mkdir(parents=True)
            try:
                guard, alive = os.open(self.directory, os.O_RDONLY), os.open(mine, os.O_RDONLY)
            except FileNotFoundError:
                continue
            except PermissionError:  # Windows does not open directories
                mine.rmdir()
                self._wanted = False
                return
            # Before the lock another process may have taken it for a dead one's, and removed it.
            if lock(alive, wait=False) and _is_at(alive, mine) and _is_at(guard, self.directory):
                self._guard, self._alive, self._mine = guard, alive, mine
            else:
                os.close(guard)
                os.close(alive)
        for key in list(self._held):
            self._write(key)

    def go(self) -> None:
        """Undo ``hold``, and give back all leases."""
        with self._gate:
            self._wanted = False
            self._held.clear()
            if self._alive >= 0:
                _remove(self._mine)
                self._close()
                with contextlib.suppress(OSError):
                    self.directory.rmdir()  # fails when it is not empty

    def _close(self) -> None:
        os.close(self._guard)
        os.close(self._alive)
        self._guard = self._alive = -1

    @contextmanager
    def locked(self, *, wait: bool) -> Iterator[bool]:
        """Context manager: exclude all other processes and threads. Gives False without the lock.

        An event loop must not ``wait``: a process that is stopped inside the block would stop it
        too.
        """
        if not self._gate.acquire(timeout=-1 if wait else _PATIENCE):
            yield False
            return
        try:
            self._come_back()
            if self._guard < 0:
                yield True
            elif lock(self._guard, wait=wait):
                try:
                    yield True
                finally:
                    unlock(self._guard)
            else:
                yield False
        finally:
            self._gate.release()

    def _come_back(self) -> None:
        """Hold again if another program, such as a cleaner of temporary files, removed the lock."""
        if self._wanted and not (
            _is_at(self._alive, self._mine) and _is_at(self._guard, self.directory)
        ):
            if self._alive >= 0:
                self._close()
            with contextlib.suppress(OSError):  # a full disk: the next call tries again
                self._hold()

    def take(self, name: str) -> None:
        """Lease a copy. Call it inside ``locked``."""
        if self._alive >= 0:
            self._held.add(_key(name))
            self._write(_key(name))

    def _write(self, key: str) -> None:
        # A full disk: serving without a lease is better than an error.
        with contextlib.suppress(OSError):
            os.close(os.open(self._mine / key, os.O_WRONLY | os.O_CREAT, 0o600))

    def has(self, name: str) -> bool:
        """Return whether the lease of the copy exists; another program may have removed it."""
        return self._alive < 0 or os.path.lexists(self._mine / _key(name))

    def give_back(self, name: str) -> None:
        """Undo ``take``. It is no error without a lease."""
        key = _key(name)
        if key in self._held:
            self._held.discard(key)
            with contextlib.suppress(OSError):
                os.unlink(self._mine / key)

    def others_have(self, name: str) -> bool:
        """Return whether another living process leases the copy. Call it inside ``locked``."""
        key = _key(name)
        return any(
            os.path.lexists(os.path.join(other, key)) and not _is_dead(other)
            for other in self._others()
        )

    def alone(self) -> bool:
        """Return whether no other living process has copies here. Removes dead ones' leases."""
        alone = self._alive >= 0
        for other in self._others():
            if _is_dead(other):
                _remove(Path(other))
            else:
                alone = False
        return alone

    def _others(self) -> list[str]:
        mine = str(self._mine)
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            return [entry.path for entry in entries if entry.path != mine]
        return []


def _key(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]


def _is_dead(directory: str) -> bool:
    """Return whether the process of a directory has ended."""
    try:
        fd = os.open(directory, os.O_RDONLY)
    except OSError:
        return True
    try:
        return lock(fd, wait=False)
    finally:
        os.close(fd)


def _remove(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for lease in directory.iterdir():
            lease.unlink()
        directory.rmdir()


def _is_at(fd: int, path: Path) -> bool:
    """Return whether the path is still the open file."""
    if fd < 0:
        return False
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False
