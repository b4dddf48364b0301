"""An object store in memory, for tests of the object protocol and of the code above it.

``FakeBucket`` is the server, ``FakeObjectClient`` one client of it. It promises no more than
``sessionstore.backends.objects.client`` requires of a store: times are cut to the second, and a
listing of several pages is no snapshot.

    bucket = FakeBucket(clock.now)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import BinaryIO, ClassVar, Generic, NamedTuple, TypeVar, cast

from sessionstore.backends.objects.client import (
    BATCH,
    Download,
    Entry,
    NotFound,
    Page,
    Part,
    Payload,
    Upload,
    Window,
)
from sessionstore.content import CHUNK, Buffer

T = TypeVar("T")

SECOND = timedelta(seconds=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stored(NamedTuple):
    """An object: its bytes, and the time when the store received it, cut to the second."""

    data: Buffer
    modified: datetime


@dataclass(slots=True)
class _Unfinished:
    """A multipart upload."""

    upload: Upload
    parts: dict[int, Buffer] = field(default_factory=dict)


class FakeBucket:
    """A strongly consistent bucket in memory; ``now`` is the store's clock.

    With ``dates_from_start`` a multipart object has the time when its upload began (as on Amazon
    S3), without it the time when the upload was completed.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        resolution: timedelta = SECOND,
        dates_from_start: bool = True,
    ) -> None:
        self._now = now
        self._resolution = resolution
        self._dates_from_start = dates_from_start
        self._lock = threading.Lock()
        self._objects: dict[str, Stored] = {}
        self._keys: list[str] = []
        self._uploads: dict[str, _Unfinished] = {}
        self._ids = count(1)

    def seconds(self) -> float:
        """Return the store's clock in seconds, as the ``elapsed`` of a backend in a test."""
        return (self._now() - _EPOCH).total_seconds()

    def date(self) -> datetime:
        """Return the store's time, cut to its resolution."""
        now = self._now()
        return now - (now - _EPOCH) % self._resolution

    def carry_out(self, request: Request[T]) -> Answer[T]:
        """Carry out a request; return its result and the Date of the response."""
        return Answer(request.apply(), self.date())

    def all_keys(self) -> list[str]:
        """Return every key, sorted."""
        with self._lock:
            return list(self._keys)

    def uploads(self) -> list[Upload]:
        """Return every upload that is neither completed nor aborted."""
        with self._lock:
            return [unfinished.upload for unfinished in self._uploads.values()]

    def put(self, key: str, data: Buffer, modified: datetime | None = None) -> None:
        with self._lock:
            if key not in self._objects:
                insort(self._keys, key)
            self._objects[key] = Stored(data, modified or self.date())

    def get(self, key: str) -> Stored:
        """Return an object. Raises NotFound."""
        with self._lock:
            if key not in self._objects:
                raise NotFound(key)
            return self._objects[key]

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                if self._objects.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]

    def page(self, prefix: str, after: str, size: int) -> list[Entry]:
        """Return at most ``size`` entries with keys that begin with ``prefix``, after ``after``."""
        with self._lock:
            start = bisect_right(self._keys, after) if after >= prefix else bisect_left(
                self._keys, prefix
            )  # fmt: skip
            entries = []
            for key in self._keys[start : start + size]:
                if not key.startswith(prefix):
                    break
                stored = self._objects[key]
                entries.append(Entry(key, len(stored.data), stored.modified))
            return entries

    def begin(self, key: str) -> str:
        with self._lock:
            upload = Upload(key, f"{next(self._ids):04}", self.date())
            self._uploads[upload.id] = _Unfinished(upload)
        return upload.id

    def take_part(self, upload: str, number: int, data: Buffer) -> Part:
        """Receive one part of an upload. Raises NotFound."""
        with self._lock:
            if upload not in self._uploads:
                raise NotFound(upload)
            self._uploads[upload].parts[number] = data
        return Part(number, f'"{number}"')

    def complete(self, upload: str, parts: Sequence[Part]) -> None:
        """Make an object of the parts of an upload. Raises NotFound."""
        with self._lock:
            unfinished = self._uploads.pop(upload, None)
        if unfinished is None:
            raise NotFound(upload)
        data = bytearray().join(unfinished.parts[part.number] for part in parts)
        started = unfinished.upload.started if self._dates_from_start else None
        self.put(unfinished.upload.key, data, started)

    def abort(self, upload: str) -> None:
        with self._lock:
            self._uploads.pop(upload, None)


class Answer(NamedTuple, Generic[T]):
    """The result of a request, and the store's time when it was carried out."""

    value: T
    date: datetime


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request that was sent; ``apply`` carries it out."""

    verb: str
    keys: Sequence[str]
    apply: Callable[[], T]


class FakeObjectClient:
    """One client of a ``FakeBucket``: a ``sessionstore.backends.objects.client.ObjectClient``.

    ``requests`` counts the sent requests by verb (PUT, GET, LIST, DELETE; POST, PART and ABORT for
    multipart uploads). Override ``send`` to fail, delay or reorder requests.
    """

    shows_date: ClassVar[bool] = True

    def __init__(self, bucket: FakeBucket, *, page_size: int = BATCH) -> None:
        self.bucket = bucket
        self.requests: Counter[str] = Counter()
        self._counting = threading.Lock()
        self.closed = False
        self._page_size = page_size

    def send(self, request: Request[T]) -> Answer[T]:
        """Carry out a request. Every method below calls it."""
        with self._counting:  # of several threads at once, one would be lost
            self.requests[request.verb] += 1
        return self.bucket.carry_out(request)

    def put(self, key: str, payload: Payload) -> datetime | None:
        data = _whole(payload)
        return self._visible_date(
            self.send(Request("PUT", [key], lambda: self.bucket.put(key, data)))
        )

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        answer = self.send(Request("GET", [key], lambda: self.bucket.get(key)))
        data = answer.value.data
        size = len(data) - start if length is None else length
        window = Window(data, threading.Lock(), start, max(size, 0))
        etag, date = f'"{len(data)}"', self._visible_date(answer)
        return Download(cast("BinaryIO", window), lambda: etag, date)

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        size = min(page_size, self._page_size)
        after, more = start_after, True
        while more:
            answer = self.send(Request("LIST", [prefix], self._look(prefix, after, size)))
            entries, more = answer.value
            after = entries[-1].key if entries else after
            yield Page(entries, self._visible_date(answer))

    def _look(
        self, prefix: str, after: str, size: int
    ) -> Callable[[], tuple[Sequence[Entry], bool]]:
        """Return a function that reads one page, and whether another page follows."""

        def look() -> tuple[Sequence[Entry], bool]:
            entries = self.bucket.page(prefix, after, size + 1)
            return entries[:size], len(entries) > size

        return look

    def delete(self, keys: Sequence[str]) -> datetime | None:
        if len(keys) > BATCH:
            raise ValueError(f"A request deletes at most {BATCH} keys (got {len(keys)}).")
        return self._visible_date(
            self.send(Request("DELETE", tuple(keys), lambda: self.bucket.delete(keys)))
        )

    def begin(self, key: str) -> str:
        return self.send(Request("POST", [key], lambda: self.bucket.begin(key))).value

    def upload_part(self, key: str, upload: str, number: int, payload: Payload) -> Part:
        data = _whole(payload)
        return self.send(
            Request("PART", [key], lambda: self.bucket.take_part(upload, number, data))
        ).value

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> datetime | None:
        return self._visible_date(
            self.send(Request("POST", [key], lambda: self.bucket.complete(upload, parts)))
        )

    def abort(self, key: str, upload: str) -> None:
        self.send(Request("ABORT", [key], lambda: self.bucket.abort(upload)))

    def uploads(self, prefix: str) -> Iterator[Upload]:
        uploads = self.send(Request("LIST", [prefix], self.bucket.uploads)).value
        return (upload for upload in uploads if upload.key.startswith(prefix))

    def close(self) -> None:
        self.closed = True

    def _visible_date(self, answer: Answer[T]) -> datetime | None:
        return answer.date if self.shows_date else None


class DatelessObjectClient(FakeObjectClient):
    """A client that cannot see the Date of a response, as with obstore and fsspec."""

    shows_date: ClassVar[bool] = False


def _whole(payload: Payload) -> Buffer:
    """Return the bytes of a payload, read in pieces, so that memory holds them only once."""
    if payload.size <= CHUNK:
        return payload.read()
    data, window = bytearray(payload.size), payload.open()
    view, done = memoryview(data), 0
    while done < payload.size:
        done += window.readinto(view[done : done + CHUNK])
    return data
