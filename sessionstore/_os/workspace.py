"""A private folder of one process. Another process can remove it after the owner's death.

    <parent>/<token>.lock     locked while the owner lives
    <parent>/<token>/         the owner's files

The lock file is made before the folder and removed after it, so a folder with a free or missing
lock has no living owner. Leftovers of a killed process are thus found at once and with certainty,
without a minimum age: the system releases the lock when the process dies, for any reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from sessionstore._os.errors import FULL
from sessionstore._os.locks import lock

_LOCK = ".lock"
_TOKEN_BYTES = 8
# The parent may hold other files (Gradio's cache does), which are left alone.
_is_token = re.compile(rf"[0-9a-f]{{{2 * _TOKEN_BYTES}}}").fullmatch


class Workspace:
    """This process's folder under ``parent``, made at first use. A forked child gets its own."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.pid: int = 0
        self._token = ""
        self._own = parent
        self._fd = -1
        self._claiming = threading.Lock()
        self._is_closed = False

    @property
    def path(self) -> Path:
        """Return the folder; create and lock it at first use.

        Raises OSError if that fails, and after ``close``.
        """
        if self.pid != os.getpid():
            with self._claiming:
                if self._is_closed:  # maybe while this thread was at work
                    raise OSError(errno.EBADF, "The store is closed")
                if self.pid != os.getpid():
                    self._claim()
        return self._own

    @property
    def claimed(self) -> Path | None:
        return self._own if self.pid == os.getpid() else None

    def name_to_try(self) -> Path:
        """Return a new name beside the folder, for a file that a sweep removes if we die."""
        return self.parent / (secrets.token_hex(_TOKEN_BYTES) + _LOCK)

    @property
    def token(self) -> str:
        return self._token

    def _claim(self) -> None:
        self.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while not self._try_to_claim(secrets.token_hex(_TOKEN_BYTES)):
            pass

    def _try_to_claim(self, token: str) -> bool:
        path = self.parent / (token + _LOCK)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # A sweeper may have removed the new lock file as a dead one before we locked it.
            if not lock(fd, wait=False) or not _same_file(fd, path):
                os.close(fd)
                return False
            (self.parent / token).mkdir(mode=0o700)
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._token, self._own, self._fd = token, self.parent / token, fd
        self.pid = os.getpid()  # last: it tells other threads that the folder is ready
        return True

    def renew(self) -> None:
        """Make the lock file and the folder again if a cleaner of temporary files removed them.

        Without its lock file the folder looks like that of a dead process, and the next sweep of
        any process would erase it.
        """
        path = self.parent / (self._token + _LOCK)
        if self.claimed is None or _same_file(self._fd, path):
            return
        fd = _take(path, create=True)
        if fd is None:  # a sweeper is erasing the folder
            self.pid = 0  # the next use creates another one
            os.close(self._fd)
            return
        self._own.mkdir(mode=0o700, exist_ok=True)
        os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        """Remove the folder. A forked child that never used it has none."""
        with self._claiming:
            self._is_closed, pid, self.pid = True, self.pid, 0
        if pid != os.getpid():
            return
        _erase(self.parent, self._token)
        os.close(self._fd)

    def alone(self) -> bool:
        """Return whether no other living process or object of this process has a folder here."""
        return not any(map(self._is_held, self._others()))

    def abandoned(self) -> list[Path]:
        """Return the folders that ``dead`` would yield, and change nothing."""
        dead = [self.parent / token for token in self._others() if not self._is_held(token)]
        return [folder for folder in dead if folder.is_dir()]

    def strangers(self) -> list[str]:
        """Return the names in the parent that are neither a workspace nor a lock."""
        return [name for name in self._names() if not _is_token(name.removesuffix(_LOCK))]

    def _is_held(self, token: str) -> bool:
        path = self.parent / (token + _LOCK)
        fd = _take(path)
        if fd is not None:
            os.close(fd)
        return fd is None and path.exists()

    @contextlib.contextmanager
    def dead(self) -> Iterator[list[Path]]:
        """Yield the folders of dead processes: locked inside the block, and erased after it.

        On a full disk a folder without a lock file gets none, so another sweeper may work on it at
        the same time.
        """
        taken: list[str] = []
        with contextlib.ExitStack() as locks:
            for token in self._others():
                folder = self.parent / token
                try:
                    fd = _take(self.parent / (token + _LOCK), create=folder.is_dir())
                except OSError as error:
                    if error.errno not in FULL:
                        raise
                else:
                    if fd is None:
                        continue
                    locks.callback(os.close, fd)
                taken.append(token)
            yield [self.parent / token for token in taken if (self.parent / token).is_dir()]
            for token in taken:
                _erase(self.parent, token)

    def _others(self) -> list[str]:
        own = self._token if self.pid == os.getpid() else ""
        tokens = {name.removesuffix(_LOCK) for name in self._names()}
        return sorted(token for token in tokens if _is_token(token) and token != own)

    def _names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self.parent))
        return []


def _take(path: Path, *, create: bool = False) -> int | None:
    """Take the lock of a folder; return None if its owner lives or another sweeper holds it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    except (FileNotFoundError, PermissionError):  # removed, or owned by another user
        return None
    if lock(fd, wait=False) and _same_file(fd, path):
        return fd
    os.close(fd)
    return None


def _same_file(fd: int, path: Path) -> bool:
    try:
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), status)


def _erase(parent: Path, token: str) -> None:
    """Remove a folder, then its lock. If a file cannot be removed, the next sweep tries again."""
    with contextlib.suppress(OSError):
        shutil.rmtree(parent / token, ignore_errors=True)
        if not (parent / token).exists():
            (parent / (token + _LOCK)).unlink(missing_ok=True)
