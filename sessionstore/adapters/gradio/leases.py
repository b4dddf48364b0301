"""Leases of local copies in use, visible to all processes that share Gradio's cache directory.

Every process that serves keeps a file of its own locked, which shows that it is alive. The file has
a record for each lease, the digest of a copy's name; a record of zeros is free. Taking a lease, and
looking for those of others and removing a copy, happen under one lock of the directory, so no copy
is removed between the two. Nothing is leased where directories cannot be locked (Windows), or
before ``hold``.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sessionstore._os.locks import lock, unlock

_RECORD: Final = 16
"""Bytes of a record."""

_FREE: Final = bytes(_RECORD)
_PATIENCE: Final = 0.002
"""The longest that an event loop waits for other threads of its process, in seconds."""


class Leases:
    """The leases of one process. All processes use the same ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._gate = threading.Lock()
        self._guard = -1
        self._alive = -1
        self._mine = Path()
        self._opened: tuple[os.stat_result, os.stat_result] | None = None
        """The status of the own file and of the directory when they were opened."""
        self._records = threading.Lock()
        self._held: dict[bytes, int] = {}
        """The numbers of the records of the leases."""
        self._again: Counter[bytes] = Counter()
        """How often each lease was taken besides the first time."""
        self._free: list[int] = []
        """A heap of the numbers below the highest one used that are free."""
        self._wanted = False

    def hold(self) -> None:
        """Show other processes that this one has copies here, until it ends or calls ``go``."""
        with self._gate:
            self._wanted = True
            self._hold()

    def _hold(self) -> None:
        while self._alive < 0:
            mine = self.directory / secrets.token_hex(8)
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                guard = os.open(self.directory, os.O_RDONLY)
            except PermissionError:  # Windows does not open directories
                self._wanted = False
                return
            except FileNotFoundError:  # another process that goes has removed it
                continue
            with contextlib.suppress(FileNotFoundError):
                self._begin(guard, mine)
            if self._alive < 0:
                os.close(guard)

    def _begin(self, guard: int, mine: Path) -> None:
        alive = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Before the lock another process may have taken it for a dead one's, and removed it.
        own, directory = os.fstat(alive), os.fstat(guard)
        if lock(alive, wait=False) and _is_at(own, mine) and _is_at(directory, self.directory):
            self._guard, self._alive, self._mine = guard, alive, mine
            self._opened = own, directory
            with self._records:
                for key, number in self._held.items():
                    self._write(key, number)
        else:
            os.close(alive)

    def go(self) -> None:
        """Undo ``hold``, and give back all leases."""
        with self._gate:
            self._wanted = False
            with self._records:
                self._held.clear()
                self._free.clear()
                self._again.clear()
            if self._alive >= 0:
                _remove(self._mine)
                self._close()
                with contextlib.suppress(OSError):
                    self.directory.rmdir()  # fails when it is not empty

    def _close(self) -> None:
        os.close(self._guard)
        os.close(self._alive)
        self._guard = self._alive = -1
        self._opened = None

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
        opened = self._opened
        if self._wanted and not (
            opened and _is_at(opened[0], self._mine) and _is_at(opened[1], self.directory)
        ):
            if self._alive >= 0:
                self._close()
            with contextlib.suppress(OSError):  # a full disk: the next call tries again
                self._hold()

    def take(self, name: str) -> None:
        """Lease a copy, once more if it is leased. Call it inside ``locked``."""
        if self._alive < 0:
            return
        key = _key(name)
        with self._records:
            if key in self._held:
                self._again[key] += 1
            else:
                self._held[key] = heapq.heappop(self._free) if self._free else len(self._held)
            self._write(key, self._held[key])

    def _write(self, record: bytes, number: int) -> None:
        # A full disk: serving without a lease is better than an error.
        with contextlib.suppress(OSError):
            os.pwrite(self._alive, record, number * _RECORD)

    def are_there(self) -> bool:
        """Return whether the leases are where others look: another program may remove them."""
        opened = self._opened
        return opened is None or _is_at(opened[0], self._mine)

    def give_back(self, name: str) -> None:
        """Undo one ``take``. It is no error without a lease."""
        key = _key(name)
        with self._records:
            again = self._again.pop(key, 0)
            if again > 1:
                self._again[key] = again - 1
            if again:
                return
            number = self._held.pop(key, None)
            if number is not None:
                heapq.heappush(self._free, number)
            if number is not None and self._alive >= 0:
                self._write(_FREE, number)

    def others_have(self, name: str) -> bool:
        """Return whether another living process leases the copy. Call it inside ``locked``."""
        key = _key(name)
        return any(key in _leases(other) and not _is_dead(other) for other in self._others())

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


def _key(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:_RECORD]


def _leases(path: str) -> set[bytes]:
    with contextlib.suppress(OSError):
        data = Path(path).read_bytes()
        return {data[start : start + _RECORD] for start in range(0, len(data), _RECORD)}
    return set()


def _is_dead(path: str) -> bool:
    """Return whether the process of a file of leases has ended."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        return lock(fd, wait=False)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _is_at(opened: os.stat_result, path: Path) -> bool:
    """Return whether the path is still the file or directory that was opened."""
    with contextlib.suppress(OSError):
        return os.path.samestat(opened, path.stat())
    return False
