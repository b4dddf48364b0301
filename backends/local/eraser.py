"""Remove whole session folders, and finish work that a crash or an error interrupted.

A dropped session is first moved atomically into this process's workspace, and then erased. If this
process fails after the move, the next garbage collection finds the folder and erases the rest.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator

from sessionstore._os.errors import FULL
from sessionstore.model import Dropped

from . import journal
from .directory import Directory, is_unfinished
from .session_dir import NEW, Disk, SessionDir

_DROPPED = ".drop"
_FILE_AND_BLOB = 2
_USUAL = (journal.NAME, "seen", "id", "ended")
_SELDOM = ("expiring", NEW)
"""The names in a session's folder besides the directory of its files."""


class Eraser:
    """Erases session folders that were moved out of the store's sessions."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._workspace = disk.workspace
        # Each of its methods is atomic, and a name is in it as long as a drop works there.
        self._busy: set[str] = set()

    @contextlib.contextmanager
    def taking(self, name: str = "") -> Iterator[tuple[Directory, str]]:
        """Reserve a name in this process's workspace for a block: (directory, name).

        No garbage collection touches it meanwhile. Without ``name`` a new one is made.
        """
        name = name or secrets.token_hex(8) + _DROPPED
        try:
            path = self._workspace.path
        except OSError as error:
            if error.errno not in FULL:
                raise
            # Without room for a workspace the name is that of one without an owner, which another
            # process may erase at the same time.
            path, name = self._workspace.parent, secrets.token_hex(8)
        self._busy.add(name)
        try:
            yield Directory(str(path), by_path=True), name
        finally:
            self._busy.discard(name)

    def erase(self, work: Directory, name: str, moved: SessionDir | None = None) -> Dropped:
        """Remove the moved folder ``name`` in ``work``, with the blobs that only it referred to.

        ``moved`` is that folder if it is open; it is closed.
        """
        if moved is not None and moved.dir.fd is None:  # without descriptors it has its former path
            moved.close()
            moved = None
        count = size = 0
        with contextlib.closing(moved or SessionDir(work, name, self._disk)) as folder:
            files = folder.files
            for file, token, length, digest in journal.kept(folder.dir):
                status = files.stat_or_none(file)
                if status is None or folder.token(status) != token or is_unfinished(status):
                    continue
                # As in ``Blobs.releasing``, but with one check. If a file has two names, the other
                # one is the blob's. If it is not, only a blob's name is lost.
                if status.st_nlink == _FILE_AND_BLOB:
                    self._disk.blobs.remove(digest)
                files.unlink(file)
                if status.st_nlink != _FILE_AND_BLOB:
                    self._disk.blobs.unlink(digest, links=1)
                count, size = count + 1, size + length
            count += _rest(folder)
            # Remove the expected names, in half of the time of a walk.
            if not (_removed(folder, work, name, _USUAL) or _removed(folder, work, name, _SELDOM)):
                with contextlib.suppress(FileNotFoundError):  # another process erases it too
                    shutil.rmtree(os.path.join(work.path, name))
        return Dropped(count, size)

    def finish_own(self) -> int:
        """Finish the drops of this process that an error stopped; return their number."""
        own = self._workspace.claimed
        names = [] if own is None else os.listdir(own)
        left = [name for name in names if name.endswith(_DROPPED) and name not in self._busy]
        for name in left:
            with self.taking(name) as (work, _):
                with contextlib.suppress(FileNotFoundError):
                    self.erase(work, name)
                shutil.rmtree(os.path.join(work.path, name), ignore_errors=True)
        return len(left)

    def finish_dead(self, and_then: Callable[[], int] = lambda: 0) -> int:
        """Finish the drops of killed processes, and call ``and_then()`` if there are any.

        Return the number of entries removed plus the result of ``and_then``.
        """
        count = 0
        self._workspace.renew()
        with self._workspace.dead() as folders:
            if folders:
                # First, while the folders still exist: if this process is killed during the call,
                # the next garbage collection makes it again.
                count += and_then()
            for path in folders:
                with Directory(str(path)) as work:
                    for name in list(work.names()):
                        count += 1
                        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                            self.erase(work, name)
        return count


def _removed(folder: SessionDir, work: Directory, name: str, entries: Iterable[str]) -> bool:
    """Remove these names and the folder; return False if it has others, or another error."""
    try:
        for entry in entries:
            folder.dir.unlink(entry)
        work.rmdir(name)
    except OSError:
        return False
    return True


def _rest(folder: SessionDir) -> int:
    """Remove the directory of files, with files that no line describes; return their number."""
    count = 0
    try:
        folder.dir.rmdir("files")  # usually it is empty, and need not be read
    except OSError:
        for file in list(folder.files.names()):
            status = folder.files.stat_or_none(file)
            with contextlib.suppress(OSError):  # a directory, which the store did not make
                folder.files.unlink(file)
                count += status is not None and not is_unfinished(status)
    return count
