"""Uploads in progress: counted while they are received, and removed from the disk when refused.

Gradio writes each file to a temporary file, hashes it at the same time, and renames it to its place
at the end of the request. It is saved as soon as it is complete, while the next file arrives. If
the request fails after that, the saved file expires as an upload that no event uses. Until its save
its bytes count here, for ``max_session`` and ``max_session_files`` together with the owner's other
uploads in progress, and for ``max_owner`` and ``max_owner_files`` with all files of the owner too.
The session's stored files count at the save: only then is it known which file it replaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from sessionstore._os.errors import translated
from sessionstore._threads import run_on
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.cache import Stamp, stamp_of
from sessionstore.adapters.gradio.cache_files import LARGE, SMALL, UNCLAIMED
from sessionstore.errors import InvalidName, LimitExceeded
from sessionstore.limits import Reservation
from sessionstore.names import HIDDEN, private_key
from sessionstore.parsers import show_size

if TYPE_CHECKING:
    from sessionstore.adapters.gradio.cache_files import CacheFiles
    from sessionstore.model import Reference, SessionKey

current: Final[ContextVar[Upload | None]] = ContextVar("sessionstore_upload", default=None)
"""The upload of the current request, while Gradio receives it."""


@contextmanager
def uploading(upload: Upload) -> Iterator[None]:
    """Context manager for Gradio's handling of the request."""
    token = current.set(upload)
    try:
        yield
    finally:
        current.reset(token)


_numbers: Final = itertools.count(1)
_arriving: Final[weakref.WeakKeyDictionary[CacheFiles, list[Upload]]] = weakref.WeakKeyDictionary()


def arriving(files: CacheFiles) -> list[Upload]:
    """Return the uploads that are being received or saved into ``files``."""
    return _arriving.setdefault(files, [])


@dataclass(slots=True, eq=False)
class _Part:
    """One file of an upload. ``file`` is Gradio's; its hash names its directory in the cache.

    ``name`` is the name in the cache that Gradio is going to give the complete file.
    """

    file: Any
    temporary: str
    name: str = ""
    reservation: Reservation | None = None
    save: asyncio.Task[tuple[Reference, Stamp]] | None = None
    saved: tuple[Reference, Stamp] | None = None

    @property
    def directory(self) -> str:
        return str(self.file.sha.hexdigest())

    def opened(self) -> FileIO:
        """Return the file with a descriptor of its own.

        A request that is cancelled closes Gradio's, while a thread may still read the file. The
        number may then be that of another visitor's file.
        """
        return FileIO(os.dup(self.file.file.fileno()))

    def count_no_more(self) -> None:
        """Release the quota of the file. Twice is no error."""
        admission, self.reservation = self.reservation, None
        if admission is not None:
            admission.__exit__()


class Upload:
    """The files of one request. ``owner`` returns the owner of its sender."""

    def __init__(self, files: CacheFiles, owner: Callable[[], Awaitable[str | None]]) -> None:
        self._files = files
        self._owner = owner
        self._key: SessionKey | None = None
        self._parts: list[_Part] = []
        self._inodes: set[int] = set()
        self._turns = asyncio.Semaphore(files.at_once)
        self.kept: bool = False
        """True when the files are in the store."""
        arriving(files).append(self)

    def began(self, file: Any) -> None:
        """Note a new file, which Gradio writes to a temporary file."""
        self._inodes.add(os.fstat(file.file.fileno()).st_ino)
        self._parts.append(_Part(file, file.file.name))

    async def write(self, file: Any, data: bytes, write: Callable[..., Awaitable[None]]) -> None:
        """Write the next bytes. Raises LimitExceeded; BackendUnavailable for a failing disk."""
        if self._files.store.ledger.limited:
            if self._key is None:
                self._key = private_key("gradio uploads", await self._owner())
            await run_in_threadpool(self._admit, self._key, self._part(file), len(data))
        with translated("receive an upload", str(self._files.local.root)):
            if file.size is None or file.size + len(data) > SMALL:
                await write(file, data)
            else:  # as Gradio's, without a worker thread
                file.size += len(data)
                file.file.write(data)

    def _part(self, file: Any) -> _Part:
        return next(part for part in self._parts if part.file is file)

    async def complete(self, file: Any, rewind: Callable[[], object]) -> None:
        """``rewind`` a file that has arrived, and save it. Gradio is about to rename it.

        On a bucket the save only begins. On a disk it costs more to have another thread do it than
        it takes.
        """
        part, owner = self._part(file), await self._owner()
        part.name = f"{part.directory}/{compat.cache_name(file.filename)}"
        if self._files.at_once == 1:
            backend = self._files.store.backend
            part.saved = await run_on(backend, self._rewound, part, owner, rewind, part.opened())
        else:
            await run_in_threadpool(rewind)
            part.save = asyncio.create_task(self._save(part, owner, part.opened()))

    def _rewound(
        self, part: _Part, owner: str | None, rewind: Callable[[], object], stream: FileIO
    ) -> tuple[Reference, Stamp] | None:
        with stream, contextlib.suppress(InvalidName):
            rewind()  # it also writes what is buffered
            return self._saved(part, owner, stream)
        return None  # Gradio refuses the name too, or gives the file another one

    async def _save(
        self, part: _Part, owner: str | None, stream: FileIO
    ) -> tuple[Reference, Stamp]:
        with stream:
            async with self._turns:
                return await run_on(self._files.store.backend, self._saved, part, owner, stream)

    def _saved(self, part: _Part, owner: str | None, stream: FileIO) -> tuple[Reference, Stamp]:
        """Save the complete file; return its version, and the stamp that it will have."""
        part.count_no_more()  # the save counts for itself
        home, stamp = self._files.unclaimed(owner), stamp_of(os.fstat(stream.fileno()))
        bytes_ = stream.read() if stamp[1] <= LARGE else stream  # less work than piece by piece
        # The name is the hash of the bytes: there is no version with others.
        seen = home.sid in self._files.seen.sessions(owner, part.name)
        fresh = self._files.at_once > 1 and not seen
        return home.put(part.name, bytes_, UNCLAIMED, fresh=fresh).reference, stamp

    async def keep(self, names: Iterable[str]) -> None:
        """Have these files of the cache in the store. Raises as ``Session.put``."""
        owner, parts = await self._owner(), {part.name: part for part in self._parts}
        for name in names:
            part = parts.get(name)
            saved = None if part is None else part.saved
            if part is not None and part.save is not None:
                saved = await part.save
            if saved is not None and self._files.local.stamp(name) == saved[1]:
                self._files.noted(self._files.unclaimed(owner), owner, name, *saved)
                self._files.local.settle(name)
            else:
                await run_on(self._files.store.backend, self._files.keep_upload, owner, name)
        if self._files.local.is_over():
            await run_on(self._files.store.backend, self._files.local.make_room)
        self.kept = True

    def _admit(self, key: SessionKey, part: _Part, count: int) -> None:
        ledger = self._files.store.ledger
        if part.reservation is None:
            # The number makes several files of one name count as several. The prefix has the form
            # that ``visitor_errors`` removes from a message for the visitor.
            name = f"{HIDDEN}{next(_numbers):x}/{part.file.filename}"
            admission = ledger.reservation(key, name, fresh=True)
            admission.__enter__()
            part.reservation = admission
        part.reservation.admit(count)
        limit = ledger.limits.min_free
        place = os.path.dirname(part.temporary)
        free = shutil.disk_usage(place).free if limit is not None else 0
        if limit is not None and free - count < limit:
            raise LimitExceeded(
                f"The upload would leave less than min_free={show_size(limit)} on the disk of "
                f"GRADIO_TEMP_DIR, which has {show_size(free)} free: free some space.",
                limit="min_free",
            )

    async def settle(self) -> None:
        """Wait until no file is being saved, and release the quota of those that were not."""
        saves = [part.save for part in self._parts if part.save is not None]
        if not all(save.done() for save in saves):
            await asyncio.wait(saves)
        for save in saves:
            if not save.cancelled():
                save.exception()  # asyncio would log one that it believes to be lost
        for part in self._parts:
            if part.reservation is not None:
                await run_in_threadpool(part.count_no_more)

    def over(self) -> None:
        """Remove the files that the request leaves behind. Call it on the event loop."""
        # Neither this nor Gradio's rename of a file to its place gives control to the event loop
        # in between. So each file of another upload is a temporary one, or complete with its hash.
        arriving(self._files).remove(self)
        for part in self._parts:
            with contextlib.suppress(OSError):
                part.file.file.close()
            with contextlib.suppress(OSError):
                os.unlink(part.temporary)  # it does not exist if it was renamed to its place
            if not self.kept:
                self._remove(part.directory)

    def _remove(self, directory: str) -> None:
        """Remove this upload's files from a directory of the cache, unless another needs them."""
        local = self._files.local
        place = local.root / directory
        others = [
            upload
            for upload in arriving(self._files)
            if any(part.directory == directory for part in upload._parts)  # noqa: SLF001 - same class
        ]
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(place)):
                if entry.inode() not in self._inodes:
                    continue
                if others:  # another upload of the same file removes it if that is refused too
                    others[0]._inodes.add(entry.inode())  # noqa: SLF001 - same class
                else:
                    local.discard(f"{directory}/{entry.name}")
            place.rmdir()  # fails when it is not empty
