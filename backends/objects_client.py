"""What the object protocol needs of an object store: eight requests, and nothing conditional.

``ObjectBackend`` is written against this interface once; an engine (boto3, obstore, fsspec) is a
small class that turns each method into one request of its library. What the protocol relies on:

* A key is a register: after an answer, every GET and LIST that begins later sees the change.
* An entry that exists through all pages of a LIST is in it. The pages are no snapshot.
* ``modified`` is when the store took the object, by its own clock, to the second. Of a multipart
  upload it may be when it began, or when it was completed.
* ``Date`` of an answer comes from the same clock, and not from before the request was carried out.

No metadata, no tags, no If-Match: some stores ignore each of them. Keys are made of
``[a-z0-9._!/-]``, with no empty segment, at most 200 characters each and 900 in all.

Errors: ``NotFound`` from ``get``, ``upload_part`` and ``complete``; the engine maps everything else
to ``sessionstore.errors`` with the cause chained: BackendUnavailable for what the store or the
network refused, SettingsError for what only another setting cures.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, ClassVar, NamedTuple, Protocol, runtime_checkable

from sessionstore.content import Buffer

if TYPE_CHECKING:
    from typing_extensions import Buffer as AnyBuffer  # type checkers know it without the package

BATCH = 1000
"""Keys in one delete request: the most that S3's DeleteObjects takes."""


class NotFound(Exception):
    """There is no object of that key, or no upload of that id."""


class Entry(NamedTuple):
    """One object in a listing; ``size`` in bytes, ``modified`` aware UTC, to the second."""

    key: str
    size: int
    modified: datetime


class Page(NamedTuple):
    """One answer to a LIST; ``date`` is the answer's Date, None when the client cannot see it."""

    entries: Sequence[Entry]
    date: datetime | None


class Download(NamedTuple):
    """The answer to a GET: ``stream`` gives just the bytes asked for; ``etag`` is for messages."""

    stream: BinaryIO
    etag: str
    date: datetime | None


class Upload(NamedTuple):
    """A multipart upload that has been begun and neither completed nor aborted."""

    key: str
    id: str
    started: datetime


class Part(NamedTuple):
    """One part of a multipart upload that the store has taken; numbers begin at 1."""

    number: int
    etag: str


class Window(io.RawIOBase):
    """Some bytes of a buffer or of a seekable file, as a seekable file of their own.

    Windows of one file may be read from several threads; ``lock`` is the file's.
    """

    def __init__(
        self, source: Buffer | BinaryIO, lock: threading.Lock, start: int, size: int
    ) -> None:
        self._source = source
        self._lock = lock
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __len__(self) -> int:
        """The bytes in all, which HTTP clients ask for."""
        return self._size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: AnyBuffer, /) -> int:
        into = memoryview(buffer).cast("B")
        into = into[: max(self._size - self._position, 0)]
        count = self._fill(into, self._start + self._position)
        self._position += count
        return count

    def _fill(self, into: memoryview, position: int) -> int:
        if isinstance(self._source, bytes | bytearray | memoryview):
            into[:] = memoryview(self._source)[position : position + len(into)]
            return len(into)
        with self._lock:
            self._source.seek(position)
            chunk = self._source.read(len(into))
        into[: len(chunk)] = chunk
        return len(chunk)


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes on their way to the store, with their length known beforehand.

    ``source`` is a buffer (flat bytes) or a seekable binary file; ``sha256`` is the hex digest of
    the bytes where it is known, for the store to check them by.
    """

    source: Buffer | BinaryIO
    start: int
    size: int
    sha256: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, data: bytes) -> Payload:
        """The payload of a few bytes."""
        return cls(data, 0, len(data))

    def open(self) -> Window:
        """The bytes as a new seekable file, for a client that streams; nothing is copied."""
        return Window(self.source, self.lock, self.start, self.size)

    def read(self) -> bytes:
        """The bytes, for a client that wants them whole: for small ones."""
        if isinstance(self.source, bytes) and len(self.source) == self.size:
            return self.source
        if isinstance(self.source, bytes | bytearray | memoryview):
            return bytes(memoryview(self.source)[self.start : self.start + self.size])
        return self.open().readall() or b""

    def part(self, start: int, size: int) -> Payload:
        """A part of it, without a digest of its own."""
        return Payload(self.source, self.start + start, size, None, self.lock)


class ObjectClient(Protocol):
    """One bucket, or one prefix of it, which the client puts in front of every key.

    Every method may be called from any thread, and is one request unless it says otherwise. A
    client may repeat a request that failed; see docs/protocol-objects.md for what that costs.
    """

    shows_date: ClassVar[bool]
    """Whether answers have a date. Without, the protocol writes a small object now and then."""

    def put(self, key: str, payload: Payload) -> datetime | None:
        """Keep an object, in place of what has that key; returns the answer's Date.

        Nobody sees it before it is there whole. A client that is not ``Multipart`` takes payloads
        of any size here, in little memory.
        """
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        """The object's bytes from ``start``, ``length`` of them or all the rest.

        At least one byte is asked for and the range is within the object, except that the whole of
        an empty object may be asked for. Raises NotFound here, not when the stream is read.
        """
        ...

    def list(self, prefix: str, *, start_after: str = "", page_size: int = 1000) -> Iterator[Page]:
        """The objects whose keys begin with ``prefix``, and come after ``start_after``.

        One request a page, made when the page is asked for. Keys of one directory come together.
        Never ends early without an error. An empty listing is one empty page.
        """
        ...

    def delete(self, keys: Sequence[str]) -> datetime | None:
        """Delete at most ``BATCH`` objects, in this order if the store has one.

        A key that is not there is no error. Raises BackendUnavailable when one could not be
        deleted, after the others were.
        """
        ...

    def abort(self, key: str, upload: str) -> None:
        """Throw an upload's parts away. One that is gone is no error."""
        ...

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Uploads neither completed nor aborted; one request a page."""
        ...

    def close(self) -> None:
        """Give connections back. Closing twice is no error."""
        ...


@runtime_checkable
class Multipart(Protocol):
    """A client whose uploads may be made of parts, so that the protocol can send large objects."""

    def begin(self, key: str) -> str:
        """Begin a multipart upload; returns its id."""
        ...

    def upload_part(self, key: str, upload: str, number: int, payload: Payload) -> Part:
        """Send one part; all but the last have the same size of at least 5 MiB."""
        ...

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> datetime | None:
        """Make the object of its parts, at once and whole; returns the answer's Date."""
        ...


@runtime_checkable
class TakesSeveral(Protocol):
    """A client that is the faster the more requests of one save are under way."""

    at_once: int
    """How many are sensible."""
