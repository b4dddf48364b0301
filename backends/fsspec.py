"""A store in any object store that fsspec reaches, and in its memory and local file systems.

    gs://bucket/prefix        az://container/prefix        hf://buckets/user/bucket/prefix
    fsspec+s3://bucket/prefix?storage_options={"endpoint_url":"http://127.0.0.1:9000"}

The protocol is ``ObjectBackend``'s. It asks of a file system that a file is seen only when it is
whole, that a listing shows what was written before, and that times are the store's. Which ones do,
which are refused and which are merely unknown stands in ``_fsspec_kinds``; docs/fsspec.md has
recipes. For S3 itself the ``s3://`` backend costs half the CPU and a third of the requests.
"""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

from sessionstore.backend import Location
from sessionstore.backends import objects_keys as keys
from sessionstore.backends._connection import Connection
from sessionstore.backends._fsspec_errors import ours
from sessionstore.backends._fsspec_files import Files, Found
from sessionstore.backends._fsspec_kinds import Where
from sessionstore.backends._marker import Marker
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects_client import (
    BATCH,
    Download,
    Entry,
    NotFound,
    Page,
    Payload,
    Upload,
)
from sessionstore.clock import Clock
from sessionstore.errors import BackendUnavailable, SessionStoreError
from sessionstore.values import Parser

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer  # type checkers know it without the package

__all__ = ["FsspecBackend", "FsspecClient"]


def storage_options(value: object) -> Mapping[str, Any]:
    """A parser of what a file system is made with: a table, or JSON as text."""
    try:
        told = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        told = None
    if not isinstance(told, Mapping) or not all(isinstance(name, str) for name in told):
        raise ValueError('write a table, or JSON such as {"endpoint_url": "http://127.0.0.1:9000"}')
    return dict(told)


class FsspecClient:
    """One directory of one file system. It is made when it is first needed, and after a fork.

    While the store is being opened, errors that another setting cures are SettingsErrors.
    """

    shows_date: ClassVar[bool] = False

    def __init__(self, where: Where) -> None:
        self.where = where
        self.opening = True
        self._closed = False
        self.connection = Connection(where.files)
        self._marker = Marker(self._read_marker, where.url)

    def put(self, key: str, payload: Payload) -> datetime | None:
        with self._asking("save an object") as files:
            files.put(key, payload)
        return None

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        with self._asking("read an object") as files:
            again = partial(files.open, key, start, length)
            try:
                stream = io.BufferedReader(_Stream(again(), length, self, again))
                stream.peek(1)  # s3fs asks for bytes, and finds that there are none, only then
            except FileNotFoundError as error:
                raise NotFound(key) from error
        return Download(cast("BinaryIO", stream), "", None)

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        """The whole listing comes at once: fsspec knows no pages."""
        entries = iter(self._entries(prefix, start_after))
        seen = False
        while page := list(islice(entries, page_size)):
            seen = True
            yield Page(page, None)
        if not seen:
            self._marker.confirm(prefix, opening=self.opening)
            yield Page([], None)

    def _entries(self, prefix: str, start_after: str) -> Sequence[Entry]:
        directory, _, rest = prefix.rpartition("/")
        with self._asking("list the objects") as files:
            found = _starting(files, directory, prefix) if rest else files.tree(directory)
            own = len(files.path(""))
            entries = [Entry(it.path[own:], it.size, it.modified) for it in found]
        return sorted(it for it in entries if it.key > start_after)

    def delete(self, keys: Sequence[str]) -> datetime | None:
        with self._asking("delete objects") as files:
            files.delete(keys)
        return None

    def abort(self, key: str, upload: str) -> None:
        self.delete([upload])

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """What writers left that died, on a local disk. Object stores show none by fsspec."""
        with self._asking("list unfinished files") as files:
            own = len(files.path(""))
            found = [*files.unfinished()]
        for it in found:
            yield Upload(it.path[own:], it.path[own:], it.modified)

    @property
    def sees_uploads(self) -> bool:
        """Whether ``uploads`` finds what killed processes left."""
        with self._asking("look at the file system") as files:
            return files.sees_unfinished

    def close(self) -> None:
        self._closed = True
        self.connection.forget()  # file systems have nothing to close; their sessions go with them

    def probe(self, key: str) -> None:
        """See that the place can be listed; one request."""
        next(self.list(key))

    # Asking

    @contextmanager
    def _asking(self, doing: str) -> Iterator[Files]:
        """Around a call: what fails is an error of ours."""
        if self._closed:
            raise BackendUnavailable(f"Could not {doing} in {self.where.url}: the store is closed.")
        try:
            yield self.connection.client
        except (SessionStoreError, NotFound):
            raise
        except Exception as error:
            raise self.ours(error, doing) from error

    def ours(self, error: Exception, doing: str) -> Exception:
        """The error to raise instead."""
        return ours(error, doing, self.where.url, opening=self.opening)

    def _read_marker(self) -> bytes:
        with self.get(keys.LAYOUT).stream as stream:
            return stream.read()


class FsspecBackend(ObjectBackend):
    """Files in what fsspec reaches.

    Options: those of every object store (``grace``, ``digest``), and ``storage_options``: what the
    file system is made with, as a table or as JSON.
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


class _Stream(io.RawIOBase):
    """The bytes of a file, ``length`` of them or all, the errors translated."""

    def __init__(
        self,
        file: BinaryIO,
        length: int | None,
        client: FsspecClient,
        again: Callable[[], BinaryIO],
    ) -> None:
        self._file = file
        self._left = length
        self._client = client
        self._again: Callable[[], BinaryIO] | None = again

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        into = memoryview(buffer).cast("B")
        into = into[: self._left] if self._left is not None else into
        first = self._again is not None
        try:
            data = self._read(len(into)) if into else b""
        except Exception as error:
            if first and isinstance(error, FileNotFoundError):
                raise  # ``get`` is looking
            raise self._client.ours(error, "read an object") from error
        into[: len(data)] = data
        self._left = None if self._left is None else self._left - len(data)
        return len(data)

    def _read(self, size: int) -> bytes:
        again, self._again = self._again, None
        try:
            return self._file.read(size)
        except OSError as error:
            # s3fs reads the version that it opened, and the store writes its notes anew.
            if again is None or error.errno != errno.EBUSY:
                raise
        self._file.close()
        self._file = again()
        return self._file.read(size)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _starting(files: Files, directory: str, prefix: str) -> Iterator[Found]:
    """The files whose keys begin so, where that is no whole directory."""
    beginning, own = files.path(prefix), len(files.path(""))
    for path, found in files.directory(directory):
        if not path.startswith(beginning):
            continue
        if found is None:
            yield from files.tree(path[own:])
        else:
            yield found
