"""Uploads on their way: counted while their bytes come in, and gone from the disk when refused.

Gradio writes each file of an upload to a temporary file, hashes it meanwhile, and renames it to its
place in the cache when the request is over. Only then is it saved. Until then its bytes count here:
against ``max_file`` and ``max_store`` as any save's, against ``min_free`` on both disks, and
against ``max_session`` and ``max_session_files`` together with the owner's other uploads on their
way. What the owner has in the store counts when the file is saved, since only then is it known
which file it replaces.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from sessionstore.errors import LimitExceeded
from sessionstore.limits import Admission, Limits, Unlimited
from sessionstore.names import private_key
from sessionstore.oserrors import translated
from sessionstore.values import show_size

if TYPE_CHECKING:
    from sessionstore.adapters.gradio_files import Files

current: Final[ContextVar[Upload | None]] = ContextVar("sessionstore_upload", default=None)
"""The upload that a request is, while Gradio receives it."""


@contextmanager
def uploading(upload: Upload) -> Iterator[None]:
    """Around what Gradio does with the request."""
    token = current.set(upload)
    try:
        yield
    finally:
        current.reset(token)


_numbers: Final = itertools.count(1)


@dataclass(slots=True, eq=False)
class _Part:
    """One file of an upload. ``file`` is Gradio's, with the hash that its directory is named by."""

    file: Any
    temporary: Path
    inode: int
    admission: Admission | Unlimited | None = None

    @property
    def directory(self) -> str:
        return str(self.file.sha.hexdigest())


class Upload:
    """The files of one request. ``owner`` asks who sends it."""

    def __init__(self, files: Files, owner: Callable[[], Awaitable[str | None]]) -> None:
        self._files = files
        self._owner = owner
        self._sid: str | None = None
        self._parts: list[_Part] = []
        self._inodes: set[int] = set()
        self.kept = False
        """Whether the files are in the store."""
        files.arriving.append(self)

    def began(self, file: Any) -> None:
        """Note that a file begins, in a temporary file of Gradio's."""
        inode = os.fstat(file.file.fileno()).st_ino
        self._inodes.add(inode)
        self._parts.append(_Part(file, Path(file.file.name), inode))

    async def write(self, file: Any, data: bytes, write: Callable[..., Awaitable[None]]) -> None:
        """Write the next bytes of a file, if there is room for them.

        Raises LimitExceeded; BackendUnavailable when the disk refuses.
        """
        if self._files.store.ledger.limits != Limits():
            if self._sid is None:
                self._sid = private_key("gradio uploads", await self._owner()).sid
            part = next(each for each in self._parts if each.file is file)
            await run_in_threadpool(self._admit, part, len(data))
        with translated("receive an upload", str(self._files.local.root)):
            await write(file, data)

    def _admit(self, part: _Part, count: int) -> None:
        ledger = self._files.store.ledger
        if part.admission is None:
            # Several files of one name are several files here.
            name = f"{part.file.filename} (upload {next(_numbers)})"
            admission = ledger.admission(self._sid or "", name, fresh=True)
            admission.__enter__()
            part.admission = admission
        part.admission.admit(count)
        limit = ledger.limits.min_free
        free = shutil.disk_usage(part.temporary.parent).free if limit is not None else 0
        if limit is not None and free - count < limit:
            raise LimitExceeded(
                f"An upload would leave less than min_free={show_size(limit)} on the disk of "
                f"GRADIO_TEMP_DIR, which has {show_size(free)}: free some space.",
                limit="min_free",
            )

    def count_no_more(self) -> None:
        """Give back what was admitted: the files are complete, or given up. Twice is no error."""
        for part in self._parts:
            admission, part.admission = part.admission, None
            if admission is not None:
                admission.__exit__()

    def over(self) -> None:
        """Remove what the request leaves behind. To be called by the event loop, at one go.

        Gradio renames a file to its place in one go of the event loop too. So each file of another
        upload is either still a temporary one, or complete, with its hash.
        """
        self._files.arriving.remove(self)
        for part in self._parts:
            with contextlib.suppress(OSError):
                part.file.file.close()
            with contextlib.suppress(OSError):
                part.temporary.unlink()  # one that is in its place is here no more
            if not self.kept:
                self._remove(part.directory)

    def _remove(self, directory: str) -> None:
        """Remove the files of this upload from a directory of the cache, if nobody needs them."""
        local = self._files.local
        place = local.root / directory
        others = [
            each
            for each in self._files.arriving
            if any(part.directory == directory for part in each._parts)  # noqa: SLF001 - our own kind
        ]
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(place)):
                if entry.inode() not in self._inodes:
                    continue
                if others:  # which will remove it, if need be
                    others[0]._inodes.add(entry.inode())  # noqa: SLF001 - our own kind
                else:
                    local.discard(f"{directory}/{entry.name}")
            place.rmdir()  # which refuses one that is not empty
