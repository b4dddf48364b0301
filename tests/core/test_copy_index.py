"""The working cache: capped, least recently used first, and checked now and then."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from sessionstore import FileNotStored, LimitExceeded, SessionStore
from sessionstore.backend import Reference
from sessionstore.local_copies import LocalCopies
from tests.support.stores import in_threads

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
    return copies.path(
        SID, reference(name), lambda: io.BytesIO((name.encode() * SIZE)[:SIZE]), check
    )


def test_the_least_recently_used_make_room(copies: LocalCopies) -> None:
    paths = {name: str(make(copies, name)) for name in "abc"}
    make(copies, "a")
    paths["d"] = str(make(copies, "d"))
    assert {name for name, path in paths.items() if Path(path).exists()} == {"a", "d"}


def test_a_copy_stays_while_its_path_is_in_use(copies: LocalCopies) -> None:
    path = make(copies, "a")
    for name in "bcde":
        make(copies, name)
    assert path.read_bytes() == b"a" * SIZE
    left = str(path)
    assert make(copies, "a") is path

    del path
    for name in "fgh":
        make(copies, name)
    assert not Path(left).exists()


def test_the_cap_holds_against_paths_in_use(copies: LocalCopies) -> None:
    """The next copy fails in words, and nothing of it is left; one less in use, and it is made."""
    paths = [make(copies, name) for name in "abc"]
    with pytest.raises(LimitExceeded, match="copies in use have 300 B of cache_size=300 B"):
        make(copies, "d")
    assert all(path.exists() for path in paths)
    paths.pop(0)
    assert make(copies, "d").exists()


def test_a_file_larger_than_the_cap_evicts_nothing(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "copies", SIZE - 1)
    with pytest.raises(LimitExceeded, match="cache_size"):
        make(copies, "a")
    copies.close()


def test_a_walk_through_many_files_stays_within_the_cap(
    copies: LocalCopies, tmp_path: Path
) -> None:
    for number in range(100):
        assert make(copies, f"{number}").exists()
        files = [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 3 * SIZE
    left = [path for path in copies._workspace.path.rglob("*") if path.is_dir()]
    assert not [path for path in left if not any(path.iterdir())]


def test_a_failed_copy_takes_no_room(copies: LocalCopies) -> None:
    def fails() -> BinaryIO:
        raise FileNotStored("a")

    for _ in range(10):
        with pytest.raises(FileNotStored):
            copies.path(SID, reference("a"), fails)
    assert all(path.exists() for path in [make(copies, name) for name in "abc"])


def test_a_copy_that_many_ask_for_is_fetched_once(copies: LocalCopies) -> None:
    fetched: list[int] = []
    paths: list[Path] = []

    def fetch() -> BinaryIO:
        fetched.append(1)
        threading.Event().wait(0.05)  # so that the others come to it meanwhile
        return io.BytesIO(b"a" * SIZE)

    in_threads(16, target=lambda _: paths.append(copies.path(SID, reference("a"), fetch)))
    assert (len(fetched), len(paths), len(set(paths))) == (1, 16, 1)


def test_an_evicted_copy_is_made_again(copies: LocalCopies) -> None:
    path = str(make(copies, "a"))
    for name in "bcde":
        make(copies, name)
    assert not Path(path).exists()
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
    assert looks == [1002.0, 1004.0]  # the stream of the first one looks itself


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
