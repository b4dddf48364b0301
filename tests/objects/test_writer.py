"""Saving to an object store: what is adopted, what is in time, and what a save leaves behind."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from sessionstore import SessionStore
from sessionstore.backend import Stored
from sessionstore.backends.objects import ObjectBackend
from sessionstore.errors import BackendUnavailable
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, BOB, NOBODY, T, some_bytes
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request

GRACE = timedelta(hours=1)
WINDOW = 0.9 * GRACE.total_seconds()
HALF = GRACE.total_seconds() / 2

Before = Callable[[Request[object]], None]


class Scripted(FakeObjectClient):
    """A client with something that happens before each request, and after."""

    before: Before = staticmethod(lambda _: None)
    after: Before = staticmethod(lambda _: None)

    def send(self, request: Request[T]) -> Answer[T]:
        self.before(request)  # type: ignore[arg-type]  # whatever it asks for
        answer = super().send(request)
        self.after(request)  # type: ignore[arg-type]  # as above
        return answer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


@pytest.fixture
def client(bucket: FakeBucket) -> Scripted:
    return Scripted(bucket)


@pytest.fixture
def subject(client: Scripted, bucket: FakeBucket, clock: FakeClock) -> Iterator[Subject]:
    subject = Subject(lambda _: ObjectBackend(client, elapsed=bucket.seconds), clock)
    subject.backend.writer.multipart_above = 1000  # type: ignore[attr-defined]  # it is one
    subject.backend.writer.part_size = 400  # type: ignore[attr-defined]  # as above
    yield subject
    subject.close()


def references(bucket: FakeBucket) -> list[str]:
    return [key for key in bucket.all_keys() if "/f/" in key]


def is_reference(request: Request[object]) -> bool:
    return request.verb == "PUT" and "/f/" in request.keys[0]


def slow(client: Scripted, clock: FakeClock, seconds: float, times: int) -> None:
    """Let so much time pass before each of the next references arrives."""
    left = [seconds] * times

    def wait(request: Request[object]) -> None:
        if is_reference(request) and left:
            clock.advance(left.pop())

    client.before = wait


def test_young_content_is_adopted(subject: Subject) -> None:
    subject.put("a", b"same")
    subject.advance(HALF - 2)
    assert subject.put("b", b"same").deduplicated
    assert subject.backend.stored() == Stored(1, 4)


def test_older_content_is_uploaded_again(subject: Subject) -> None:
    subject.put("a", b"same")
    subject.advance(HALF + 2)
    assert not subject.put("b", b"same").deduplicated
    assert subject.backend.stored() == Stored(2, 8)


def test_content_of_the_wrong_size_is_not_adopted(subject: Subject, bucket: FakeBucket) -> None:
    subject.put("a", b"right")
    (blob,) = (key for key in bucket.all_keys() if key.startswith("b/"))
    bucket.put(blob, b"wro")
    other = Subject(
        lambda _: ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds), subject.clock
    )
    other.put("b", b"right", BOB)
    assert other.contents(BOB) == {"b": b"right"}


def test_a_reference_in_time_is_acknowledged(
    subject: Subject, client: Scripted, clock: FakeClock
) -> None:
    slow(client, clock, WINDOW - 2, times=1)
    subject.put("a", b"slow")
    assert client.requests["DELETE"] == 0
    assert subject.backend.stored().blobs == 1


def test_a_late_reference_is_taken_back_and_the_save_begins_anew(
    subject: Subject, client: Scripted, clock: FakeClock, bucket: FakeBucket
) -> None:
    slow(client, clock, WINDOW + 2, times=1)
    subject.put("a", b"slow")
    assert subject.contents() == {"a": b"slow"}
    assert subject.backend.stored().blobs == 2
    assert len(references(bucket)) == 1


def test_a_late_answer_is_no_late_reference(
    subject: Subject, client: Scripted, clock: FakeClock, bucket: FakeBucket
) -> None:
    client.after = lambda request: clock.advance(GRACE) if is_reference(request) else None
    subject.put("a", b"slow")
    assert subject.backend.stored().blobs == 1
    assert len(references(bucket)) == 1


def test_a_store_that_is_always_late_is_an_error(
    subject: Subject, client: Scripted, clock: FakeClock, bucket: FakeBucket
) -> None:
    subject.put("a", b"old")
    slow(client, clock, WINDOW + 2, times=10)
    with pytest.raises(BackendUnavailable, match="longer than the store's grace"):
        subject.put("a", b"slow")
    client.before = lambda _: None
    assert subject.contents() == {"a": b"old"}
    assert len(references(bucket)) == 1


def test_a_late_version_does_not_hide_an_older_one(
    subject: Subject, client: Scripted, clock: FakeClock, bucket: FakeBucket
) -> None:
    subject.put("a", b"old")
    reader = Subject(
        lambda _: ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds), clock
    )
    seen = []
    slow(client, clock, WINDOW + 2, times=1)
    client.after = lambda it: seen.append(reader.read("a")) if is_reference(it) else None
    subject.put("a", b"new")
    assert seen == [b"old", b"new"]


def test_saves_of_equal_bytes_at_one_moment_have_references_of_their_own(subject: Subject) -> None:
    other = subject.another()
    keys = {subject.put("a", b"same").reference.token, other.put("a", b"same").reference.token}
    assert len(keys) == 2


def test_a_save_that_could_not_remove_what_it_replaced_is_a_save(
    subject: Subject, client: Scripted, bucket: FakeBucket
) -> None:
    subject.put("a", b"old")

    def refuse(request: Request[object]) -> None:
        if request.verb == "DELETE":
            raise BackendUnavailable("Not now.")

    client.before = refuse
    subject.put("a", b"new")
    client.before = lambda _: None
    assert subject.another().contents() == {"a": b"new"}
    assert len(references(bucket)) == 2
    subject.backend.delete(ALICE.sid, ["a"])
    assert references(bucket) == []


@pytest.mark.parametrize("verb", ["PUT", "POST", "PART"])
def test_a_large_save_that_fails_leaves_nothing(
    subject: Subject, client: Scripted, bucket: FakeBucket, verb: str
) -> None:
    def refuse(request: Request[object]) -> None:
        if request.verb == verb:
            raise BackendUnavailable("Not now.")

    client.before = refuse
    with pytest.raises(BackendUnavailable, match=r"Not now\."):
        subject.put("a", some_bytes("large", 1001))
    assert [key for key in bucket.all_keys() if key != "layout"] == []
    assert bucket.uploads() == []


def test_an_upload_that_a_sweep_aborted_is_an_error(
    subject: Subject, client: Scripted, bucket: FakeBucket
) -> None:
    def abort(request: Request[object]) -> None:
        if request.verb == "PART":
            for upload in bucket.uploads():
                bucket.abort(upload.id)

    client.before = abort
    with pytest.raises(BackendUnavailable, match="save the file again"):
        subject.put("a", some_bytes("large", 1001))


@pytest.mark.parametrize("size", [1001, 1200, 1201, 5000])
def test_large_content_goes_up_in_parts(
    subject: Subject, client: Scripted, bucket: FakeBucket, size: int
) -> None:
    data = some_bytes("large", size)
    subject.put("a", io.BytesIO(data))
    subject.put("b", data, BOB)
    assert subject.contents() == {"a": data}
    assert client.requests["PART"] == -(-size // 400)
    assert not [key for key in bucket.all_keys() if key.startswith("i/")]


def test_an_upload_may_take_hours_and_be_swept_around(
    subject: Subject, client: Scripted, clock: FakeClock, bucket: FakeBucket
) -> None:
    sweeper = Subject(
        lambda _: ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds), clock
    )

    def wait(request: Request[object]) -> None:
        if request.verb == "PART":
            clock.advance(3 * GRACE)

    def sweep(_: Request[object]) -> None:
        sweeper.backend.collect()

    client.before, client.after = wait, sweep
    data = some_bytes("large", 1001)
    subject.put("a", data)
    assert sweeper.contents() == {"a": data}


def test_a_spool_of_another_backend_is_refused(subject: Subject) -> None:
    class Spool:
        def write(self, _: object) -> None: ...
        def chunks(self) -> Iterator[bytes]:
            return iter((b"1",))

        def close(self) -> None: ...

    with subject.take([some_bytes("long", 3 << 20)]) as content:
        content.spool, own = Spool(), content.spool
        with pytest.raises(TypeError, match="another backend"):
            subject.backend.put(ALICE, "a", content)
        content.spool = own


def test_names_too_long_for_a_key_are_told_by_the_body(
    subject: Subject, bucket: FakeBucket
) -> None:
    name = "/".join(["\u00fc" * 100] * 5)
    subject.put(name, b"1")
    assert subject.another().contents() == {name: b"1"}
    assert max(map(len, references(bucket))) <= 900
    assert all(len(part) <= 200 for key in bucket.all_keys() for part in key.split("/"))


def test_keys_have_no_odd_characters(subject: Subject, bucket: FakeBucket) -> None:
    for name in ("A b/\u00fc\n..", "con", "%2f", "x" * 255):
        subject.put(name, b"1")
        subject.backend.touch(ALICE.sid)
        subject.backend.end(ALICE.sid)
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._!/-")
    assert set("".join(bucket.all_keys())) <= allowed
    assert not any("//" in key or key.startswith("/") for key in bucket.all_keys())


def test_the_session_of_a_save_that_came_after_a_drop_can_be_identified(
    subject: Subject, client: Scripted
) -> None:
    subject.put("a", b"1", BOB)
    dropper = subject.another()

    def drop(request: Request[object]) -> None:
        if is_reference(request):
            client.before = lambda _: None
            dropper.backend.drop(BOB.sid)

    client.before = drop
    subject.put("b", b"2", BOB)
    assert dropper.contents(BOB) == {"b": b"2"}
    assert subject.another().backend.identify(BOB.sid) == BOB
    assert subject.backend.identify(NOBODY) is None


def test_of_two_stores_neither_acknowledges_a_file_that_the_other_has_deleted() -> None:
    clock = FakeClock()
    bucket = FakeBucket(clock.now)
    one, other = (
        SessionStore(ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds), clock=clock)
        for _ in range(2)
    )
    with one, other:
        for number in range(10):
            name = f"{number}.png"
            one.session("visitor").put(name, b"picture")
            other.session("visitor").delete(name)
            one.session("visitor").put(name, b"picture")
        assert len(other.session("visitor").files()) == 10
