"""What a sweep of an object store takes, what it leaves, and when it holds back."""

from __future__ import annotations

import errno
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta

import pytest

from benchmarks.sweeps import MadeUp
from sessionstore.backend import Collected, Stored
from sessionstore.backends.objects import ObjectBackend, keys, spill
from sessionstore.backends.objects.collector import Collector
from sessionstore.content import TempSpool
from sessionstore.errors import BackendUnavailable, LimitExceeded
from sessionstore.names import is_sid
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, BOB, T, some_bytes
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request

GRACE = timedelta(hours=1)
LONGER = GRACE.total_seconds() + 10
DAY = 24 * 3600 + 10.0


class Failing(FakeObjectClient):
    """A client whose requests fail from a given listing on, when told to."""

    prefix = "nothing"
    after = 0

    def send(self, request: Request[T]) -> Answer[T]:
        if request.verb == "LIST" and request.keys[0] == self.prefix:
            if not self.after:
                raise BackendUnavailable("The listing broke off.")
            self.after -= 1
        return super().send(request)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


@pytest.fixture
def subject(bucket: FakeBucket, clock: FakeClock) -> Iterator[Subject]:
    subject = Subject(
        lambda _: ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds), clock
    )
    yield subject
    subject.close()


def content_of(bucket: FakeBucket) -> list[str]:
    return [key for key in bucket.all_keys() if key.startswith("b/")]


def notes_of(bucket: FakeBucket) -> list[str]:
    return [key for key in bucket.all_keys() if "/f/" not in key and key.startswith("s/")]


def test_young_content_stays_although_nothing_refers_to_it(subject: Subject) -> None:
    subject.put("a", b"1")
    subject.backend.drop(ALICE.sid)
    subject.advance(GRACE.total_seconds())
    assert subject.backend.collect().blobs == 0
    subject.advance(2)
    collected = subject.backend.collect()
    assert (collected.blobs, collected.bytes) == (1, 1)


@pytest.mark.parametrize(
    ("prefix", "after"), [("b/", 0), ("b/", 1), ("i/", 0), ("s/", 0), ("s/", 1)]
)
def test_nothing_is_deleted_after_a_listing_that_broke_off(
    bucket: FakeBucket, subject: Subject, prefix: str, after: int
) -> None:
    for number in range(5):
        subject.put(f"{number}", some_bytes(number, 10))
    subject.backend.drop(ALICE.sid)
    for name in ("kept", "too"):
        subject.put(name, name.encode(), BOB)
    subject.advance(LONGER)
    there = bucket.all_keys()
    client = Failing(bucket, page_size=1)
    client.prefix, client.after = prefix, after
    sweeper = ObjectBackend(client, elapsed=bucket.seconds)
    with pytest.raises(BackendUnavailable):
        sweeper.collect()
    assert bucket.all_keys() == there


def test_unknown_objects_stay(bucket: FakeBucket, subject: Subject) -> None:
    subject.put("a", b"1")
    others = [
        "b/ab/README", "b/ab/abcd/1234", "i/x/other", "other", f"s/{ALICE.sid}/other",
        f"s/{ALICE.sid}/f/a/other", "s/zzz/other",
    ]  # fmt: skip
    for key in others:
        bucket.put(key, b"?")
    subject.advance(DAY)
    subject.backend.collect()
    assert set(others) < set(bucket.all_keys())
    assert subject.contents() == {"a": b"1"}
    assert subject.sids() == [ALICE.sid]


def test_content_with_an_intent_stays_for_a_day(bucket: FakeBucket, subject: Subject) -> None:
    digest, generation = "ab" * 32, "cd" * 16
    bucket.put(keys.blob(digest, generation), b"uploaded")
    bucket.put(keys.intent(ALICE.sid, digest, generation), b"")
    subject.advance(DAY - 60)
    subject.backend.collect()
    assert content_of(bucket) == [keys.blob(digest, generation)]
    subject.advance(60)
    assert subject.backend.collect().leftovers == 1
    assert subject.backend.collect().blobs == 1
    assert bucket.all_keys() == ["layout", "sweep"]


def test_abandoned_uploads_are_aborted_after_a_day(bucket: FakeBucket, subject: Subject) -> None:
    bucket.begin(keys.blob("ab" * 32, "cd" * 16))
    subject.advance(DAY - 60)
    subject.backend.collect()
    assert len(bucket.uploads()) == 1
    subject.advance(60)
    assert subject.backend.collect().leftovers == 1
    assert bucket.uploads() == []


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_a_signed_upload_goes_when_it_expires(
    bucket: FakeBucket, subject: Subject, *, sliced: bool, joined: bool
) -> None:
    backend = subject.backend
    assert isinstance(backend, ObjectBackend)
    backend._sweeper.sliced_from = 0 if sliced else 1
    backend._bucket.waits.parallel = sliced
    key = keys.staged(ALICE.sid, subject.backend.now() + timedelta(days=3), "ab" * 16)
    upload = bucket.begin(key)
    part = bucket.take_part(upload, 1, b"bytes")
    if joined:
        bucket.complete(upload, [part])
    for after, left in ((3 * DAY - 60, 1), (60, 0)):
        subject.advance(after)
        backend.collect()
        assert len(bucket.uploads()) + bucket.all_keys().count(key) == left
    assert (backend.stored(), backend.collect().leftovers) == (Stored(0, 0), 0)


def test_a_reference_without_content_goes_when_it_is_old(
    bucket: FakeBucket, subject: Subject
) -> None:
    subject.put("a", b"1")
    bucket.delete(content_of(bucket))
    subject.backend.collect()
    assert subject.names() == ["a"]
    subject.advance(LONGER)
    assert subject.backend.collect().leftovers == 1
    assert subject.sids() == []


def test_what_a_dead_save_did_not_remove_is_removed(bucket: FakeBucket, subject: Subject) -> None:
    subject.put("a", b"old")
    (old,) = (key for key in bucket.all_keys() if "/f/a/" in key)
    stored = bucket.get(old)
    subject.put("a", b"new")
    bucket.put(old, stored.data, stored.modified)  # as if it had died before this delete
    assert subject.another().contents() == {"a": b"new"}
    assert subject.backend.collect().leftovers == 1
    assert [key for key in bucket.all_keys() if "/f/a/" in key] != [old]
    assert subject.another().contents() == {"a": b"new"}


def test_old_versions_stay_below_one_that_came_too_late(
    bucket: FakeBucket, subject: Subject, clock: FakeClock
) -> None:
    subject.put("a", b"old")
    subject.put("b", b"new")
    (late,) = (key for key in bucket.all_keys() if "/f/b/" in key)
    clock.advance(GRACE)
    bucket.put(late.replace("/f/b/", "/f/a/"), b"")
    other = subject.another()
    assert other.read("a") == b"old"
    subject.backend.collect()
    assert other.read("a") == b"old"


def test_notes_of_sessions_that_are_not_there_go(bucket: FakeBucket, subject: Subject) -> None:
    subject.put("a", b"1")
    subject.backend.touch(ALICE.sid)
    subject.backend.drop(ALICE.sid)
    subject.backend.touch(BOB.sid)
    assert len(notes_of(bucket)) == 2
    subject.backend.collect()
    assert len(notes_of(bucket)) == 2
    subject.advance(1.2 * LONGER)
    assert subject.backend.collect().leftovers == 2
    assert notes_of(bucket) == []


def test_of_a_session_s_notes_the_newest_stay(bucket: FakeBucket, subject: Subject) -> None:
    subject.put("a", b"1")
    for _ in range(4):
        subject.backend.touch(ALICE.sid)
        subject.backend.end(ALICE.sid)
        subject.advance(1.2 * LONGER)
    before = subject.record()
    assert subject.backend.collect().leftovers == 6
    assert len(notes_of(bucket)) == 2
    assert subject.record() == before


def test_deletes_leave_one_note_each_process(bucket: FakeBucket, subject: Subject) -> None:
    for number in range(5):
        subject.put("a", some_bytes(number, 10))
        subject.backend.delete(ALICE.sid, ["a"])
        subject.advance(10)
    assert len(notes_of(bucket)) == 1


class Several(FakeObjectClient):
    """A client that takes several requests at once."""

    at_once = 2


def half_gone(subject: Subject) -> None:
    """Save a hundred files, and delete half of them a grace ago."""
    for number in range(50):
        subject.put(f"{number}", some_bytes(number, 10))
        subject.put(f"gone {number}", some_bytes(("gone", number), 10))
    subject.backend.delete(ALICE.sid, [f"gone {number}" for number in range(50)])
    subject.advance(LONGER)


@pytest.mark.parametrize("kind", [FakeObjectClient, Several])
def test_a_large_store_is_swept_in_one_pass(
    bucket: FakeBucket,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[FakeObjectClient],
) -> None:
    half_gone(subject)
    monkeypatch.setattr(spill, "MEMORY", 500)
    client = kind(bucket, page_size=7)
    sweeper = ObjectBackend(client, elapsed=bucket.seconds)
    sweeper._sweeper.sliced_from = 0
    client.requests.clear()
    collected = sweeper.collect()
    pages = collected.requests
    assert (collected.blobs, collected.stored, collected.referred) == (
        50,
        Stored(50, 500),
        Stored(50, 500),
    )
    assert subject.backend.stored() == Stored(50, 500)
    assert len(subject.contents()) == 50
    assert client.requests["LIST"] == pages + 1  # unfinished uploads
    if kind is FakeObjectClient:
        notes = 1
        assert pages == -(-100 // 7) + 1 + -(-(50 + notes) // 7)


def test_nothing_is_deleted_when_the_disk_of_a_sweep_is_full(
    bucket: FakeBucket, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_gone(subject)
    monkeypatch.setattr(spill, "MEMORY", 500)

    def full(spool: TempSpool, _: bytes) -> int:
        with spool._translated(f"buffer {spool._of}"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TempSpool, "write", full)
    before = bucket.all_keys()
    with pytest.raises(LimitExceeded, match="Could not buffer the listings of a sweep"):
        subject.backend.collect()
    assert bucket.all_keys() == before


def test_a_pass_is_read_to_its_end_before_it_collects(subject: Subject) -> None:
    survey = subject.backend.survey()  # type: ignore[attr-defined]  # an ObjectBackend
    with pytest.raises(RuntimeError, match="must be read to its end first"):
        survey.collect()


def test_a_pass_without_content_lists_the_sessions_only(
    bucket: FakeBucket, subject: Subject
) -> None:
    half_gone(subject)
    client = FakeObjectClient(bucket)
    survey = ObjectBackend(client, elapsed=bucket.seconds).survey(content=False)
    client.requests.clear()
    assert [record.sid for record in survey.sessions()] == [ALICE.sid]
    assert (survey.collect(), dict(client.requests)) == (Collected(0, 0, 0), {"LIST": 1})


class TestGuard:
    """A sweep that sees hardly any references does not believe it at once."""

    @pytest.fixture
    def emptied(self, bucket: FakeBucket, subject: Subject) -> Subject:
        """A store whose references cannot be seen all of a sudden."""
        for number in range(1001):
            subject.put(f"{number}", b"%d" % number, fresh=True)
        subject.put("kept", b"kept", BOB)
        subject.backend.collect()
        subject.advance(LONGER)
        bucket.delete([key for key in bucket.all_keys() if key.startswith(f"s/{ALICE.sid}/")])
        return subject

    def test_it_holds_back_and_says_why(self, emptied: Subject) -> None:
        collected = emptied.backend.collect()
        assert collected.blobs == 0
        assert collected.held is not None
        assert "1001 stored blobs would be deleted" in collected.held
        assert emptied.backend.stored().blobs == 1002

    def test_it_holds_back_until_a_grace_has_passed(self, emptied: Subject) -> None:
        emptied.backend.collect()
        emptied.advance(GRACE.total_seconds() - 5)
        assert emptied.backend.collect().held is not None
        emptied.advance(10)
        assert emptied.backend.collect().blobs == 1001

    def test_it_goes_ahead_when_it_is_told_to(self, emptied: Subject) -> None:
        assert emptied.backend.collect(force=True).blobs == 1001
        assert emptied.contents(BOB) == {"kept": b"kept"}

    def test_it_forgets_when_the_references_are_back(self, emptied: Subject) -> None:
        emptied.backend.collect()
        for number in range(1001):
            emptied.put(f"{number}", b"%d" % number, fresh=True)
        assert emptied.backend.collect().held is None

    def test_an_empty_listing_without_a_count_is_not_believed(
        self, bucket: FakeBucket, emptied: Subject
    ) -> None:
        bucket.delete([keys.SWEEP])
        emptied.backend.drop(BOB.sid)
        assert emptied.backend.collect().held is not None

    def test_a_damaged_count_stops_no_sweep(self, bucket: FakeBucket, emptied: Subject) -> None:
        bucket.put(keys.SWEEP, b"damaged")
        assert emptied.backend.collect().blobs == 1001


@pytest.mark.parametrize("files", [20_000, 80_000])
def test_the_memory_of_a_sweep_does_not_grow_with_the_store(
    monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """On listings that are made up as they are asked for; ``benchmarks.sweeps`` does millions."""
    monkeypatch.setattr(spill, "MEMORY", 100_000)
    clock = FakeClock()
    bucket = MadeUp(clock, files)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert backend.collect().blobs == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= 2 * 100_000 + 2**21  # the rows in memory; the page under way, a part


def test_the_slices_hold_every_session() -> None:
    first = {each for each in map(chr, range(128)) if is_sid(f"{each}-{'0' * 32}")}
    assert first == {*Collector.session_slices}
