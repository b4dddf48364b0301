"""A pool of open session folders.

Opening a folder with its lock and its journal takes eight of the twenty system calls of a small
save, so the pool keeps the last used folders open. One caller at a time has an open folder. A
second caller opens the folder again: two threads of one process exclude each other only by the
locks of two open files.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable

from .directory import HAS_DIR_FD, Directory
from .session_dir import Rules, SessionDir

try:
    import resource
except ImportError:  # Windows, where a folder with an open file could not be moved either
    resource = None  # type: ignore[assignment]  # None marks Windows, where the module is missing

_MOST = 64
"""Folders kept open, four descriptors each."""


class SessionDirPool:
    """The folders of one store. Safe to use from any thread, and after a fork."""

    def __init__(self, sessions: Directory, rules: Rules, most: int | None = None) -> None:
        self._sessions = sessions
        self._rules = rules
        self._most = min(_MOST, descriptors() // 64) if most is None else most
        self._pid = os.getpid()
        # The methods of a dictionary are atomic, so no lock is needed. A fork could leave a lock
        # taken.
        self._kept: OrderedDict[str, SessionDir] = OrderedDict()

    def reading(self, sid: str) -> Lease:
        """Lend the folder of the session ``sid`` for reading; None when it does not exist."""
        return Lease(self, sid, change=False)

    def changing(
        self, sid: str, *, wait: bool = True, make: Callable[[], bool] | None = None
    ) -> Lease:
        """Lend the locked folder of the session ``sid``; None when it does not exist.

        None also when another caller has the lock and ``wait`` is false. ``make()`` is called to
        create a session that does not exist; it returns whether it did.
        """
        return Lease(self, sid, change=True, wait=wait, make=make)

    def close(self, sid: str | None = None) -> None:
        """Close the open folder of the session ``sid``, or all when ``sid`` is None."""
        if sid is not None:
            folder = self._kept.pop(sid, None)
            if folder is not None:
                folder.close()
            return
        while (folder := self._oldest()) is not None:
            folder.close()

    def _oldest(self) -> SessionDir | None:
        """Remove the folder unused for longest from the pool and return it; None if it is empty.

        The caller cannot test for that first, because other threads take folders too.
        """
        try:
            return self._kept.popitem(last=False)[1]
        except KeyError:
            return None

    def take(self, sid: str, *, change: bool, wait: bool) -> SessionDir | None:
        """Return an open folder that is in its place. The caller gives it back or closes it.

        With ``change`` it is locked. None when the session does not exist, or when another caller
        has the lock and ``wait`` is false.
        """
        if self._pid != os.getpid():
            self._forget_parent()
        while True:
            folder = self._kept.pop(sid, None)
            reused = folder is not None
            try:
                if folder is None:
                    folder = SessionDir(self._sessions, sid, self._rules, change=change)
                if change and not folder.lock(wait=wait):
                    folder.close()
                    return None
                # A drop may have moved it away since it was opened or during the wait for the lock.
                if not (reused or change) or folder.is_still(self._sessions):
                    return folder
            except FileNotFoundError:
                if folder is None:
                    return None
            except BaseException:
                if folder is not None:
                    folder.close()
                raise
            folder.close()

    def give(self, folder: SessionDir) -> None:
        """Keep ``folder`` open for the next caller."""
        if self._kept.setdefault(folder.sid, folder) is not folder:
            folder.close()
        while len(self._kept) > self._most and (oldest := self._oldest()) is not None:
            oldest.close()

    def _forget_parent(self) -> None:
        """Close all folders in the child of a fork.

        Parent and child share the open files, so a lock of them excludes neither. No other thread
        may take a folder before all are closed.
        """
        self.close()
        self._pid = os.getpid()


class Lease:
    """Lends a folder for a block, and unlocks it afterwards."""

    __slots__ = ("_change", "_folder", "_folders", "_make", "_sid", "_wait")

    def __init__(
        self,
        folders: SessionDirPool,
        sid: str,
        *,
        change: bool,
        wait: bool = True,
        make: Callable[[], bool] | None = None,
    ) -> None:
        self._folders = folders
        self._sid = sid
        self._change = change
        self._wait = wait
        self._make = make
        self._folder: SessionDir | None = None

    def __enter__(self) -> SessionDir | None:
        made = False
        while True:
            self._folder = self._folders.take(self._sid, change=self._change, wait=self._wait)
            if self._folder is not None or self._make is None:
                if self._folder is not None and made:
                    self._folder.owned = True
                return self._folder
            made = self._make()

    def __exit__(self, kind: object, *_: object) -> None:
        if self._folder is None:
            return
        if kind is not None:  # its state is unknown after an error, so the next caller opens it
            self._folder.close()
            return
        if self._change:
            self._folder.unlock()
        self._folders.give(self._folder)


def descriptors() -> int:
    """Return the number of files that this process may have open; 0 means to keep none open.

    An unlimited number counts as 1 << 20.
    """
    if not HAS_DIR_FD or resource is None:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
