"""The interface that the object protocol needs: eight requests, none of them conditional.

``ObjectBackend`` uses only this interface. An engine (boto3, obstore, fsspec) is a small class that
implements each method by one request of its library. The protocol relies on these properties:

* A key is a register: after a response, every GET and LIST that starts later sees the change.
* A LIST contains every entry that exists during all of its pages. The pages are not a snapshot.
* ``modified`` is the time when the store took the object, by the store's clock, to the second. For
  a multipart upload it may be the time of its beginning or of its completion.
* ``Date`` of a response comes from the same clock, and is not earlier than the execution of the
  request.

No metadata, no tags, no If-Match: for each of them there are stores that ignore it. Keys consist of
``[a-z0-9._!/-]``. They have no empty segment, at most 200 characters in a segment, and at most 900
in all.

Errors: ``get``, ``upload_part`` and ``complete`` raise ``NotFound``. The engine maps every other
error to ``sessionstore.errors`` with the cause chained: BackendUnavailable when the store or the
network refused a request, SettingsError when only another setting helps.
"""

from __future__ import annotations

import io
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, ClassVar, NamedTuple, Protocol, runtime_checkable

from sessionstore._streams import ReadStream
from sessionstore.content import Buffer

BATCH = 1000
"""Keys in one delete request: the maximum of S3's DeleteObjects."""


class NotFound(Exception):
    """No object has that key, or no upload has that id."""


class Entry(NamedTuple):
    """One object in a listing; ``size`` in bytes, ``modified`` aware UTC, to the second."""

    key: str
    size: int
    modified: datetime


class Page(NamedTuple):
    """One response to a LIST; ``date`` is its Date, None when the client cannot see it."""

    entries: Sequence[Entry]
    date: datetime | None = None


class Download(NamedTuple):
    """The response to a GET: the requested bytes; ``etag`` returns the ETag, for messages."""

    stream: BinaryIO
    etag: Callable[[], object] = str
    date: datetime | None = None


class Upload(NamedTuple):
    """A multipart upload that was started, and neither completed nor aborted."""

    key: str
    id: str
    started: datetime


class Part(NamedTuple):
    """One uploaded part of a multipart upload; numbers begin at 1."""

    number: int
    etag: str


class Window(ReadStream):
    """A range of a buffer or of a seekable file, as a seekable file of its own.

    Several threads may read windows of one file; all these windows share the file's ``lock``.
    """

    def __init__(
        self, source: Buffer | BinaryIO, lock: threading.Lock, start: int, size: int
    ) -> None:
        self._source = source
        self._lock = lock
        self._start = start
        self._size = size
        self._position = 0

    def seekable(self) -> bool:
        return True

    def __len__(self) -> int:
        """Return the number of bytes; HTTP clients use it for Content-Length."""
        return self._size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def _take(self, size: int) -> bytes:
        start, size = self._start + self._position, min(size, self._size - self._position)
        if size <= 0:
            return b""
        if isinstance(self._source, bytes | bytearray | memoryview):
            data = bytes(memoryview(self._source)[start : start + size])
        else:
            with self._lock:
                self._source.seek(start)
                data = self._source.read(size)
        self._position += len(data)
        return data


@dataclass(slots=True)
class Payload:
    """Bytes to upload, of a known length.

    ``source`` is a buffer (flat bytes) or a seekable binary file. ``start`` and ``size`` are in
    bytes. ``sha256`` is the hex digest of the bytes if it is known; the store checks them by it.
    """

    source: Buffer | BinaryIO
    start: int
    size: int
    sha256: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, data: bytes) -> Payload:
        return cls(data, 0, len(data))

    def open(self) -> Window:
        """Return the bytes as a new seekable file, without a copy."""
        return Window(self.source, self.lock, self.start, self.size)

    def read(self) -> bytes:
        if isinstance(self.source, bytes | bytearray | memoryview):
            return bytes(memoryview(self.source)[self.start : self.start + self.size])
        return self.open().readall()

    def mapped(self) -> Buffer | mmap.mmap:
        """Return the bytes; those of a file without a copy, as pages of the file.

        A buffer of some MiB would stay with the process: malloc(3) keeps such memory for each
        thread, to use it again.
        """
        if isinstance(self.source, io.FileIO) and self.start == 0 and self.size:
            return mmap.mmap(self.source.fileno(), self.size, access=mmap.ACCESS_READ)
        return self.read()

    def part(self, start: int, size: int) -> Payload:
        """Return a part of this payload, without a digest."""
        return Payload(self.source, self.start + start, size, None, self.lock)


class ObjectClient(Protocol):
    """One bucket, or one prefix of it; the client adds the prefix to every key.

    Every method may be called from any thread, and is one request unless its docstring differs. A
    client may repeat a failed request; docs/protocol-objects.md describes the cost of that.
    """

    shows_date: ClassVar[bool]
    """Whether responses have a date. If not, the protocol writes a small object now and then."""

    def put(self, key: str, payload: Payload) -> datetime | None:
        """Write an object atomically, replacing any object of that key; return the response's Date.

        A client that is not ``Multipart`` takes payloads of any size here, in little memory.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        """Get ``length`` bytes of an object from ``start`` on, or all the rest.

        The caller requests at least one byte, in a range within the object; only for the whole of
        an empty object may it be none. Raises NotFound here, not when the stream is read.
        """

    def list(self, prefix: str, *, start_after: str = "", page_size: int = 1000) -> Iterator[Page]:
        """Yield the objects with keys that begin with ``prefix`` and come after ``start_after``.

        Each page is one request, made when the page is needed. Keys of one directory come
        together. A listing never ends early without an error. An empty listing is one empty page.
        """

    def delete(self, keys: Sequence[str]) -> datetime | None:
        """Delete at most ``BATCH`` objects, in this order if the store supports an order.

        A missing key is not an error. Raises BackendUnavailable if an object could not be deleted,
        after deleting the others.
        """

    def abort(self, key: str, upload: str) -> None:
        """Abort an upload and delete its parts. A missing upload is not an error."""

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield uploads that are neither completed nor aborted; one request for each page."""

    def close(self) -> None:
        """Release the connections. Closing twice is not an error."""


@runtime_checkable
class Multipart(Protocol):
    """A client with multipart uploads, for large objects."""

    def begin(self, key: str) -> str:
        """Start a multipart upload; return its id."""

    def upload_part(self, key: str, upload: str, number: int, payload: Payload) -> Part:
        """Upload one part; all except the last have the same size of at least 5 MiB."""

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> datetime | None:
        """Create the object from its parts, atomically; return the response's Date."""


@runtime_checkable
class TakesSeveral(Protocol):
    """A client for which parallel requests are faster: its requests wait for a network."""

    at_once: int
    """The useful number of parallel requests for the bytes of one file."""
