"""An object store in memory, for tests of the object protocol and of what stands on it.

``FakeBucket`` is the server, ``FakeObjectClient`` one client of it. It keeps to what
``sessionstore.backends.objects_client`` says of a store and gives nothing for free: times are cut
to the second, and a listing of several pages is no snapshot.

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

from sessionstore.backends.objects_client import (
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
    """An object: its bytes, and when the store took it, cut to the second."""

    data: Buffer
    modified: datetime


@dataclass(slots=True)
class _Unfinished:
    """A multipart upload."""

    upload: Upload
    parts: dict[int, Buffer] = field(default_factory=dict)


class FakeBucket:
    """Objects by key, strongly consistent; ``now`` is the store's clock.

    ``dates_from_start``: a multipart object's time is when its upload began (as Amazon S3 has it)
    and not when it was completed.
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
        """The store's clock in seconds: an ``elapsed`` for a backend that a fake clock drives."""
        return (self._now() - _EPOCH).total_seconds()

    def date(self) -> datetime:
        """The store's time as it tells it."""
        now = self._now()
        return now - (now - _EPOCH) % self._resolution

    def carry_out(self, request: Request[T]) -> Answer[T]:
        """What a request gives, and the Date of its answer."""
        return Answer(request.apply(), self.date())

    def all_keys(self) -> list[str]:
        """Every key, sorted."""
        with self._lock:
            return list(self._keys)

    def uploads(self) -> list[Upload]:
        """Every upload that is neither completed nor aborted."""
        with self._lock:
            return [each.upload for each in self._uploads.values()]

    def put(self, key: str, data: Buffer, modified: datetime | None = None) -> None:
        with self._lock:
            if key not in self._objects:
                insort(self._keys, key)
            self._objects[key] = Stored(data, modified or self.date())

    def get(self, key: str) -> Stored:
        """Raises NotFound."""
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
        """At most ``size`` objects whose keys begin with ``prefix`` and come after ``after``."""
        with self._lock:
            start = bisect_right(self._keys, after) if after >= prefix else bisect_left(
                self._keys, prefix
            )  # fmt: skip
            found = []
            for key in self._keys[start : start + size]:
                if not key.startswith(prefix):
                    break
                stored = self._objects[key]
                found.append(Entry(key, len(stored.data), stored.modified))
            return found

    def begin(self, key: str) -> str:
        with self._lock:
            upload = Upload(key, f"{next(self._ids):04}", self.date())
            self._uploads[upload.id] = _Unfinished(upload)
        return upload.id

    def take_part(self, upload: str, number: int, data: Buffer) -> Part:
        """Raises NotFound."""
        with self._lock:
            if upload not in self._uploads:
                raise NotFound(upload)
            self._uploads[upload].parts[number] = data
        return Part(number, f'"{number}"')

    def complete(self, upload: str, parts: Sequence[Part]) -> None:
        """Raises NotFound."""
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
    """What a request gave, and the store's time when it was carried out."""

    value: T
    date: datetime


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request on its way; ``apply`` carries it out."""

    verb: str
    keys: Sequence[str]
    apply: Callable[[], T]


class FakeObjectClient:
    """One client of a ``FakeBucket``: a ``sessionstore.backends.objects_client.ObjectClient``.

    ``requests`` counts what was sent, by verb (PUT, GET, LIST, DELETE; POST, PART and ABORT for
    multipart uploads). Override ``send`` to fail, delay or reorder requests.
    """

    shows_date: ClassVar[bool] = True

    def __init__(self, bucket: FakeBucket, *, page_size: int = BATCH) -> None:
        self.bucket = bucket
        self.requests: Counter[str] = Counter()
        self.closed = False
        self._page_size = page_size

    def send(self, request: Request[T]) -> Answer[T]:
        """Carry a request out. Every method below comes through here."""
        self.requests[request.verb] += 1
        return self.bucket.carry_out(request)

    def put(self, key: str, payload: Payload) -> datetime | None:
        data = _whole(payload)
        return self._told(self.send(Request("PUT", [key], lambda: self.bucket.put(key, data))))

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        answer = self.send(Request("GET", [key], lambda: self.bucket.get(key)))
        data = answer.value.data
        size = len(data) - start if length is None else length
        window = Window(data, threading.Lock(), start, max(size, 0))
        return Download(cast("BinaryIO", window), f'"{len(data)}"', self._told(answer))

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        size = min(page_size, self._page_size)
        after, more = start_after, True
        while more:
            answer = self.send(Request("LIST", [prefix], self._look(prefix, after, size)))
            entries, more = answer.value
            after = entries[-1].key if entries else after
            yield Page(entries, self._told(answer))

    def _look(
        self, prefix: str, after: str, size: int
    ) -> Callable[[], tuple[Sequence[Entry], bool]]:
        """One page, and whether there is another."""

        def look() -> tuple[Sequence[Entry], bool]:
            found = self.bucket.page(prefix, after, size + 1)
            return found[:size], len(found) > size

        return look

    def delete(self, keys: Sequence[str]) -> datetime | None:
        if len(keys) > BATCH:
            raise ValueError(f"{len(keys)} keys are too many for one request.")
        return self._told(
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
        return self._told(
            self.send(Request("POST", [key], lambda: self.bucket.complete(upload, parts)))
        )

    def abort(self, key: str, upload: str) -> None:
        self.send(Request("ABORT", [key], lambda: self.bucket.abort(upload)))

    def uploads(self, prefix: str) -> Iterator[Upload]:
        found = self.send(Request("LIST", [prefix], self.bucket.uploads)).value
        return (upload for upload in found if upload.key.startswith(prefix))

    def close(self) -> None:
        self.closed = True

    def _told(self, answer: Answer[T]) -> datetime | None:
        return answer.date if self.shows_date else None


class DatelessObjectClient(FakeObjectClient):
    """A client that cannot see the Date of its answers, as obstore and fsspec cannot."""

    shows_date: ClassVar[bool] = False


def _whole(payload: Payload) -> Buffer:
    """The bytes of a payload, in pieces: a test that measures memory counts them once."""
    if payload.size <= CHUNK:
        return payload.read()
    data, window = bytearray(payload.size), payload.open()
    view, done = memoryview(data), 0
    while done < payload.size:
        done += window.readinto(view[done : done + CHUNK])
    return data
