"""How many requests each operation takes, counted where they leave botocore."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sessionstore.backends.objects.client import BATCH
from sessionstore.backends.objects.writer import UPLOAD_BESIDE
from sessionstore.backends.s3 import S3Backend
from sessionstore.clock import SystemClock
from sessionstore.settings.location import parse_url
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, BOB, some_bytes
from tests.s3.place import Bucket
from tests.support import seaweed

pytestmark = pytest.mark.server

LIST, PUT, GET, DELETE = "ListObjectsV2", "PutObject", "GetObject", "DeleteObject"
DELETE_MANY, LIST_UPLOADS = "DeleteObjects", "ListMultipartUploads"

Count = Callable[[Callable[[], object]], Sequence[str]]
"""What requests something makes, sorted: some of them go out together."""


class Counter:
    """Notes every request that a boto3 client sends."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, *, event_name: str, **_: Any) -> None:
        self.seen.append(event_name.rpartition(".")[2])

    def __call__(self, work: Callable[[], object]) -> Sequence[str]:
        self.seen.clear()
        work()
        return list(self.seen)


@pytest.fixture
def count(seaweed_bucket: Bucket, subject: Subject) -> Iterator[Count]:
    counter, events = Counter(), seaweed_bucket.boto.meta.events
    events.register("before-send.s3", counter.note)

    def count(work: Callable[[], object]) -> Sequence[str]:
        subject.backend.drain()  # type: ignore[attr-defined]  # it is an object backend
        counter(work)
        subject.backend.drain()  # type: ignore[attr-defined]  # as above
        return sorted(counter.seen)

    yield count
    events.unregister("before-send.s3", counter.note)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def subject(seaweed_bucket: Bucket, prefix: str, clock: FakeClock) -> Subject:
    """A store with a session of ALICE's."""
    subject = Subject(seaweed_bucket.opener(prefix), clock)
    subject.put("first", b"first")
    return subject


def test_saving_new_content(subject: Subject, count: Count) -> None:
    assert count(partial(subject.put, "a", b"a", fresh=True)) == [LIST, PUT, PUT]
    assert count(partial(subject.put, "b", b"b")) == [LIST, LIST, PUT, PUT]


def test_the_first_save_of_a_session(subject: Subject, count: Count) -> None:
    asked = count(partial(subject.put, "a", b"new", BOB, fresh=True))
    assert asked == [LIST, PUT, PUT]


def test_saving_what_the_store_knows(subject: Subject, count: Count) -> None:
    subject.another().put("theirs", b"same", BOB)
    in_vain = PUT  # beside the listing, which would take a round trip before it
    assert count(partial(subject.put, "a", b"same", fresh=True)) == [LIST, in_vain, PUT]
    large = b"too large to be sent in vain" * (UPLOAD_BESIDE // 20)
    subject.another().put("theirs, large", large, BOB)
    assert count(partial(subject.put, "b", large, fresh=True)) == [LIST, PUT]


def test_saving_what_this_process_knows(subject: Subject, count: Count) -> None:
    assert count(partial(subject.put, "a", b"first", fresh=True)) == [PUT]
    assert count(partial(subject.put, "b", b"first")) == [LIST, PUT]


def test_saving_the_same_file_again(subject: Subject, count: Count) -> None:
    subject.put("a", b"same")
    assert count(partial(subject.put, "a", b"same")) == [DELETE, LIST, PUT]


def test_replacing(subject: Subject, count: Count) -> None:
    subject.put("a", b"old")
    subject.put("b", b"new")
    assert count(partial(subject.put, "a", b"new")) == [DELETE, LIST, PUT]


def test_reading_by_name(subject: Subject, count: Count) -> None:
    subject.advance(3)
    assert count(partial(subject.read, "first")) == [GET, LIST]


def test_reading_a_version(subject: Subject, count: Count) -> None:
    reference = subject.put("a", b"a").reference
    assert count(partial(subject.read_version, reference)) == [GET]
    subject.advance(3)
    assert count(partial(subject.read_version, reference)) == [GET, LIST]


def test_dropping(subject: Subject, count: Count) -> None:
    subject.put("second", b"second")
    asked = count(partial(subject.backend.drop, ALICE.sid))
    assert asked == [DELETE_MANY, LIST]


def test_dropping_many_files(seaweed_bucket: Bucket, prefix: str, count: Count) -> None:
    backend = S3Backend(seaweed_bucket.boto3_client(prefix))
    subject = Subject(lambda _: backend, FakeClock())
    for number in range(BATCH + 10):
        subject.put(f"{number}", b"same", fresh=True)
    asked = count(partial(backend.drop, ALICE.sid))
    assert asked == [DELETE_MANY, DELETE_MANY, LIST, LIST]


def test_deleting(subject: Subject, count: Count) -> None:
    subject.put("a", b"a")
    assert count(partial(subject.backend.delete, ALICE.sid, ["a"])) == [DELETE, LIST, PUT]
    note_that_was_in_vain = [DELETE, PUT]
    subject.advance(3)
    subject.put("b", b"b")
    subject.another().backend.delete(ALICE.sid, ["b"])
    asked = count(partial(subject.backend.delete, ALICE.sid, ["b"]))
    assert asked == sorted([LIST, *note_that_was_in_vain])


def test_ending(subject: Subject, count: Count) -> None:
    assert count(partial(subject.backend.end, ALICE.sid)) == [LIST, PUT]
    assert count(partial(subject.another().backend.end, ALICE.sid)) == [LIST, LIST, PUT]
    assert count(partial(subject.backend.end, BOB.sid)) == [LIST]


def test_touching(subject: Subject, count: Count) -> None:
    assert count(partial(subject.backend.touch, ALICE.sid)) == [PUT]


def test_sweeping(subject: Subject, count: Count) -> None:
    for number in range(5):
        subject.put(f"{number}", some_bytes(number, 10))
    asked = count(subject.backend.collect)
    assert asked.count(LIST) == 3
    assert len(asked) <= 3 + 3


def test_opening(seaweed_bucket: Bucket, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()
    location, _ = parse_url(f"s3://{seaweed.BUCKET}/{prefix}", Path())
    make = seaweed_bucket.boto3_client

    def connect() -> None:
        options = {"endpoint_url": seaweed_bucket.endpoint}
        with closing(S3Backend.connect(location, options, SystemClock())):
            pass

    def open_client(*_: object) -> Any:
        client = make(prefix)
        client.connection = type(client.connection)(client._make)
        client.connection.client.meta.events.register("before-send.s3", counter.note)
        client.probe("layout")
        return client

    monkeypatch.setattr(S3Backend, "open_client", open_client)
    assert counter(connect) == [LIST, GET, PUT, GET]
    assert counter(connect) == [LIST, GET]
