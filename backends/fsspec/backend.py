"""A store in an object store that fsspec supports, or in its memory or local file system.

    gs://bucket/prefix        az://container/prefix        hf://buckets/user/bucket/prefix
    fsspec+s3://bucket/prefix?storage_options={"endpoint_url":"http://127.0.0.1:9000"}

``ObjectBackend`` implements the protocol. It needs a file system that shows a file only when it is
complete, lists a file as soon as it is written, and has the times of the store's clock.
``protocols`` lists the file systems that do, and those that are refused; others are accepted
with a warning. docs/fsspec.md has recipes. For S3 itself, the ``s3://`` backend needs half the CPU
and a third of the requests.
"""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, ClassVar, Final, Self, cast

from sessionstore._streams import ReadStream
from sessionstore.clock import Clock
from sessionstore.errors import SessionStoreError
from sessionstore.model import Location
from sessionstore.parsers import Parser

from ..objects import keys
from ..objects.backend import ObjectBackend
from ..objects.client import BATCH, Download, NotFound, Page, Payload, Upload
from ..objects.connection import Connection
from ..objects.errors import CLOSED
from ..objects.layout import Marker
from .errors import translate
from .filesystems import Files
from .protocols import Where

__all__ = ["FsspecBackend", "FsspecClient"]


def storage_options(value: object) -> Mapping[str, Any]:
    """Parse the arguments of the file system: a table, or JSON as text."""
    try:
        arguments = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        arguments = None
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise ValueError('write a table, or JSON such as {"endpoint_url": "http://127.0.0.1:9000"}')
    return dict(arguments)


class FsspecClient:
    """One directory of one file system, which is created at its first use and after a fork.

    While the store is being opened, a failure that another setting cures is a SettingsError.
    """

    shows_date: ClassVar[bool] = False

    def __init__(self, where: Where) -> None:
        self.where = where
        self.opening = True
        self._closed = False
        self.connection: Final = Connection(where.files)
        self._marker = Marker(self.get, where.url)

    def put(self, key: str, payload: Payload) -> datetime | None:
        with self._translating("save an object") as files:
            files.put(key, payload)
        return None

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        with self._translating("read an object") as files:
            reopen = partial(files.open, key, start, length)
            try:
                stream = io.BufferedReader(_Stream(reopen(), length, self, reopen))
                stream.peek(1)  # s3fs sends the request, and notices a missing file, only here
            except FileNotFoundError as error:
                raise NotFound(key) from error
        return Download(cast("BinaryIO", stream))

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        """Yield pages of a listing that is read as a whole: fsspec has no pages."""
        with self._translating("list the objects") as files:
            found = sorted(entry for entry in files.starting(prefix) if entry.key > start_after)
        if not found:
            self._marker.confirm(prefix, opening=self.opening)
        for start in range(0, len(found) or 1, page_size):
            yield Page(found[start : start + page_size], None)

    def delete(self, keys: Sequence[str]) -> datetime | None:
        with self._translating("delete objects") as files:
            files.delete(keys)
        return None

    def abort(self, key: str, upload: str) -> None:
        self.delete([upload])

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the unfinished files of killed processes on a disk; object stores hide theirs."""
        with self._translating("list unfinished files") as files:
            found = [*files.unfinished()]
        for file in found:
            yield Upload(file.key, file.key, file.modified)

    @property
    def sees_uploads(self) -> bool:
        with self._translating("look at the file system") as files:
            return files.sees_unfinished

    def close(self) -> None:
        self._closed = True
        self.connection.forget()  # it has no close(); its HTTP sessions are freed with it

    def probe(self, key: str) -> None:
        next(self.list(key))

    @contextmanager
    def _translating(self, doing: str) -> Iterator[Files]:
        if self._closed:
            raise CLOSED.error(doing, self.where.url, {}, opening=False)
        try:
            yield self.connection.client
        except (SessionStoreError, NotFound):
            raise
        except Exception as error:
            raise self.ours(error, doing) from error

    def ours(self, error: Exception, doing: str) -> Exception:
        return translate(error, doing, self.where.url, opening=self.opening)


class FsspecBackend(ObjectBackend):
    """Files in a file system of fsspec.

    Options: those of every object store (``grace``, ``digest``), and ``storage_options``: the
    arguments of the file system, as a table or as JSON.
    """

    options: ClassVar[Mapping[str, Parser]] = {
        **ObjectBackend.options,
        "storage_options": storage_options,
    }

    client: FsspecClient

    @classmethod
    def open_client(cls, location: Location, options: Mapping[str, object]) -> FsspecClient:
        given = cast("Mapping[str, Any]", options.get("storage_options", {}))
        where = Where.of(location, given)
        where.warn()
        client = FsspecClient(where)
        client.probe(keys.LAYOUT)
        return client

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        backend = super().connect(location, options, clock)
        backend.client.opening = False
        return backend


class _Stream(ReadStream):
    """The first ``length`` bytes of a file, or all (None). It translates errors.

    ``reopen`` opens the file again, once, when the first read finds a changed file.
    """

    def __init__(
        self,
        file: BinaryIO,
        length: int | None,
        client: FsspecClient,
        reopen: Callable[[], BinaryIO],
    ) -> None:
        self._stream: BinaryIO = file
        self._left = length
        self._client = client
        self._reopen: Callable[[], BinaryIO] | None = reopen

    def _take(self, size: int) -> bytes:
        size = size if self._left is None else min(size, self._left)
        first = self._reopen is not None
        try:
            data = self._read(size) if size else b""
        except Exception as error:
            if first and isinstance(error, FileNotFoundError):
                raise  # during ``peek`` in ``get``, which makes NotFound of it
            raise self._client.ours(error, "read an object") from error
        self._left = None if self._left is None else self._left - len(data)
        return data

    def _read(self, size: int) -> bytes:
        reopen, self._reopen = self._reopen, None
        try:
            return self._stream.read(size)
        except OSError as error:
            # s3fs reads exactly the version that it opened. The store may have rewritten a session
            # object since, for which s3fs raises EBUSY.
            if reopen is None or error.errno != errno.EBUSY:
                raise
        self._stream.close()
        self._stream = reopen()
        return self._stream.read(size)
