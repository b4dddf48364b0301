"""Reading from an object store: damage, copies that heal it, and versions without content."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import BinaryIO, cast

import pytest

from sessionstore.backend import Reference
from sessionstore.backends.objects import ObjectBackend, keys
from sessionstore.backends.objects.client import Download
from sessionstore.content import CHUNK
from sessionstore.errors import BackendUnavailable, Corrupted, FileNotStored
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, BOB, SPOOLED, some_bytes
from tests.support.object_client import FakeBucket, FakeObjectClient

LARGE = some_bytes("large", SPOOLED)
LONG = timedelta(minutes=40)

Spoil = Callable[[bytes], bytes]


class Unreliable(FakeObjectClient):
    """A client whose next downloads are spoilt, or break off with an error."""

    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(bucket)
        self.spoils: list[Spoil] = []
        self.breaks_at: int | None = None

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        download = super().get(key, start, length)
        if not key.startswith("b/"):
            return download
        data = download.stream.read()
        if self.breaks_at is not None:
            at, self.breaks_at = self.breaks_at, None
            return download._replace(stream=cast("BinaryIO", _Breaking(data, at)))
        if self.spoils:
            data = self.spoils.pop(0)(data)
        return download._replace(stream=io.BytesIO(data))


class _Breaking(io.BytesIO):
    """Bytes whose connection is lost at some position."""

    def __init__(self, data: bytes, at: int) -> None:
        super().__init__(data[:at])

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise BackendUnavailable("The connection was lost.")
        return data


class _Dripping(io.BytesIO):
    """Bytes that come one at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size else 0)


def end_differs(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def begin_differs(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


@pytest.fixture
def client(bucket: FakeBucket) -> Unreliable:
    return Unreliable(bucket)


@pytest.fixture
def subject(client: Unreliable, bucket: FakeBucket, clock: FakeClock) -> Iterator[Subject]:
    subject = Subject(lambda _: ObjectBackend(client, elapsed=bucket.seconds), clock)
    yield subject
    subject.close()


def blob(reference: Reference) -> str:
    return keys.blob(reference.digest, keys.generation(reference.token))


def in_steps(subject: Subject, reference: Reference, step: int) -> bytes:
    with closing(subject.backend.open(ALICE.sid, reference)) as stream:
        return b"".join(iter(lambda: stream.read(step), b""))


@pytest.mark.parametrize(
    "spoil",
    [begin_differs, end_differs, lambda data: data[:-1], lambda data: data + b"!", lambda _: b""],
)
def test_what_arrives_damaged_is_fetched_again(
    subject: Subject, client: Unreliable, spoil: Spoil
) -> None:
    reference = subject.put("a", b"small").reference
    client.spoils = [spoil]
    assert subject.read_version(reference) == b"small"


@pytest.mark.parametrize("spoil", [end_differs, lambda data: data[: len(data) // 2]])
def test_a_long_read_goes_on_where_it_was(
    subject: Subject, client: Unreliable, spoil: Spoil
) -> None:
    reference = subject.put("a", LARGE).reference
    client.spoils = [spoil]
    assert in_steps(subject, reference, CHUNK) == LARGE


@pytest.mark.parametrize("at", [0, 10, CHUNK, SPOOLED - 1])
def test_a_lost_connection_is_made_again(subject: Subject, client: Unreliable, at: int) -> None:
    reference = subject.put("a", LARGE).reference
    client.breaks_at = at
    assert in_steps(subject, reference, 100_000) == LARGE


@pytest.mark.parametrize("at", [0, 3])
def test_so_it_is_for_a_short_read(subject: Subject, client: Unreliable, at: int) -> None:
    reference = subject.put("a", b"small").reference
    client.breaks_at = at
    assert subject.read_version(reference) == b"small"


def test_a_short_read_takes_what_comes_piece_by_piece(
    subject: Subject, client: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = subject.put("a", b"small").reference
    monkeypatch.setattr(client, "get", lambda *_: Download(_Dripping(b"small")))
    assert subject.read_version(reference) == b"small"


def test_another_copy_of_the_content_heals(subject: Subject, bucket: FakeBucket) -> None:
    reference = subject.put("a", LARGE).reference
    subject.advance(LONG.total_seconds())
    subject.put("b", LARGE, BOB)  # by now this is a copy of its own
    bucket.put(blob(reference), end_differs(LARGE))
    assert subject.read_version(reference) == LARGE
    assert in_steps(subject, reference, CHUNK) == LARGE


def test_a_copy_that_begins_otherwise_does_not(subject: Subject, bucket: FakeBucket) -> None:
    reference = subject.put("a", LARGE).reference
    subject.advance(LONG.total_seconds())
    subject.put("b", LARGE, BOB)
    bucket.put(blob(reference), begin_differs(LARGE))
    assert subject.read_version(reference) == LARGE  # nothing was handed out yet
    with pytest.raises(Corrupted):
        in_steps(subject, reference, CHUNK)


def test_the_error_tells_what_to_look_for(subject: Subject, bucket: FakeBucket) -> None:
    reference = subject.put("a", b"12345").reference
    bucket.put(blob(reference), b"1234!")
    with pytest.raises(Corrupted) as caught:
        subject.read_version(reference)
    for told in ("'a'", blob(reference), "ETag", "5 bytes", reference.digest, "Save the file"):
        assert told in str(caught.value)


def test_damage_is_found_again_and_again(subject: Subject, bucket: FakeBucket) -> None:
    reference = subject.put("a", b"12345").reference
    bucket.put(blob(reference), b"1234!")
    for _ in range(2):
        with pytest.raises(Corrupted):
            subject.read("a")


def test_damaged_content_is_not_adopted(subject: Subject, bucket: FakeBucket) -> None:
    reference = subject.put("a", b"12345").reference
    bucket.put(blob(reference), b"1234!")
    with pytest.raises(Corrupted):
        subject.read_version(reference)
    assert not subject.put("b", b"12345", BOB).deduplicated
    assert subject.contents(BOB) == {"b": b"12345"}
    assert subject.read("a") == b"12345"  # and heals the other


def test_a_version_without_content_is_no_file(subject: Subject, bucket: FakeBucket) -> None:
    reference = subject.put("a", b"1").reference
    bucket.delete([blob(reference)])
    with pytest.raises(FileNotStored):
        subject.read_version(reference)
    with pytest.raises(FileNotStored):
        subject.backend.get(ALICE.sid, "a")


@pytest.mark.parametrize("size", [1, SPOOLED])
def test_a_newer_version_without_content_hides_no_older_one(
    subject: Subject, bucket: FakeBucket, size: int
) -> None:
    data = some_bytes("kept", size)
    subject.put("a", data)
    torn = subject.put("b", b"torn").reference
    (key,) = (key for key in bucket.all_keys() if "/f/b/" in key)
    bucket.delete([blob(torn), key])
    newest = "7" * 16
    bucket.put(key.replace("/f/b/", "/f/a/").replace(torn.token[:16], newest), b"")
    assert subject.another().read("a") == data
    assert [it.size for it in subject.another().backend.files(ALICE.sid)] == [size]


def test_a_range_of_missing_content_is_no_file(subject: Subject, bucket: FakeBucket) -> None:
    reference = subject.put("a", b"12345").reference
    bucket.delete([blob(reference)])
    with pytest.raises(FileNotStored):
        subject.read_version(reference, start=1, length=2)


def test_a_store_that_does_not_answer_is_an_error(
    subject: Subject, client: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = subject.put("a", LARGE).reference

    def refuse(*_: object) -> Download:
        raise BackendUnavailable("Not now.")

    with closing(subject.backend.open(ALICE.sid, reference)) as stream:
        stream.read(10)
        monkeypatch.setattr(client, "get", refuse)
        client.bucket.put(blob(reference), b"")
        with pytest.raises(BackendUnavailable, match=r"Not now\."):
            subject.backend.open(ALICE.sid, reference)
