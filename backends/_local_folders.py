"""The session folders of a store, opened by name or kept open from the time before.

Opening a folder with its lock and its journal takes eight system calls of the twenty that a small
save makes, so the last used ones are kept open. One user at a time has a folder: a second who
wants it meanwhile opens one of his own, since two of one process exclude each other only by the
locks of two open files.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable

from sessionstore.backends._directory import HAS_DIR_FD, Directory
from sessionstore.backends._local_folder import Folder, Rules

try:
    import resource
except ImportError:  # Windows, where an open file could not be moved with its folder either
    resource = None  # type: ignore[assignment]  # the name says which of the two systems this is

_MOST = 64
"""Folders kept open, four descriptors each."""


class Folders:
    """The folders of one store. Safe to use from any thread, and after a fork."""

    def __init__(self, sessions: Directory, rules: Rules, most: int | None = None) -> None:
        self._sessions = sessions
        self._rules = rules
        self._most = min(_MOST, descriptors() // 64) if most is None else most
        self._pid = os.getpid()
        # Its methods are atomic, so that no lock is needed, which a fork could leave taken.
        self._kept: OrderedDict[str, Folder] = OrderedDict()

    def reading(self, sid: str) -> Borrowed:
        """A session's folder for a look, None when there is none."""
        return Borrowed(self, sid, change=False)

    def changing(
        self, sid: str, *, wait: bool = True, make: Callable[[], bool] | None = None
    ) -> Borrowed:
        """The same, locked; None also when it is busy and ``wait`` is false.

        ``make()`` is called to make a session that is not there; it returns whether it did.
        """
        return Borrowed(self, sid, change=True, wait=wait, make=make)

    def close(self, sid: str | None = None) -> None:
        """Close what is kept open of a session, or of all."""
        if sid is not None:
            folder = self._kept.pop(sid, None)
            if folder is not None:
                folder.close()
            return
        while (folder := self._oldest()) is not None:
            folder.close()

    def _oldest(self) -> Folder | None:
        """The one unused for longest, which is kept no more; None when there is none.

        There may just have been one: other threads take them too.
        """
        try:
            return self._kept.popitem(last=False)[1]
        except KeyError:
            return None

    def take(self, sid: str, *, change: bool, wait: bool) -> Folder | None:
        """A folder that is in its place. The caller gives it back, or closes it."""
        if self._pid != os.getpid():
            self._forget_parent()
        while True:
            folder = self._kept.pop(sid, None)
            known = folder is not None
            try:
                if folder is None:
                    folder = Folder(self._sessions, sid, self._rules, change=change)
                if change and not folder.lock(wait=wait):
                    folder.close()
                    return None
                # A drop may have moved it away since it was opened, or while we waited.
                if not (known or change) or folder.is_still(self._sessions):
                    return folder
            except FileNotFoundError:
                if folder is None:
                    return None
            except BaseException:
                if folder is not None:
                    folder.close()
                raise
            folder.close()

    def give(self, folder: Folder) -> None:
        """Keep a folder open for the next who wants it."""
        if self._kept.setdefault(folder.sid, folder) is not folder:
            folder.close()
        while len(self._kept) > self._most and (oldest := self._oldest()) is not None:
            oldest.close()

    def _forget_parent(self) -> None:
        """In the child of a fork: an open file that the parent has too holds off neither.

        Until all are closed no other thread may take one.
        """
        self.close()
        self._pid = os.getpid()


class Borrowed:
    """Lends a folder for a block, and unlocks it afterwards."""

    __slots__ = ("_change", "_folder", "_folders", "_make", "_sid", "_wait")

    def __init__(
        self,
        folders: Folders,
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
        self._folder: Folder | None = None

    def __enter__(self) -> Folder | None:
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
        if kind is not None:  # whatever went wrong, the next one begins anew
            self._folder.close()
            return
        if self._change:
            self._folder.unlock()
        self._folders.give(self._folder)


def descriptors() -> int:
    """How many files a process may have open, as far as that matters; 0: keep none open."""
    if not HAS_DIR_FD or resource is None:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
