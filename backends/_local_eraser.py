"""Removing whole session folders, and finishing what a crash or an error interrupted.

A dropped session is first moved into this process's workspace, at one instant, and then taken
apart. From the moment it is moved, whatever happens to this process, the next collection finds it
and goes on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator

from sessionstore.backend import Dropped
from sessionstore.backends import _local_journal as journal
from sessionstore.backends._directory import Directory
from sessionstore.backends._local_blobs import Blobs
from sessionstore.backends._local_folder import NEW, Folder, Rules
from sessionstore.backends._local_spool import is_unfinished
from sessionstore.oserrors import FULL
from sessionstore.workspace import Workspace

_DROPPED = ".drop"
_FILE_AND_BLOB = 2
_USUAL = (journal.NAME, "seen", "id", "ended", "expiring", NEW)
"""What a session's folder has in it besides its files."""


class Eraser:
    """Takes apart session folders that nobody can reach any more."""

    def __init__(self, workspace: Workspace, blobs: Blobs, rules: Rules) -> None:
        self._workspace = workspace
        self._blobs = blobs
        self._rules = rules
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    @contextlib.contextmanager
    def taking(self, name: str = "") -> Iterator[tuple[Directory, str]]:
        """This process's workspace, and a name in it that no collection touches meanwhile.

        On a disk that has no room for a workspace the name is that of one that nobody owns, which
        any process may clear away while we do.
        """
        name = name or secrets.token_hex(8) + _DROPPED
        try:
            path = self._workspace.path
        except OSError as error:
            if error.errno not in FULL:
                raise
            path, name = self._workspace.parent, secrets.token_hex(8)
        with self._lock:
            self._busy.add(name)
        try:
            with Directory(str(path)) as work:
                yield work, name
        finally:
            with self._lock:
                self._busy.discard(name)

    def erase(self, work: Directory, name: str) -> Dropped:
        """Remove a moved folder, with the content that only it referred to.

        The journal is gone through line by line, so a session may be of any size.
        """
        count = size = 0
        with Folder(work, name, self._rules) as folder:
            files = folder.files
            for file, token, length, digest in journal.kept(folder.dir):
                there = files.stat_or_none(file)
                if there is None or self._rules.token(there) != token or is_unfinished(there):
                    continue
                # As in ``Releasing``, but with one look where that takes two: of a file's two names
                # the other is the blob's, and should it be a third's, only a blob's name is lost.
                if there.st_nlink == _FILE_AND_BLOB:
                    self._blobs.remove(digest)
                    files.unlink(file)
                else:
                    files.unlink(file)
                    self._blobs.collect_one(digest)
                count, size = count + 1, size + length
            count += _rest(folder)
            try:  # by the names it should have, in half of the time of a walk
                for each in _USUAL:
                    folder.dir.unlink(each)
                work.rmdir(name)
            except OSError:
                with contextlib.suppress(FileNotFoundError):  # another process clears it away too
                    shutil.rmtree(os.path.join(work.path, name))
        return Dropped(count, size)

    def finish_own(self) -> int:
        """Finish drops of this process that an error stopped."""
        if self._workspace.claimed is None:
            return 0
        with Directory(str(self._workspace.claimed)) as work:
            left = [name for name in work.names() if name.endswith(_DROPPED)]
        with self._lock:
            left = [name for name in left if name not in self._busy]
        for name in left:
            with self.taking(name) as (work, _):
                with contextlib.suppress(FileNotFoundError):
                    self.erase(work, name)
                shutil.rmtree(os.path.join(work.path, name), ignore_errors=True)
        return len(left)

    def finish_dead(self, and_then: Callable[[], int] = lambda: 0) -> int:
        """Finish what killed processes were doing: their drops, and what they were writing.

        ``and_then()`` is called if there were any, and counted; dying here, it is called again.
        """
        count = 0
        with self._workspace.dead() as folders:
            if folders:
                count += and_then()
            for path in folders:
                with Directory(str(path)) as work:
                    for name in list(work.names()):
                        count += 1
                        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                            self.erase(work, name)
        return count


def _rest(folder: Folder) -> int:
    """Remove the directory of files, with those that no line was about; how many they were."""
    count = 0
    try:
        folder.dir.rmdir("files")  # as a rule there are none, and it need not be read
    except OSError:
        for file in list(folder.files.names()):
            there = folder.files.stat_or_none(file)
            with contextlib.suppress(OSError):  # a directory, which is none of ours
                folder.files.unlink(file)
                count += there is not None and not is_unfinished(there)
    return count
