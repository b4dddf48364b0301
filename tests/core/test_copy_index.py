"""The working cache: capped, least recently used first, with pins, and checked now and then."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sessionstore import FileNotStored, SessionStore
from sessionstore.backend import Reference
from sessionstore.local_copies import HELD, LocalCopies

SID = "alice-0123456789abcdef0123456789abcdef"
SIZE = 100


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def copies(tmp_path: Path, seconds: Seconds) -> Iterator[LocalCopies]:
    copies = LocalCopies(tmp_path / "copies", 3 * SIZE, seconds)
    yield copies
    copies.close()


def reference(name: str) -> Reference:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Reference(name, SIZE, digest, datetime(2026, 1, 1, tzinfo=UTC), None, "1")


def make(copies: LocalCopies, name: str, check: Callable[[], None] = lambda: None) -> Path:
    return copies.path(SID, reference(name), lambda: io.BytesIO(name.encode() * SIZE), check)


def test_the_least_recently_used_make_room(copies: LocalCopies, seconds: Seconds) -> None:
    paths = {}
    for name in "abc":
        paths[name] = make(copies, name)
        seconds.now += 1
    make(copies, "a")
    seconds.now += HELD
    paths["d"] = make(copies, "d")
    assert {name for name, path in paths.items() if path.exists()} == {"a", "d"}


def test_what_was_just_handed_out_stays_over_the_cap(copies: LocalCopies) -> None:
    paths = [make(copies, name) for name in "abcdef"]
    assert all(path.exists() for path in paths)


def test_a_pinned_copy_stays_however_old(copies: LocalCopies, seconds: Seconds) -> None:
    with copies.pinned(SID, reference("a"), lambda: io.BytesIO(b"a" * SIZE)) as path:
        seconds.now += 10 * HELD
        for name in "bcde":
            make(copies, name)
        assert path.read_bytes() == b"a" * SIZE
    for name in "fghi":
        seconds.now += HELD
        make(copies, name)
    assert not path.exists()


def test_an_evicted_copy_is_made_again(copies: LocalCopies, seconds: Seconds) -> None:
    path = make(copies, "a")
    seconds.now += HELD
    for name in "bcde":
        make(copies, name)
    assert not path.exists()
    assert make(copies, "a").read_bytes() == b"a" * SIZE


def test_a_file_is_looked_for_at_most_every_two_seconds(
    copies: LocalCopies, seconds: Seconds
) -> None:
    looks = []

    def check() -> None:
        looks.append(seconds.now)

    for _ in range(10):
        make(copies, "a", check)
        seconds.now += 0.5
    assert looks == [1000.0, 1002.0, 1004.0]


def test_a_copy_of_a_file_that_is_gone_goes_too(copies: LocalCopies, seconds: Seconds) -> None:
    path = make(copies, "a")
    seconds.now += 3

    def gone() -> None:
        raise FileNotStored("a")

    with pytest.raises(FileNotStored):
        make(copies, "a", gone)
    assert not path.exists()


def test_a_deletion_in_another_process_is_noticed(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as one, SessionStore.open(tmp_path / "s") as two:
        seconds = Seconds()
        one.local_copies = LocalCopies(tmp_path / "copies", None, seconds)
        file = one.session("a").put("a.txt", b"text")
        path = file.local_path()
        two.session("a").delete("a.txt")
        seconds.now += 2
        with pytest.raises(FileNotStored):
            file.local_path()
        assert not path.exists()


def test_the_settings_reach_the_cache(tmp_path: Path) -> None:
    with SessionStore.open(
        tmp_path / "s", cache_dir=tmp_path / "cache", cache_size=1_000_000
    ) as store:
        path = store.session("a").put("a.txt", b"text").local_path()
        assert path.is_relative_to(tmp_path / "cache")
        assert store.local_copies.size == 1_000_000
