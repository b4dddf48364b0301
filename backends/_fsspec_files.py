"""File systems of fsspec as the object protocol needs them, by how they write.

``Files``        an object store: a file is there when it is closed, whole and at once
``MemoryFiles``  fsspec's own memory, which shows a file while it is written and shares its position
``LocalFiles``   a disk: written beside, then renamed; directories that are empty go
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, BinaryIO, ClassVar, NamedTuple

import fsspec
from fsspec.asyn import AsyncFileSystem, sync

from sessionstore.backends.objects_client import Payload
from sessionstore.errors import BackendUnavailable

WHOLE = 5 << 20
"""Bytes up to which a file is written in one call, and of each block beyond: the least part that
S3 takes."""

PARTS = 9_000
"""The most blocks, a little under S3's 10,000 parts."""

BLOCK = 1 << 21
"""Bytes that are read at a time."""

PIECE = 1 << 18

AT_ONCE = 32
"""Deletions on their way at once."""

TIMES = ("LastModified", "uploaded_at", "last_modified", "updated", "created", "modified", "mtime")
"""What file systems call the time at which the store took a file: s3fs, huggingface_hub (whose
``mtime`` is the client's), adlfs, gcsfs, memory."""

TEMPORARY = "tmp/"
"""Where a disk's files are written before they are renamed."""


class Found(NamedTuple):
    """One file in a listing, by its path."""

    path: str
    size: int
    modified: datetime


class Files:
    """One file system, below one path. Raises what the file system raises."""

    arguments: ClassVar[Mapping[str, Any]] = {}
    """What the file system is made with besides what the user says."""

    sees_unfinished: ClassVar[bool] = False
    """Whether ``unfinished`` finds all that there is."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        kind: Any = type(fs)
        self._lists_flat = (
            kind.find is not fsspec.AbstractFileSystem.find
            if not isinstance(fs, AsyncFileSystem)
            else kind._find is not AsyncFileSystem._find  # noqa: SLF001 - what its authors override
        )

    def path(self, key: str) -> str:
        return f"{self.root}/{key}"

    # Writing

    def put(self, key: str, payload: Payload) -> None:
        """Nobody sees it before it is there whole."""
        if payload.size <= WHOLE:
            self.fs.pipe_file(self.path(key), payload.read())
        else:
            self._stream(self.path(key), payload)

    def _stream(self, path: str, payload: Payload) -> None:
        size = max(WHOLE, -(-payload.size // PARTS))
        file = self.fs.open(path, "wb", block_size=size)
        try:
            with payload.open() as source:
                while chunk := source.read(PIECE):
                    file.write(chunk)
            file.close()
        except BaseException:
            _throw_away(file)
            raise

    # Reading

    def open(self, key: str, start: int, length: int | None) -> BinaryIO:
        """Raises FileNotFoundError here."""
        file: BinaryIO = self.fs.open(self.path(key), "rb", block_size=BLOCK)
        if start:
            file.seek(start)
        return file

    # Listing

    def tree(self, directory: str) -> Iterator[Found]:
        """All files below a directory, in no order. Ends early with an error only.

        What says that there is nothing is asked once more: a sweep deletes what it misses here.
        fsspec's own ``walk``, which ``find`` is made of unless it is overridden, passes over a
        directory that cannot be listed.
        """
        path = self.path(directory).rstrip("/")
        if self._lists_flat:
            found = self._flat(path) or self._flat(path)
            yield from (self.found(it) for it in found if _is_below(path, it))
        else:
            yield from self._walk(path)

    def _flat(self, path: str) -> Collection[Mapping[str, Any]]:
        self.fs.invalidate_cache()
        try:
            found: Mapping[str, Mapping[str, Any]] = self.fs.find(path, detail=True)
        except FileNotFoundError:
            return ()
        return found.values()

    def _walk(self, path: str) -> Iterator[Found]:
        for info in self._infos(path) or self._infos(path):
            if info["type"] == "directory":
                yield from self._walk(info["name"])
            else:
                yield self.found(info)

    def directory(self, directory: str) -> Iterator[tuple[str, Found | None]]:
        """What stands directly in a directory: each file's or directory's path, and the file."""
        for info in self._infos(self.path(directory).rstrip("/")):
            if info["type"] == "directory":
                yield info["name"].rstrip("/"), None
            else:
                found = self.found(info)
                yield found.path, found

    def _infos(self, path: str) -> Sequence[Mapping[str, Any]]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return [info for info in found if info["name"].rstrip("/") != path.rstrip("/")]

    def found(self, info: Mapping[str, Any]) -> Found:
        """A file of a listing."""
        return Found(info["name"], int(info["size"] or 0), self._modified(info))

    def _modified(self, info: Mapping[str, Any]) -> datetime:
        for name in TIMES:
            if info.get(name) is not None:
                return _time(info[name])
        raise BackendUnavailable(
            "The file system does not tell when the store took a file, which is what says how old "
            "content is: it cannot keep a store."
        )

    # Deleting

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files; one that is not there is no error. Raises the first error at the end.

        One by one: s3fs says nothing of what its request for many could not delete.
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
        except Exception as error:  # noqa: BLE001 - raised when all others were tried
            return error
        return None

    # Unfinished writes

    def unfinished(self) -> Iterator[Found]:
        """What writers that died have left, where it can be seen."""
        return iter(())


class MemoryFiles(Files):
    """fsspec's memory: files of this process, which go with it."""

    sees_unfinished: ClassVar[bool] = True  # there are none

    _lock: ClassVar[threading.RLock] = threading.RLock()
    """Of all, since they share one dictionary."""

    def put(self, key: str, payload: Payload) -> None:
        data = bytearray(payload.size)
        view, done = memoryview(data), 0
        with payload.open() as source:
            while count := source.readinto(view[done : done + PIECE]):
                done += count
        with self._lock:
            self.fs.pipe_file(self.path(key), data)

    def open(self, key: str, start: int, length: int | None) -> BinaryIO:
        end = None if length is None else start + length
        with self._lock:
            return BytesIO(self.fs.cat_file(self.path(key), start or None, end))

    def tree(self, directory: str) -> Iterator[Found]:
        with self._lock:
            return iter([*super().tree(directory)])

    def directory(self, directory: str) -> Iterator[tuple[str, Found | None]]:
        with self._lock:
            return iter([*super().directory(directory)])

    def _delete(self, path: str) -> Exception | None:
        with self._lock:
            return super()._delete(path)


class LocalFiles(Files):
    """A local disk. ``file://`` is better at it: this is fsspec's, for those who need just that.

    A file's time is that of its rename (``st_ctime``), since it is then that others see it. Of
    content it is the earlier time of its writing, which no ``chmod`` moves.
    """

    arguments: ClassVar[Mapping[str, Any]] = {"auto_mkdir": True}
    sees_unfinished: ClassVar[bool] = True

    def put(self, key: str, payload: Payload) -> None:
        beside = self.path(f"{TEMPORARY}{secrets.token_hex(16)}")
        try:
            with self.fs.open(beside, "wb") as file, payload.open() as source:
                while chunk := source.read(PIECE):
                    file.write(chunk)
            self._rename(beside, self.path(key))
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise

    def _rename(self, beside: str, path: str) -> None:
        while os.path.exists(beside):
            with suppress(FileNotFoundError):  # somebody found a directory empty, and took it away
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(beside, path)
                return
        raise FileNotFoundError(errno.ENOENT, "somebody removed a file that was being saved", path)

    def _infos(self, path: str) -> Sequence[Mapping[str, Any]]:
        """As one moment shows it, which fsspec's own listing does not.

        When a file is replaced while a directory is read, the old one may be gone before it is
        looked at and the new one have come too late to be read: so it is read again.
        """
        while True:
            try:
                with os.scandir(path) as entries:
                    found = [(each.path, each.is_dir(follow_symlinks=False)) for each in entries]
                return [self._info(name, is_directory) for name, is_directory in found]
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
        with suppress(OSError):  # not empty
            while len(directory) > len(self.root):
                os.rmdir(directory)
                directory = os.path.dirname(directory)

    def unfinished(self) -> Iterator[Found]:
        return self.tree(TEMPORARY)


async def _delete_all(fs: Any, paths: Sequence[str]) -> list[Exception]:
    """The errors of deleting them, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def delete(path: str) -> None:
        async with gate:
            with suppress(FileNotFoundError):
                await fs._rm_file(path)  # noqa: SLF001 - the coroutine that its rm_file runs

    done = await asyncio.gather(*map(delete, paths), return_exceptions=True)
    return [error for error in done if isinstance(error, Exception)]


def _is_below(path: str, info: Mapping[str, Any]) -> bool:
    return bool(info["type"] == "file" and info["name"] != path)


def _throw_away(file: Any) -> None:
    """End a write without the file: to close one of fsspec's buffered files would keep it."""
    with suppress(Exception):  # of what is thrown away nothing can go wrong
        file.discard()
    with suppress(AttributeError):
        file.closed = True


def _time(told: Any) -> datetime:
    """A time as one of these libraries has it, cut to the second."""
    if isinstance(told, int | float):
        told = datetime.fromtimestamp(told, UTC)
    elif isinstance(told, str):
        told = datetime.fromisoformat(told)
    if told.tzinfo is None:
        told = told.replace(tzinfo=UTC)
    whole: datetime = told.astimezone(UTC).replace(microsecond=0)
    return whole
