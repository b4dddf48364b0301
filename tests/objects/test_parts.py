"""The small parts that the object protocol is made of: keys, the index, memory, payloads."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.backend import Reference, SessionKey
from sessionstore.backends.objects import keys
from sessionstore.backends.objects import spill as spill_module
from sessionstore.backends.objects.cache import CachedVersion, LookupCache, Lru
from sessionstore.backends.objects.client import Entry, Payload
from sessionstore.backends.objects.spill import Blob, Spill, row_id
from sessionstore.errors import BackendUnavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SID = "alice-" + "0" * 32
DIGEST, GENERATION, NONCE = "ab" * 32, "cd" * 16, "b" + "1" * 15

micros = st.integers(0, 10**17)
sizes = st.integers(0, 10**15)


def entry(key: str) -> Entry:
    return Entry(key, 0, NOW)


@given(seq=micros, size=sizes, expires=micros)
def test_a_reference_s_key_tells_all(seq: int, size: int, expires: int) -> None:
    made = keys.version(SID, "a.png", seq, NONCE, size, expires, DIGEST, GENERATION, NOW)
    version = keys.parse_version(entry(made.key))
    assert version == made
    assert (version.sid, version.file, version.size) == (SID, "a.png", size)
    assert (version.expires, version.digest, version.generation) == (expires, DIGEST, GENERATION)
    assert keys.seq(version.token) == seq
    assert version.modified == NOW
    assert version.blob == keys.blob(DIGEST, GENERATION)


@given(one=micros, other=micros)
def test_newer_versions_have_greater_tokens(one: int, other: int) -> None:
    tokens = []
    for seq in (one, other):
        version = keys.version(SID, "a", seq, NONCE, 1, 0, DIGEST, GENERATION, NOW)
        tokens.append(version.token)
    assert (tokens[0] < tokens[1]) == (one < other)


@pytest.mark.parametrize(
    "key",
    [
        f"s/{SID}/f/a/{'f' * 16}.{NONCE}.1.0.{DIGEST}.{GENERATION}",  # no calendar reaches that
        f"s/{SID}/f/a/{'0' * 16}.{NONCE}.1.0.{DIGEST}",
        f"s/{SID}/f/a/{'0' * 16}.{NONCE}.-1.0.{DIGEST}.{GENERATION}",
        f"s/{SID}/f/a/{'0' * 16}.{NONCE.upper()}.1.0.{DIGEST}.{GENERATION}",
        f"s/{SID}/f/a/b/{'0' * 16}.{NONCE}.1.0.{DIGEST}.{GENERATION}",
        f"s/{SID}/f/a/{'0' * 16}.{NONCE}.{'9' * 40}.0.{DIGEST}.{GENERATION}",
        f"s/{SID}/id",
        "s/",
        "",
    ],
)
def test_other_keys_are_no_references(key: str) -> None:
    assert keys.parse_version(entry(key)) is None


@pytest.mark.parametrize(
    "key",
    [f"b/ab/{DIGEST}/{GENERATION}x", f"b/cd/{DIGEST}/{GENERATION}", f"b/ab/{DIGEST}", "b/ab/x/y"],
)
def test_other_keys_are_no_content(key: str) -> None:
    assert keys.parse_blob(key) is None


def test_notes_read_back() -> None:
    for key, kind in (
        (keys.seen(SID, 7), "seen"),
        (keys.saved(SID, 7), "saved"),
        (keys.ended(SID, "0" * 16), "ended"),
    ):
        mark = keys.parse_mark(entry(key))
        assert mark is not None
        assert mark.kind == kind
    assert keys.parse_mark(entry(f"s/{SID}/seen.x")) is None
    assert keys.parse_mark(entry(f"s/{SID}/saved.{'f' * 16}")) is None


@pytest.mark.parametrize("owner", [None, "somebody", "\U0001f600"])
def test_a_body_tells_whose_it_is(owner: str | None) -> None:
    key = SessionKey(SID, "alice \u00fc", owner)
    assert keys.parse_body(SID, keys.body(key, "a/b")) == (key, "a/b")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'"x"', b'{"id": "x"}'])
def test_another_body_tells_nothing(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        keys.parse_body(SID, data)


@given(st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)))  # noqa: DTZ001 - as hypothesis wants it
def test_times_read_back(time: datetime) -> None:
    assert keys.time(keys.microseconds(time)) == time


def test_odd_times_are_times_too() -> None:
    assert keys.microseconds(datetime(1960, 1, 1, tzinfo=UTC)) == 1
    assert keys.time(0) is None
    assert keys.time(10**18) is None


# The rows of a sweep


def generation(number: int) -> str:
    return hashlib.sha256(b"no. %d" % number).hexdigest()[:32]


def digest(number: int) -> str:
    """As random as digests are."""
    return hashlib.sha256(b"%d" % number).hexdigest()


Order = Callable[[Iterable[int]], list[int]]


@pytest.mark.parametrize("order", [list, partial(sorted, key=digest)], ids=["random", "sorted"])
@pytest.mark.parametrize("memory", [1, 500, 40_000, 1 << 20])
def test_what_is_old_and_not_referred_to_is_found(
    monkeypatch: pytest.MonkeyPatch, order: Order, memory: int
) -> None:
    monkeypatch.setattr(spill_module, "MEMORY", memory)
    with closing(Spill()) as spill:
        for number in order(range(1, 1001)):
            spill.add(digest(number), generation(number), number, old=number % 2 == 0)
        for number in range(1, 1001, 5):
            for _ in range(2):
                spill.refer(digest(number), generation(number), old=False)
        spill.refer(digest(2), generation(4), old=True)
        spill.refer(digest(5000), generation(5000), old=False)
        parts = list(spill.parts())
        found = [blob for part in parts for blob in part.unreferred()]
        missing = set().union(*(part.missing() for part in parts))
    expected = {number for number in range(1, 1001) if number % 2 == 0 and number % 5 != 1}
    assert sum(part.idle.blobs for part in parts) == len(found) == len(expected)
    assert sum(part.idle.bytes for part in parts) == sum(expected)
    assert set(found) == {Blob(digest(it), generation(it), it) for it in expected}
    assert missing == {row_id(digest(2), generation(4))}
    assert sum(part.stored.bytes for part in parts) == sum(range(1, 1001))
    assert sum(part.referred.blobs for part in parts) == 200
    assert sum(part.referred.bytes for part in parts) == sum(range(1, 1001, 5))


def test_copies_of_one_content_are_told_apart_by_their_last_digit() -> None:
    copies = [f"{'ab' * 15}{number:02x}" for number in range(256)]
    spill = Spill()
    for each in copies:
        spill.add(DIGEST, each, 1, old=True)
    spill.refer(DIGEST, copies[77], old=True)
    spill.refer(f"{DIGEST[:-1]}0", copies[78], old=False)
    part = spill.part(0xAB)
    assert {blob.generation for blob in part.unreferred()} == {*copies} - {copies[77]}
    assert part.missing() == set()


def test_a_temporary_file_that_was_cut_short_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spill_module, "MEMORY", 500)
    with closing(Spill()) as spill:
        for number in range(100):
            spill.add(digest(number), generation(number), number, old=True)
        assert spill._generations._spool is not None
        spill._generations._spool.file.truncate(1000)
        with pytest.raises(BackendUnavailable, match="was cut short, so nothing was deleted"):
            list(spill.parts())


# Memory


def test_the_least_recently_used_is_forgotten() -> None:
    memory: Lru[str, int] = Lru(2)
    memory.put("a", 1)
    memory.put("b", 2)
    memory.get("a")
    memory.put("c", 3)
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (1, None, 3)
    assert len(memory) == 2


def sight(token: str) -> CachedVersion:
    return CachedVersion(Reference("a", 1, DIGEST, NOW, None, token), 0.0, NOW)


def test_a_look_that_began_before_a_change_is_not_remembered() -> None:
    cache = LookupCache()
    ticket = cache.epoch(SID)
    cache.changed(SID)
    cache.add(SID, "a", sight("old"), ticket)
    assert cache.sight(SID, "a") is None


def test_a_save_makes_looks_that_began_before_it_stale() -> None:
    cache = LookupCache()
    ticket = cache.epoch(SID)
    cache.add(SID, "a", sight("new"), cache.epoch(SID), new=True)
    cache.add(SID, "a", sight("old"), ticket)
    assert cache.sight(SID, "a") is None


# Payloads


@pytest.mark.parametrize("file", [True, False])
def test_a_payload_gives_its_bytes_again_and_again(file: bool) -> None:
    data = bytes(range(256)) * 10
    payload = Payload(io.BytesIO(data) if file else memoryview(data), 0, len(data))
    assert payload.read() == data
    part = payload.part(100, 50)
    with part.open() as one, part.open() as two:
        assert one.read(20) == data[100:120]
        assert two.read() == data[100:150]
        assert one.read() == data[120:150]
        assert one.seek(-10, io.SEEK_END) == 40
        assert one.read(100) == data[140:150]
        assert one.seek(0) == one.tell() == 0
        assert len(one) == 50


def test_bounds_of_time_are_a_fact_of_the_terms() -> None:
    assert keys.created(f"{0:016x}") == keys.EPOCH
    assert keys.created(f"{10**6:016x}") == keys.EPOCH + timedelta(seconds=1)
