"""Copying a store to another one, of any backend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sessionstore import BackendUnavailable, Corrupted, Limits, SessionStore
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.content import CHUNK
from sessionstore.testing import Call, FakeClock, Fault, FaultyBackend, on, unavailable
from sessionstore.transfer import Copied
from tests.stores import HOUR, MINUTE, Heard, brief, local_store, memory_store

BIG = b"0123456789abcdef" * (2 * CHUNK // 16) + b"end"


class Pair(NamedTuple):
    source: SessionStore
    target: SessionStore


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory to memory", "memory to local", "local to memory", "local to local"])
def pair(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Pair]:
    kinds = request.param.split(" to ")
    stores = [
        local_store(tmp_path / f"{number}", clock) if kind == "local" else memory_store(clock)
        for number, kind in enumerate(kinds)
    ]
    fill(stores[0])
    yield Pair(*stores)
    for store in stores:
        store.close()


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
    expires = pair.source.session("alice").put("a", b"cat", ttl=HOUR).expires
    clock.advance(MINUTE)
    pair.source.copy_to(pair.target)
    file = pair.target.session("alice").get("a")
    assert (file.expires, file.created) == (expires, clock.now())


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
        source.copy_to(target)
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
    assert source.copy_to(target) == Copied(0, 0, 0)
    assert contents(target) == {}


def test_damaged_bytes_are_not_copied(clock: FakeClock, tmp_path: Path) -> None:
    with local_store(tmp_path, clock) as source, memory_store(clock) as target:
        source.session("alice").put("a", b"cat")
        (blob,) = (tmp_path / "blobs").glob("*/*")
        blob.chmod(0o600)
        times = blob.stat()
        blob.write_bytes(b"dog")
        os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(Corrupted):
            source.copy_to(target)
        assert contents(target) == {}


def test_stores_of_other_digests_are_copied_too(clock: FakeClock) -> None:
    source = memory_store(clock)
    target = memory_store(clock, Place(digest="blake3"))
    fill(source)
    source.copy_to(target)
    assert contents(target) == contents(source)


def test_it_is_the_administrator_s_and_no_visitor_s(clock: FakeClock) -> None:
    source, target = memory_store(clock), memory_store(clock, limits=Limits(max_session=1))
    fill(source)
    heard = Heard(target)
    source.copy_to(target)
    assert (contents(target), heard.kinds()) == (contents(source), [])
