"""Copying a store to another one, of any backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sessionstore import BackendUnavailable, Corrupted, Limits, Retention, SessionStore
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.backends.objects import ObjectBackend
from sessionstore.content import CHUNK
from sessionstore.testing import Call, FakeClock, Fault, FaultyBackend, on, unavailable
from sessionstore.transfer import Copied, Progress
from tests.support.local import spoil
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import (
    HOUR,
    MINUTE,
    PATIENCE,
    Heard,
    brief,
    local_store,
    memory_store,
    names,
)

BIG = b"0123456789abcdef" * (2 * CHUNK // 16) + b"end"


class Pair(NamedTuple):
    source: SessionStore
    target: SessionStore


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


KINDS = [
    "memory to memory", "memory to local", "local to memory", "local to local",
    "local to bucket", "bucket to local", "bucket to memory",
]  # fmt: skip


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Pair]:
    kinds = request.param.split(" to ")
    make: dict[str, Callable[[int], SessionStore]] = {
        "memory": lambda _: memory_store(clock),
        "local": lambda number: local_store(tmp_path / f"{number}", clock),
        "bucket": lambda _: in_bucket(clock),
    }
    stores = [make[kind](number) for number, kind in enumerate(kinds)]
    fill(stores[0])
    yield Pair(*stores)
    for store in stores:
        store.close()


def in_bucket(clock: FakeClock, bucket: FakeBucket | None = None, **policy: Any) -> SessionStore:
    bucket = bucket or FakeBucket(clock.now)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    return SessionStore(backend, clock=clock, **policy)


def fill(store: SessionStore) -> None:
    store.session("alice", "her").put("cat.png", b"cat")
    store.session("alice", "her").put("frames/0001.png", BIG)
    store.session("bob").put("empty", b"")
    store.shared.put("logo.png", b"logo")


def contents(store: SessionStore) -> dict[tuple[str, str | None, str], bytes]:
    sessions = [*store.sessions(), store.shared]
    return {(it.id, it.owner, file.name): file.read() for it in sessions for file in it.files()}


def test_every_session_and_file_is_there_afterwards(pair: Pair) -> None:
    copied = pair.source.copy_to(pair.target)
    assert copied == Copied(files=4, bytes=7 + len(BIG), skipped=0)
    assert contents(pair.target) == contents(pair.source)


def test_the_source_stays_as_it_was(pair: Pair) -> None:
    before = contents(pair.source)
    pair.source.copy_to(pair.target)
    assert contents(pair.source) == before


def test_the_second_time_all_is_passed_over(pair: Pair) -> None:
    pair.source.copy_to(pair.target)
    assert pair.source.copy_to(pair.target) == Copied(files=0, bytes=0, skipped=4)


def test_what_changed_is_copied_again(pair: Pair) -> None:
    pair.source.copy_to(pair.target)
    pair.source.session("bob").put("empty", b"no more")
    pair.source.session("carol").put("new", b"new")
    assert pair.source.copy_to(pair.target) == Copied(files=2, bytes=10, skipped=3)
    assert contents(pair.target) == contents(pair.source)


def test_what_else_the_target_has_stays(pair: Pair) -> None:
    pair.target.session("bob").put("own", b"own")
    pair.source.copy_to(pair.target)
    assert pair.target.session("bob").read("own") == b"own"


def test_times_to_live_are_kept(pair: Pair, clock: FakeClock) -> None:
    saved = pair.source.session("alice").put("a", b"cat", ttl=HOUR)
    clock.advance(MINUTE)
    pair.source.copy_to(pair.target)
    file = pair.target.session("alice").get("a")
    assert (file.expires, file.created) == (saved.expires, saved.created)


def test_a_time_to_live_that_changed_is_copied(pair: Pair) -> None:
    pair.source.copy_to(pair.target)
    expires = pair.source.session("bob").put("empty", b"", ttl=HOUR).expires
    assert pair.source.copy_to(pair.target) == Copied(files=1, bytes=0, skipped=3)
    assert pair.target.session("bob").get("empty").expires == expires


def test_what_is_over_its_time_is_not_copied(pair: Pair, clock: FakeClock) -> None:
    pair.source.session("bob").put("short", b"1", ttl=MINUTE)
    clock.advance(2 * MINUTE)
    assert pair.source.copy_to(pair.target).files == 4


class TestAges:
    def test_a_file_lives_no_longer_for_having_been_copied(
        self, clock: FakeClock, tmp_path: Path
    ) -> None:
        old = Retention(max_age=2 * HOUR, idle=None)
        for source, target in [
            (memory_store(clock), memory_store(clock, retention=old)),
            (memory_store(clock), local_store(tmp_path, clock, retention=old)),
            (memory_store(clock), in_bucket(clock, retention=old)),
        ]:
            source.session("bob").put("a", b"cat")
            clock.advance(HOUR)
            source.copy_to(target)
            clock.advance(HOUR)
            assert target.sweep() == []
            clock.advance(MINUTE)
            assert brief(target.sweep()) == [("delete", "bob", "a")]

    def test_a_session_is_not_idle_because_it_was_before(
        self, pair: Pair, clock: FakeClock
    ) -> None:
        clock.advance(23 * HOUR)
        pair.source.copy_to(pair.target)
        clock.advance(2 * HOUR)
        assert (brief(pair.target.plan()), len(pair.source.plan())) == ([], 2)
        clock.advance(23 * HOUR)
        assert len(pair.target.plan()) == 2

    def test_activity_since_is_carried_over_by_the_next_copy(
        self, pair: Pair, clock: FakeClock
    ) -> None:
        pair.source.copy_to(pair.target)
        clock.advance(20 * HOUR)
        pair.source.session("bob").touch()
        clock.advance(3 * HOUR)
        pair.source.copy_to(pair.target)
        clock.advance(2 * HOUR)
        assert brief(pair.target.plan()) == [("drop", "alice", "")]

    def test_what_was_not_active_since_is_left_to_idle(self, pair: Pair, clock: FakeClock) -> None:
        pair.source.copy_to(pair.target)
        clock.advance(23 * HOUR)
        pair.source.copy_to(pair.target)
        clock.advance(2 * HOUR)
        assert len(pair.target.plan()) == 2

    def test_an_end_is_not_put_off_by_the_next_copy(self, pair: Pair, clock: FakeClock) -> None:
        pair.source.session("bob").end()
        pair.source.copy_to(pair.target)
        clock.advance(4 * MINUTE)
        pair.source.copy_to(pair.target)
        clock.advance(MINUTE)
        assert brief(pair.target.plan()) == [("drop", "bob", "")]

    def test_a_visitor_who_came_back_is_back_in_the_next_copy(
        self, pair: Pair, clock: FakeClock
    ) -> None:
        pair.source.session("bob").end()
        pair.source.copy_to(pair.target)
        clock.advance(MINUTE)
        pair.source.session("bob").resume()
        pair.source.copy_to(pair.target)
        clock.advance(HOUR)
        assert brief(pair.target.plan()) == []


def test_ends_are_kept(pair: Pair, clock: FakeClock) -> None:
    pair.source.session("bob").end()
    pair.source.copy_to(pair.target)
    assert brief(pair.target.plan()) == [("hold", "bob", "")]
    clock.advance(5 * MINUTE)
    assert brief(pair.target.sweep()) == [("drop", "bob", "")]


def test_an_interrupted_copy_goes_on_where_it_was(clock: FakeClock) -> None:
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    source, target = memory_store(clock), SessionStore(backend, clock=clock)
    fill(source)
    backend.plan = on("put", Fault(unavailable), number=3)
    with pytest.raises(BackendUnavailable):
        source.copy_to(target, workers=1)
    assert source.copy_to(target) == Copied(
        files=2, bytes=sum(map(len, list(contents(source).values())[2:])), skipped=2
    )
    assert contents(target) == contents(source)


def test_a_file_deleted_meanwhile_is_left_out(clock: FakeClock) -> None:
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    source, target = SessionStore(backend, clock=clock), memory_store(clock)
    source.session("alice").put("a", b"cat")

    def deletes_first(call: Call) -> None:
        if call.verb == "open":
            backend.backend.delete(source.session("alice").sid, ["a"])

    backend.plan = deletes_first
    assert source.copy_to(target) == Copied(0, 0, 0, gone=1)
    assert contents(target) == {}


def test_damaged_bytes_are_not_copied(clock: FakeClock, tmp_path: Path) -> None:
    with local_store(tmp_path, clock) as source, memory_store(clock) as target:
        source.session("alice").put("a", b"cat")
        (blob,) = (tmp_path / "blobs").glob("*/*")
        spoil(blob, b"dog")
        with pytest.raises(Corrupted):
            source.copy_to(target)
        assert contents(target) == {}


def test_a_damaged_file_stops_no_other(clock: FakeClock) -> None:
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    source, target = SessionStore(backend, clock=clock), memory_store(clock)
    for name in "abc":
        source.session("alice").put(name, name.encode())
    wrong = Corrupted("damaged")

    def plan(call: Call) -> Fault | None:
        broken = call.verb == "open" and call.arguments["reference"].name == "b"
        return Fault(lambda: wrong) if broken else None

    backend.plan = plan
    with pytest.raises(Corrupted):
        source.copy_to(target)
    assert names(target.session("alice")) == ["a", "c"]


def test_content_that_is_damaged_in_the_target_is_not_taken_for_the_copy(
    clock: FakeClock, tmp_path: Path
) -> None:
    """The blob of equal bytes that was there before is what the copy would refer to."""
    with memory_store(clock) as source, local_store(tmp_path, clock) as target:
        source.session("alice").put("a", b"cat")
        target.session("bob").put("b", b"cat")
        (blob,) = (tmp_path / "blobs").glob("*/*")
        spoil(blob, b"dog")
        with pytest.raises(Corrupted):
            source.copy_to(target)
        assert names(target.session("alice")) == []
        target.verify(repair=True)
        source.copy_to(target)
        assert target.session("alice").read("a") == b"cat"


def test_damaged_content_in_a_bucket_is_copied_over(clock: FakeClock) -> None:
    bucket = FakeBucket(clock.now)
    source, target = memory_store(clock), in_bucket(clock, bucket)
    source.session("alice").put("a", b"cat")
    target.session("bob").put("b", b"cat")
    (key,) = (key for key in bucket.all_keys() if key.startswith("b/"))
    bucket.put(key, b"dog")
    assert source.copy_to(target).files == 1
    assert target.session("alice").read("a") == b"cat"


def test_stores_of_other_digests_are_copied_and_passed_over_too(clock: FakeClock) -> None:
    source = memory_store(clock)
    target = memory_store(clock, Place(digest="blake3"))
    fill(source)
    source.copy_to(target)
    assert contents(target) == contents(source)
    assert source.copy_to(target) == Copied(files=0, bytes=0, skipped=4)


def test_files_of_several_sessions_are_copied_together(clock: FakeClock) -> None:
    source, backend = memory_store(clock), FaultyBackend(MemoryBackend(Place(), clock))
    for name in "abc":
        source.session(name).put("file", name.encode())
    met = threading.Barrier(3)

    def plan(call: Call) -> None:
        if call.verb == "put":
            met.wait(PATIENCE)  # all of them at once, or this breaks

    backend.plan = plan
    target = SessionStore(backend, clock=clock)
    source.copy_to(target, workers=3)
    assert contents(target) == contents(source)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_files_are_copied_at_once_than_said(clock: FakeClock, workers: int) -> None:
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    source, target = memory_store(clock), SessionStore(backend, clock=clock)
    for number in range(20):
        source.session("alice").put(f"{number:02}", b"%d" % number)
    lock, met = threading.Lock(), threading.Barrier(workers)
    now = most = 0

    def plan(call: Call) -> None:
        nonlocal now, most
        if call.verb != "put" or call.number > workers:
            return
        with lock:
            now += 1
            most = max(most, now)
        met.wait(PATIENCE)  # all of them at once, or this breaks
        with lock:
            now -= 1

    backend.plan = plan
    source.copy_to(target, workers=workers)
    assert (most, contents(target)) == (workers, contents(source))


def test_nobody_cannot_copy(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"workers must be at least 1 \(got 0\)"):
        pair.source.copy_to(pair.target, workers=0)


class TestProgress:
    def test_is_told_after_each_file(self, pair: Pair) -> None:
        told: list[Progress] = []
        copied = pair.source.copy_to(pair.target, progress=told.append)
        assert [it.done.files for it in told] == [1, 2, 3, 4]
        assert (told[-1].done, told[-1].sessions) == (copied, 3)
        assert {(it.session_id, it.owner, it.name, it.size) for it in told} == {
            ("alice", "her", "cat.png", 3), ("alice", "her", "frames/0001.png", len(BIG)),
            ("bob", None, "empty", 0), ("shared", None, "logo.png", 4),
        }  # fmt: skip

    def test_counts_what_is_passed_over(self, pair: Pair) -> None:
        pair.source.copy_to(pair.target)
        told: list[Progress] = []
        pair.source.copy_to(pair.target, progress=told.append)
        assert [it.done.skipped for it in told] == [1, 2, 3, 4]

    def test_is_told_as_events_of_the_source(self, pair: Pair) -> None:
        heard = Heard(pair.source)
        pair.source.copy_to(pair.target)
        *copied, finished = heard.all()
        assert {(it.kind, it.session_id, it.name) for it in copied} == {
            ("copied", "alice", "cat.png"), ("copied", "alice", "frames/0001.png"),
            ("copied", "bob", "empty"), ("copied", "shared", "logo.png"),
        }  # fmt: skip
        assert (finished.kind, finished.size) == ("copy_finished", 7 + len(BIG))


def test_it_is_the_administrator_s_and_no_visitor_s(clock: FakeClock) -> None:
    source, target = memory_store(clock), memory_store(clock, limits=Limits(max_session=1))
    fill(source)
    heard = Heard(target)
    source.copy_to(target)
    assert (contents(target), heard.kinds()) == (contents(source), [])
