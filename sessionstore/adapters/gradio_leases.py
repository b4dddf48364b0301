"""Which local copies are in use, for all processes that share Gradio's cache directory to see.

Every process that serves holds a directory of its own locked, so that others know that it lives. An
entry in it is the lease of one copy: a handler or an answer needs the file. A process that wants to
remove a copy looks for leases of others first. A lease is taken, and a copy looked for and removed,
under one lock of the whole cache directory, so no copy goes between the two.

Where directories cannot be locked (Windows), and before ``hold``, nothing is leased.
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

from sessionstore.locks import lock, unlock

_PATIENCE: Final = 0.05
"""Seconds that an event loop waits for other threads of its own process."""


class Leases:
    """The leases of one process, below a directory that all processes have for this."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._gate = threading.Lock()
        self._guard = -1
        self._alive = -1
        self._mine = Path()
        self._held: set[str] = set()
        self._wanted = False

    def hold(self) -> None:
        """Tell other processes that this one has copies here, until it ends or lets ``go``."""
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
            except PermissionError:  # Windows opens no directories
                mine.rmdir()
                self._wanted = False
                return
            # Another may have found it unlocked, and removed it.
            if lock(alive, wait=False) and _is_at(alive, mine) and _is_at(guard, self.directory):
                self._guard, self._alive, self._mine = guard, alive, mine
            else:
                os.close(guard)
                os.close(alive)
        for key in list(self._held):
            self._write(key)

    def go(self) -> None:
        """Undo ``hold``: what was leased is in use by this process no more."""
        with self._gate:
            self._wanted = False
            self._held.clear()
            if self._alive >= 0:
                _remove(self._mine)
                self._close()
                with contextlib.suppress(OSError):
                    self.directory.rmdir()  # which refuses one that is not empty

    def _close(self) -> None:
        os.close(self._guard)
        os.close(self._alive)
        self._guard = self._alive = -1

    @contextmanager
    def locked(self, *, wait: bool) -> Iterator[bool]:
        """Exclude all other processes and threads for the block; False when that takes too long.

        ``wait``: until it is possible. An event loop must not: a process that is stopped, not
        killed, within the block would stop this one too.
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
        """Hold again what was removed from outside, by somebody who cleans temporary files."""
        if self._wanted and not (
            _is_at(self._alive, self._mine) and _is_at(self._guard, self.directory)
        ):
            if self._alive >= 0:
                self._close()
            with contextlib.suppress(OSError):  # a full disk: tried again the next time
                self._hold()

    def renew(self) -> None:
        """See that the leases are there, as they are not when somebody cleaned the directory."""
        with self.locked(wait=True):
            pass

    def take(self, name: str) -> None:
        """Lease a copy. To be called when ``locked``."""
        if self._alive >= 0:
            self._held.add(_key(name))
            self._write(_key(name))

    def _write(self, key: str) -> None:
        with contextlib.suppress(OSError):  # a full disk: better served without than not at all
            os.close(os.open(self._mine / key, os.O_WRONLY | os.O_CREAT, 0o600))

    def has(self, name: str) -> bool:
        """Whether the copy is leased; nobody has removed the lease from outside."""
        return self._alive < 0 or os.path.lexists(self._mine / _key(name))

    def give_back(self, name: str) -> None:
        """Undo ``take``. Without, or twice, is no error."""
        key = _key(name)
        if key in self._held:
            self._held.discard(key)
            with contextlib.suppress(OSError):
                os.unlink(self._mine / key)

    def others_have(self, name: str) -> bool:
        """Whether another living process leases the copy. To be called when ``locked``."""
        key = _key(name)
        return any(
            os.path.lexists(os.path.join(each, key)) and not _is_dead(each)
            for each in self._others()
        )

    def alone(self) -> bool:
        """Whether no other living process has copies here. Removes the signs of dead ones."""
        alone = self._alive >= 0
        for each in self._others():
            if _is_dead(each):
                _remove(Path(each))
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
    """Whether the process that held a directory has ended."""
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
        for each in directory.iterdir():
            each.unlink()
        directory.rmdir()


def _is_at(fd: int, path: Path) -> bool:
    """Whether the path still is the open file."""
    if fd < 0:
        return False
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False
