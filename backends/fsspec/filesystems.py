"""Adapters from fsspec's file systems to the object protocol, one for each way to write.

``Files``        an object store: a file appears when it is closed, complete and atomically
``MemoryFiles``  fsspec's memory: it shows a file while it is written, and readers share a position
``LocalFiles``   a disk: write a temporary file, then rename it; empty directories are removed
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, BinaryIO, ClassVar, Final

import fsspec
from fsspec.asyn import AsyncFileSystem, sync

from sessionstore.errors import BackendUnavailable

from ..objects.client import Entry, Payload

WHOLE = 5 << 20
"""Bytes of a file written in one call, and of a larger file's blocks: the least part of S3."""

PARTS = 9_000
"""The most blocks, a little under S3's 10,000 parts. Beyond it the blocks grow."""

BLOCK = 1 << 21
"""Bytes that fsspec reads per request."""

PIECE = 1 << 18
"""Bytes that are copied at a time when a file is written."""

AT_ONCE = 32
"""Deletions in parallel."""

TIMES = ("LastModified", "uploaded_at", "last_modified", "updated", "created", "modified", "mtime")
"""The fields with the time when the store accepted a file, in the order of preference, of s3fs,
huggingface_hub (its ``mtime`` is from the client), adlfs, gcsfs, memory."""

TEMPORARY = "tmp/"
"""The directory of unfinished files on a disk, before they are renamed."""


class Files:
    """One file system, below one path. Errors of the file system pass through."""

    arguments: ClassVar[Mapping[str, Any]] = {}
    """Arguments of the file system in addition to those of the user."""

    sees_unfinished: ClassVar[bool] = False
    """Whether ``unfinished`` finds all unfinished writes."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs = fs
        self.root: Final = root.rstrip("/")
        kind: Any = type(fs)
        self._lists_flat = (
            kind.find is not fsspec.AbstractFileSystem.find
            if not isinstance(fs, AsyncFileSystem)
            else kind._find is not AsyncFileSystem._find  # noqa: SLF001 - the method that an implementation overrides
        )

    def path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def put(self, key: str, payload: Payload) -> None:
        """Write a file, which must not be visible before it is complete."""
        if payload.size <= WHOLE:
            self.fs.pipe_file(self.path(key), payload.read())
        else:
            self._stream(self.path(key), payload)

    def _stream(self, path: str, payload: Payload) -> None:
        size = max(WHOLE, -(-payload.size // PARTS))
        file = self.fs.open(path, "wb", block_size=size)
        try:
            with payload.open() as source:
                shutil.copyfileobj(source, file, PIECE)
            file.close()
        except BaseException:
            with suppress(Exception):  # the error of the write is the one to raise
                file.discard()
            with suppress(AttributeError):
                file.closed = True  # ``close()`` would save what is there
            raise

    def open(self, key: str, start: int, length: int | None) -> BinaryIO:
        """Open a file at the byte ``start``. Raises FileNotFoundError, or the first read does."""
        file: BinaryIO = self.fs.open(self.path(key), "rb", block_size=BLOCK)
        if start:
            file.seek(start)
        return file

    def starting(self, prefix: str) -> Iterator[Entry]:
        """Yield all files with keys that begin with ``prefix``, in no order.

        An incomplete listing is an error.
        """
        directory, _, rest = prefix.rpartition("/")
        if not rest:
            yield from self.tree(directory)
            return
        for info in self._infos(self.path(directory).rstrip("/")):
            if info["name"].startswith(self.path(prefix)):
                yield from self._below(info)

    def tree(self, directory: str) -> Iterator[Entry]:
        """Yield all files below ``directory``, likewise."""
        path = self.path(directory).rstrip("/")
        return self._below({"name": path, "type": "directory"})

    def _below(self, info: Mapping[str, Any]) -> Iterator[Entry]:
        """Yield the file that an entry of a listing describes, or all files of the directory.

        An empty listing is read a second time, because a sweep deletes the content of references
        that are missing here. fsspec's default ``find`` uses ``walk``, which skips a directory that
        cannot be listed, so such a file system is walked here instead.
        """
        path = info["name"].rstrip("/")
        if info["type"] != "directory":
            yield self.found(info)
        elif self._lists_flat:
            for file in self._flat(path) or self._flat(path):
                # A file system may list the path itself as an entry.
                if file["type"] == "file" and file["name"] != path:
                    yield self.found(file)
        else:
            for entry in self._infos(path) or self._infos(path):
                yield from self._below(entry)

    def _flat(self, path: str) -> Collection[Mapping[str, Any]]:
        self.fs.invalidate_cache()
        try:
            found: Mapping[str, Mapping[str, Any]] = self.fs.find(path, detail=True)
        except FileNotFoundError:
            return ()
        return found.values()

    def _infos(self, path: str) -> Sequence[Mapping[str, Any]]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return [info for info in found if info["name"].rstrip("/") != path.rstrip("/")]

    def found(self, info: Mapping[str, Any]) -> Entry:
        """Return the file that an entry of a listing describes."""
        for name in TIMES:
            if info.get(name) is not None:
                key = info["name"][len(self.path("")) :]
                return Entry(key, int(info["size"] or 0), _time(info[name]))
        raise BackendUnavailable(
            "The file system does not report when a file was stored, so the age of content is "
            "unknown: use another file system."
        )

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files; a missing one is no error. All are tried before the first error is raised.

        Each file is a request of its own: the bulk request of s3fs does not report which files it
        could not delete.
        """
        paths = [self.path(key) for key in keys]
        if isinstance(self.fs, AsyncFileSystem):
            errors = sync(self.fs.loop, _delete_all, self.fs, paths)
        else:
            errors = [error for path in paths if (error := self._delete(path)) is not None]
        for error in errors:
            raise error

    def _delete(self, path: str) -> Exception | None:
        try:
            self.fs.rm_file(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 - raised after all others were tried
            return error
        return None

    def unfinished(self) -> Iterator[Entry]:
        """Yield the unfinished files of killed processes, as far as they are visible."""
        return iter(())


class MemoryFiles(Files):
    """fsspec's memory: files that end with this process."""

    sees_unfinished: ClassVar[bool] = True  # a killed process leaves none

    _lock: ClassVar[threading.RLock] = threading.RLock()
    """One lock for all instances, because they share one dictionary."""

    def put(self, key: str, payload: Payload) -> None:
        data = payload.read()
        with self._lock:
            self.fs.pipe_file(self.path(key), data)

    def open(self, key: str, start: int, length: int | None) -> BinaryIO:
        end = None if length is None else start + length
        with self._lock:
            return BytesIO(self.fs.cat_file(self.path(key), start or None, end))

    def starting(self, prefix: str) -> Iterator[Entry]:
        with self._lock:
            return iter([*super().starting(prefix)])

    def _delete(self, path: str) -> Exception | None:
        with self._lock:
            return super()._delete(path)


class LocalFiles(Files):
    """A local disk through fsspec. Prefer ``file://``, unless you need exactly this.

    The time of a file is that of its rename (``st_ctime``), when it becomes visible to others. The
    time of content is the earlier time of its writing (``st_mtime``), which ``chmod`` keeps.
    """

    arguments: ClassVar[Mapping[str, Any]] = {"auto_mkdir": True}
    sees_unfinished: ClassVar[bool] = True

    def put(self, key: str, payload: Payload) -> None:
        temporary = self.path(f"{TEMPORARY}{secrets.token_hex(16)}")
        try:
            with self.fs.open(temporary, "wb") as file, payload.open() as source:
                shutil.copyfileobj(source, file, PIECE)
            self._rename(temporary, self.path(key))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _rename(self, temporary: str, path: str) -> None:
        while os.path.exists(temporary):
            # Another process may remove the empty directory between the two calls: try again.
            with suppress(FileNotFoundError):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(temporary, path)
                return
        message = "another process removed the file while it was being saved"
        raise FileNotFoundError(errno.ENOENT, message, path)

    def _infos(self, path: str) -> Sequence[Mapping[str, Any]]:
        """Return the entries of a directory. No file that exists throughout is missed.

        A file replaced during the scan may be gone before ``stat``, and its new version too late
        for the scan. Then the directory is read again, which fsspec's own listing does not do.
        """
        while True:
            try:
                with os.scandir(path) as entries:
                    found = [(e.path, e.is_dir(follow_symlinks=False)) for e in entries]
                return [self._info(path, is_directory) for path, is_directory in found]
            except FileNotFoundError:
                if not os.path.isdir(path):
                    return []
            except NotADirectoryError:
                return []

    def _info(self, path: str, is_directory: bool) -> Mapping[str, Any]:  # noqa: FBT001 - private
        if is_directory:
            return {"name": path, "type": "directory"}
        stat = os.stat(path)
        is_content = path.startswith(self.path("b/"))
        modified = stat.st_mtime if is_content else stat.st_ctime
        return {"name": path, "type": "file", "size": stat.st_size, "modified": modified}

    def delete(self, keys: Sequence[str]) -> None:
        super().delete(keys)
        for directory in {os.path.dirname(self.path(key)) for key in keys}:
            if directory != self.path(TEMPORARY).rstrip("/"):
                self._prune(directory)

    def _prune(self, directory: str) -> None:
        with suppress(OSError):  # the directory is not empty
            while len(directory) > len(self.root):
                os.rmdir(directory)
                directory = os.path.dirname(directory)

    def unfinished(self) -> Iterator[Entry]:
        return self.tree(TEMPORARY)


async def _delete_all(fs: Any, paths: Sequence[str]) -> list[Exception]:
    """Delete ``paths``, ``AT_ONCE`` in parallel, and return the errors."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def delete(path: str) -> None:
        async with gate:
            with suppress(FileNotFoundError):
                await fs._rm_file(path)  # noqa: SLF001 - the coroutine that its rm_file runs

    done = await asyncio.gather(*map(delete, paths), return_exceptions=True)
    return [error for error in done if isinstance(error, Exception)]


def _time(value: Any) -> datetime:
    """Return a time of a listing as UTC, cut to the second.

    ``value`` is a ``datetime`` (UTC if it has no zone), seconds since 1970, or an ISO 8601 text.
    """
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    elif isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    whole: datetime = value.astimezone(UTC).replace(microsecond=0)
    return whole
