"""A session: what can be saved, and what comes back."""

from __future__ import annotations

import array
import gc
import hashlib
import io
import mmap
import os
import queue
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import (
    BackendUnavailable,
    FileNotStored,
    InvalidName,
    LimitExceeded,
    Limits,
    Session,
    SessionStore,
    SessionStoreError,
)
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.content import CHUNK
from sessionstore.local_copies import LocalCopies
from sessionstore.parsers import LONGEST
from sessionstore.session import Usage
from sessionstore.testing import FakeClock, Fault, FaultyBackend, disk_full, on, unavailable
from tests.support.stores import (
    HOUR,
    MINUTE,
    PATIENCE,
    SECOND,
    Heard,
    local_store,
    memory_store,
    names,
    store_of,
)

BIG = b"0123456789abcdef" * (3 * CHUNK // 16) + b"end"
"""Content that is spooled on its way in."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[SessionStore]:
    with memory_store(clock) as store:
        yield store


@pytest.fixture
def session(store: SessionStore) -> Session:
    return store.session("alice")


@pytest.fixture(params=["memory", "local"])
def either(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Session]:
    """A session on either backend."""
    local = request.param == "local"
    with local_store(tmp_path / "root", clock) if local else memory_store(clock) as store:
        yield store.session("alice")


@pytest.fixture
def own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test alone."""
    path = tmp_path / "temp"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def broken_after(data: bytes) -> Iterator[bytes]:
    yield data
    raise ZeroDivisionError("the source failed")


def raise_after(_: object) -> None:
    raise ZeroDivisionError


def fill(directory: Path, files: dict[bytes, bytes]) -> None:
    for name, data in files.items():
        (directory / os.fsdecode(name)).write_bytes(data)


class TestIdentity:
    def test_handle_tells_id_and_owner(self, store: SessionStore) -> None:
        session = store.session("k3j9x", owner="alice@example.org")
        assert (session.id, session.owner) == ("k3j9x", "alice@example.org")

    def test_handles_of_one_session_are_equal(self, store: SessionStore) -> None:
        assert store.session("a", "o") == store.session("a", "o")
        assert hash(store.session("a", "o")) == hash(store.session("a", "o"))

    def test_handles_of_other_sessions_or_stores_are_not_equal(
        self, store: SessionStore, clock: FakeClock
    ) -> None:
        others = [
            store.session("b"),
            store.session("a", "o"),
            memory_store(clock).session("a"),
            "a",
        ]
        assert not any(store.session("a") == other for other in others)

    def test_repr_names_it_for_people(self, store: SessionStore) -> None:
        assert repr(store.session("Alice!")).startswith("<Session alice-")

    def test_asking_for_a_session_creates_nothing(self, store: SessionStore) -> None:
        store.session("alice").files()
        assert list(store.backend.sessions()) == []

    def test_touching_ending_resuming_and_dropping_nothing_creates_nothing(
        self, store: SessionStore
    ) -> None:
        heard, session = Heard(store), store.session("alice")
        for verb in (session.touch, session.end, session.resume, session.drop):
            verb()
        assert (list(store.backend.sessions()), heard.kinds()) == ([], [])


class TestSources:
    @pytest.mark.parametrize(
        "content",
        [
            b"cat", bytearray(b"cat"), memoryview(b"cat"), memoryview(b"c.a.t.")[::2],
            array.array("B", b"cat"), [b"c", b"at"], (b"", b"cat"), iter([bytearray(b"cat")]),
            io.BytesIO(b"cat"), io.BufferedReader(io.BytesIO(b"cat")),
        ],
        ids=lambda content: type(content).__name__,
    )  # fmt: skip
    def test_bytes_files_and_iterables_are_content(self, session: Session, content: Any) -> None:
        session.put("cat", content)
        assert session.read("cat") == b"cat"

    def test_a_map_of_a_file_is_content(self, session: Session, tmp_path: Path) -> None:
        (tmp_path / "cat").write_bytes(b"cat")
        with (
            open(tmp_path / "cat", "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            session.put("cat", mapped)
        assert session.read("cat") == b"cat"

    def test_a_path_is_the_file_there(self, either: Session, tmp_path: Path) -> None:
        (tmp_path / "cat.png").write_bytes(BIG)
        either.put("cat", tmp_path / "cat.png")
        assert either.read("cat") == BIG

    def test_any_path_like_object_is_a_path(self, session: Session, tmp_path: Path) -> None:
        class Somewhere:
            def __fspath__(self) -> str:
                return str(tmp_path / "cat.png")

        (tmp_path / "cat.png").write_bytes(b"cat")
        session.put("cat", Somewhere())
        assert session.read("cat") == b"cat"

    def test_the_file_of_a_path_stays_what_it_is(self, either: Session, tmp_path: Path) -> None:
        path = tmp_path / "cat.png"
        path.write_bytes(b"cat")
        either.put("cat", path)
        path.write_bytes(b"dog")
        assert either.read("cat") == b"cat"

    def test_a_binary_file_is_read_from_its_position_and_left_open(self, session: Session) -> None:
        file = io.BytesIO(b"....cat")
        file.seek(4)
        session.put("cat", file)
        assert (session.read("cat"), file.closed) == (b"cat", False)

    def test_a_file_that_only_reads_is_enough(self, session: Session) -> None:
        class Pipe:
            def __init__(self) -> None:
                self.parts = [b"c", b"at", b""]

            def read(self, _: int) -> bytes:
                return self.parts.pop(0)

        session.put("cat", Pipe())
        assert session.read("cat") == b"cat"

    @pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(BIG)])
    @pytest.mark.parametrize(
        "source",
        [bytes, io.BytesIO, lambda data: (data[at : at + 999] for at in range(0, len(data), 999))],
        ids=["bytes", "file", "iterable"],
    )
    def test_every_length_comes_back_with_its_digest(
        self, either: Session, source: Callable[[bytes], Any], size: int
    ) -> None:
        data = BIG[:size]
        file = either.put("file", source(data))
        assert (file.read(), file.size) == (data, size)
        assert file.digest == hashlib.sha256(data).hexdigest()

    def test_a_str_is_refused_with_a_hint(self, session: Session) -> None:
        with pytest.raises(TypeError, match=r"encode it .* or wrap it in pathlib\.Path"):
            session.put("cat", "cat.png")

    def test_a_str_within_an_iterable_is_refused(self, session: Session) -> None:
        with pytest.raises(TypeError, match=r"gave a str, not bytes"):
            session.put("cat", ["cat"])

    def test_a_text_file_is_refused_with_a_hint(self, session: Session) -> None:
        with pytest.raises(TypeError, match="binary mode"):
            session.put("cat", io.StringIO("cat"))

    @pytest.mark.parametrize("content", [None, 7, 1.5, object()], ids=type)
    def test_anything_else_is_refused_and_says_what_can_be_saved(
        self, session: Session, content: object
    ) -> None:
        with pytest.raises(TypeError, match="give bytes, a path, a binary file"):
            session.put("cat", content)
        assert session.files() == []

    def test_a_missing_path_is_the_system_s_own_error(
        self, session: Session, tmp_path: Path
    ) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            session.put("cat", tmp_path / "no such file")
        assert not isinstance(caught.value, SessionStoreError)


class TestFailingSources:
    @pytest.mark.parametrize("data", [b"", b"a little", BIG], ids=["nothing", "little", "much"])
    def test_what_the_source_raises_passes_through_unchanged(
        self, either: Session, data: bytes
    ) -> None:
        with pytest.raises(ZeroDivisionError, match="the source failed") as caught:
            either.put("cat", broken_after(data))
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("data", [b"a little", BIG], ids=["little", "much"])
    def test_nothing_is_saved_and_the_older_file_stays(self, either: Session, data: bytes) -> None:
        either.put("cat", b"older")
        with pytest.raises(ZeroDivisionError):
            either.put("cat", broken_after(data))
        assert (either.read("cat"), names(either)) == (b"older", ["cat"])

    def test_nothing_is_left_where_nothing_was(self, either: Session) -> None:
        with pytest.raises(ZeroDivisionError):
            either.put("cat", broken_after(BIG))
        assert (either.files(), store_of(either).usage()) == ([], Usage(0, 0, 0, 0))

    def test_a_failed_save_is_told_to_nobody(self, session: Session) -> None:
        heard = Heard(session.store)
        with pytest.raises(ZeroDivisionError):
            session.put("cat", broken_after(b"cat"))
        assert heard.kinds() == []

    @pytest.mark.parametrize("error", [unavailable, disk_full])
    def test_a_backend_that_refuses_leaves_the_older_file(
        self, clock: FakeClock, error: Callable[[], BaseException]
    ) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        session = SessionStore(backend, clock=clock).session("alice")
        session.put("cat", b"older")
        backend.plan = on("put", Fault(error))
        with pytest.raises(SessionStoreError) as caught:
            session.put("cat", b"newer")
        assert isinstance(caught.value.__cause__, OSError)
        assert session.read("cat") == b"older"


class TestNames:
    @pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a//b", "a/", "nul\0", "x" * 300])
    def test_a_bad_name_is_refused_before_anything_is_read(
        self, session: Session, name: str
    ) -> None:
        source = io.BytesIO(b"cat")
        with pytest.raises(InvalidName):
            session.put(name, source)
        assert source.tell() == 0

    def test_a_bad_suffix_is_refused_before_anything_is_read(self, session: Session) -> None:
        source = io.BytesIO(b"cat")
        with pytest.raises(InvalidName, match=r"write a dot and an extension"):
            session.add(source, suffix="png")
        assert source.tell() == 0

    def test_names_may_have_directories(self, either: Session) -> None:
        either.put("frames/0001.png", b"1")
        either.put("frames", b"2")
        assert {file.name: file.read() for file in either.files()} == {
            "frames": b"2",
            "frames/0001.png": b"1",
        }

    @pytest.mark.parametrize("verb", ["get", "read", "open", "delete"])
    def test_reading_and_deleting_refuse_bad_names_too(self, session: Session, verb: str) -> None:
        with pytest.raises(InvalidName):
            getattr(session, verb)("../x")

    @pytest.mark.parametrize("name", ["missing", "../x", "", 7, None])
    def test_what_is_no_file_is_not_in_it(self, session: Session, name: object) -> None:
        assert name not in session

    def test_what_is_a_file_is_in_it(self, session: Session) -> None:
        session.put("cat", b"cat")
        assert "cat" in session


class TestPut:
    def test_replaces_what_has_the_name(self, either: Session) -> None:
        either.put("cat", b"old")
        either.put("cat", b"new")
        assert [file.read() for file in either.files()] == [b"new"]

    def test_keeps_equal_bytes_once(self, either: Session) -> None:
        either.put("a", BIG)
        either.put("b", BIG)
        store_of(either).session("bob").put("c", BIG)
        assert store_of(either).usage() == Usage(3, 3 * len(BIG), len(BIG), 2)

    def test_keeps_sessions_apart(self, store: SessionStore) -> None:
        for owner in (None, "a", "b"):
            store.session("id", owner).put("cat", str(owner).encode())
        assert [store.session("id", owner).read("cat") for owner in (None, "a", "b")] == [
            b"None",
            b"a",
            b"b",
        ]

    def test_is_told_as_saved(self, session: Session) -> None:
        heard = Heard(session.store)
        session.put("cat", b"cat")
        (event,) = heard.all()
        assert (event.kind, event.session_id, event.owner) == ("saved", "alice", None)
        assert (event.name, event.size) == ("cat", 3)

    def test_is_told_as_deduplicated_too_when_the_bytes_were_there(self, session: Session) -> None:
        session.put("a", b"cat")
        heard = Heard(session.store)
        session.put("b", b"cat")
        assert heard.kinds() == ["saved", "deduplicated"]

    def test_a_reader_beside_it_sees_the_old_or_the_new_bytes(self, either: Session) -> None:
        versions = [bytes([number]) * (CHUNK + 7) for number in range(2)]
        either.put("cat", versions[0])
        done, seen = threading.Event(), queue.SimpleQueue[set[bytes]]()

        def read_all_the_time() -> None:
            found = set()
            while not done.is_set():
                found.add(either.read("cat"))
            seen.put(found)

        reader = threading.Thread(target=read_all_the_time)
        reader.start()
        for number in range(40):
            either.put("cat", io.BytesIO(versions[number % 2]))
        done.set()
        assert seen.get(timeout=PATIENCE) <= set(versions)
        reader.join(PATIENCE)


class TestAdd:
    def test_names_are_fresh_and_end_in_the_suffix(self, session: Session) -> None:
        added = {session.add(b"cat", ".webp").name for _ in range(100)}
        assert len(added) == 100
        assert all(name.endswith(".webp") for name in added)

    def test_a_path_gives_its_suffix(self, session: Session, tmp_path: Path) -> None:
        (tmp_path / "cat.tiff").write_bytes(b"cat")
        file = session.add(tmp_path / "cat.tiff")
        assert file.name.endswith(".tiff")

    def test_a_suffix_given_is_used_instead_of_the_path_s(
        self, session: Session, tmp_path: Path
    ) -> None:
        (tmp_path / "cat.tiff").write_bytes(b"cat")
        assert session.add(tmp_path / "cat.tiff", "").name.isalnum()

    def test_bytes_have_no_suffix(self, session: Session) -> None:
        assert "." not in session.add(b"cat").name

    def test_a_time_to_live_holds(self, session: Session, clock: FakeClock) -> None:
        file = session.add(b"cat", ttl=MINUTE)
        clock.advance(MINUTE)
        assert file.name not in session


class TestTimeToLive:
    @pytest.mark.parametrize(
        ("ttl", "why"),
        [
            (timedelta(0), "longer than zero"),
            (-SECOND, "longer than zero"),
            (timedelta.min, "longer than zero"),
            (LONGEST + SECOND, "at most a hundred years are allowed"),
            (timedelta.max, "at most a hundred years are allowed"),
        ],
    )
    @pytest.mark.parametrize("verb", ["put", "add"])
    def test_one_that_makes_no_date_is_refused_before_a_byte_is_read(
        self, session: Session, verb: str, ttl: timedelta, why: str
    ) -> None:
        source = io.BytesIO(b"cat")
        args = ("cat", source) if verb == "put" else (source,)
        with pytest.raises(ValueError, match=why):
            getattr(session, verb)(*args, ttl=ttl)
        assert (session.files(), source.tell()) == ([], 0)

    def test_the_longest_is_kept(self, session: Session, clock: FakeClock) -> None:
        assert session.put("cat", b"cat", ttl=LONGEST).expires == clock.now() + LONGEST

    def test_expires_when_it_is_over(self, session: Session, clock: FakeClock) -> None:
        file = session.put("cat", b"cat", ttl=HOUR)
        assert file.expires == clock.now() + HOUR
        assert file.expires.tzinfo is UTC

    def test_begins_when_the_file_is_there_not_with_its_first_byte(
        self, session: Session, clock: FakeClock
    ) -> None:
        def slow() -> Iterator[bytes]:
            yield b"c"
            clock.advance(MINUTE)
            yield b"at"

        file = session.put("cat", slow(), ttl=HOUR)
        assert file.expires == clock.now() + HOUR

    def test_the_last_moment_before_it_the_file_is_served(
        self, session: Session, clock: FakeClock
    ) -> None:
        session.put("cat", b"cat", ttl=HOUR)
        clock.advance(HOUR - timedelta(microseconds=1))
        assert session.read("cat") == b"cat"

    def test_afterwards_nothing_serves_it_even_before_a_sweep(
        self, either: Session, clock: FakeClock
    ) -> None:
        file = either.put("cat", b"cat", ttl=HOUR)
        clock.advance(HOUR)
        for look in (
            lambda: either.get("cat"), lambda: either.read("cat"), lambda: either.open("cat"),
            file.read, file.open, file.local_path,
        ):  # fmt: skip
            with pytest.raises(FileNotStored):
                look()
        assert (either.files(), "cat" in either) == ([], False)
        assert either.usage() == Usage(0, 0, 0, 0)

    def test_a_save_without_one_ends_it(self, either: Session, clock: FakeClock) -> None:
        either.put("cat", b"cat", ttl=HOUR)
        either.put("cat", b"cat")
        clock.advance(2 * HOUR)
        assert either.read("cat") == b"cat"

    def test_a_handle_keeps_the_time_it_was_made_with(
        self, either: Session, clock: FakeClock
    ) -> None:
        short = either.put("cat", b"cat", ttl=HOUR)
        either.put("cat", b"cat")
        clock.advance(2 * HOUR)
        with pytest.raises(FileNotStored):
            short.read()


class TestReading:
    def test_files_are_ordered_by_name(self, either: Session) -> None:
        for name in ("b", "a/z", "a", "C", "ä", "10", "9"):
            either.put(name, b"")
        assert names(either) == sorted(["b", "a/z", "a", "C", "ä", "10", "9"])

    @pytest.mark.parametrize("verb", ["get", "read", "open"])
    def test_a_missing_file_is_also_the_builtin_error(self, session: Session, verb: str) -> None:
        with pytest.raises(FileNotFoundError, match=r"No file 'cat'.*files\(\) lists"):
            getattr(session, verb)("cat")

    def test_foreign_and_missing_files_look_the_same(self, store: SessionStore) -> None:
        store.session("alice", "alice").put("cat", b"cat")
        messages = set()
        for session in (store.session("alice"), store.session("nobody"), store.session("a", "b")):
            with pytest.raises(FileNotStored) as caught:
                session.read("cat")
            messages.add(str(caught.value))
        assert len(messages) == 1

    def test_read_follows_a_replacement_that_comes_between(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session.put("cat", b"old")
        backend = session.store.backend
        real = backend.open
        replacements = iter([b"new"])

        def replaced_first(*args: Any, **kwargs: Any) -> Any:
            for data in replacements:
                session.put("cat", data)
            return real(*args, **kwargs)

        monkeypatch.setattr(backend, "open", replaced_first)
        assert session.read("cat") == b"new"

    def test_read_survives_a_replacement_that_is_taken_back(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session.put("cat", b"cat")
        real = session.store.backend.open
        hidden = iter([FileNotStored("cat")])

        def hidden_first(*args: Any, **kwargs: Any) -> Any:
            for error in hidden:
                raise error
            return real(*args, **kwargs)

        monkeypatch.setattr(session.store.backend, "open", hidden_first)
        assert session.read("cat") == b"cat"

    def test_usage_counts_equal_bytes_once(self, session: Session) -> None:
        session.put("a", b"cat")
        session.put("b", b"cat")
        session.put("c", b"goldfish")
        assert session.usage() == Usage(files=3, bytes=14, stored_bytes=11, sessions=1)

    def test_usage_of_nothing_is_nothing(self, session: Session) -> None:
        assert session.usage() == Usage(0, 0, 0, 0)


class TestDelete:
    def test_removes_these_files_and_no_other(self, either: Session) -> None:
        for name in "abc":
            either.put(name, b"cat")
        either.delete("a", "c")
        assert names(either) == ["b"]

    def test_a_name_that_is_not_there_is_no_error(self, session: Session) -> None:
        session.put("a", b"cat")
        session.delete("a", "missing")
        session.delete()
        assert session.files() == []

    def test_a_bad_name_deletes_nothing(self, session: Session) -> None:
        session.put("a", b"cat")
        with pytest.raises(InvalidName):
            session.delete("a", "../x")
        assert names(session) == ["a"]

    def test_is_told_for_each_file_that_was_there(self, session: Session) -> None:
        session.put("a", b"cat")
        heard = Heard(session.store)
        session.delete("a", "missing", "a")
        (event,) = heard.all()
        assert (event.kind, event.name, event.size) == ("deleted", "a", 3)

    def test_does_not_reach_other_sessions(self, store: SessionStore) -> None:
        store.session("alice").put("cat", b"cat")
        store.session("bob").delete("cat")
        store.session("alice", "bob").delete("cat")
        assert store.session("alice").read("cat") == b"cat"


class TestDrop:
    def test_removes_the_session_with_all_its_files_now(self, either: Session) -> None:
        either.put("a", b"cat")
        either.put("b", b"dog")
        either.drop()
        assert either.files() == []
        assert store_of(either).usage() == Usage(0, 0, 0, 0)

    def test_leaves_the_others(self, store: SessionStore) -> None:
        for id_ in ("alice", "bob"):
            store.session(id_).put("cat", b"cat")
        store.session("alice").drop()
        assert store.session("bob").read("cat") == b"cat"

    def test_is_told_with_the_size_of_what_went(self, session: Session) -> None:
        session.put("a", b"cat")
        session.put("b", b"goldfish")
        heard = Heard(session.store)
        session.drop()
        (event,) = heard.all()
        assert (event.kind, event.session_id, event.name) == ("dropped", "alice", None)
        assert (event.size, event.reason) == (11, "asked for")

    def test_twice_is_no_error_and_told_once(self, session: Session) -> None:
        session.put("a", b"cat")
        heard = Heard(session.store)
        session.drop()
        session.drop()
        assert heard.kinds() == ["dropped"]

    def test_a_save_afterwards_begins_the_session_anew(self, either: Session) -> None:
        either.put("a", b"cat")
        either.drop()
        either.put("b", b"dog")
        assert names(either) == ["b"]


class TestOpenForReading:
    def test_reads_in_binary(self, either: Session) -> None:
        either.put("cat", BIG)
        with either.open("cat") as file:
            assert (file.read(4), file.read()) == (BIG[:4], BIG[4:])

    @pytest.mark.parametrize("mode", ["r", "w", "ab", "r+b", "x", ""])
    def test_another_mode_is_refused(self, session: Session, mode: Any) -> None:
        session.put("cat", b"cat")
        with pytest.raises(ValueError, match="use 'rb' or 'wb'"):
            session.open("cat", mode)


class TestOpenForWriting:
    def test_saves_when_it_is_closed_and_not_before(self, either: Session) -> None:
        file = either.open("cat", "wb")
        file.write(BIG)
        file.flush()
        assert "cat" not in either
        file.close()
        assert either.read("cat") == BIG

    def test_saves_at_the_end_of_its_block(self, either: Session) -> None:
        with either.open("cat", "wb") as file:
            file.write(b"c")
            file.write(b"at")
        assert either.read("cat") == b"cat"

    def test_an_empty_one_is_an_empty_file(self, session: Session) -> None:
        session.open("cat", "wb").close()
        assert session.read("cat") == b""

    def test_the_older_file_is_there_until_then(self, session: Session) -> None:
        session.put("cat", b"older")
        with session.open("cat", "wb") as file:
            file.write(b"newer")
            before = session.read("cat")
        assert (before, session.read("cat")) == (b"older", b"newer")

    @pytest.mark.parametrize("data", [b"little", BIG], ids=["little", "much"])
    def test_saves_nothing_when_the_block_raises(self, either: Session, data: bytes) -> None:
        either.put("cat", b"older")
        with pytest.raises(ZeroDivisionError), either.open("cat", "wb") as file:
            raise_after(file.write(data))
        assert (file.closed, either.read("cat")) == (True, b"older")
        assert either.store.backend.stored().blobs == 1

    def test_closing_twice_saves_once(self, session: Session) -> None:
        heard = Heard(session.store)
        file = session.open("cat", "wb")
        file.close()
        file.close()
        assert heard.kinds() == ["saved"]

    def test_one_that_the_program_lost_is_not_saved(self, session: Session) -> None:
        file = session.open("cat", "wb")
        file.write(b"half a c")
        del file
        gc.collect()
        assert session.files() == []

    def test_one_that_was_lost_in_a_cycle_is_not_saved(self, session: Session) -> None:
        # The collector finalises the members of a cycle in no order that can be relied upon.
        for number in range(20):
            file = session.open(f"{number}", "wb")
            file.write(b"half a c")
            file.flush()
            file.myself = file  # type: ignore[attr-defined]  # what makes the cycle
            del file
        gc.collect()
        assert session.files() == []

    def test_the_inner_file_alone_does_not_save_either(self, session: Session) -> None:
        file = session.open("cat", "wb")
        file.write(b"half a c")
        raw = file.detach()
        del raw, file
        gc.collect()
        assert session.files() == []

    def test_a_bad_name_is_refused_at_once(self, session: Session) -> None:
        with pytest.raises(InvalidName):
            session.open("../x", "wb")

    def test_is_for_writing_only(self, session: Session) -> None:
        with session.open("cat", "wb") as file:
            assert (file.writable(), file.readable(), file.seekable()) == (True, False, False)


class TestWritingOverALimit:
    @pytest.fixture
    def session(self, clock: FakeClock) -> Session:
        limits = Limits(max_file=100_000, max_session=150_000)
        return memory_store(clock, limits=limits).session("alice")

    def test_the_write_raises_and_nothing_is_saved(self, session: Session) -> None:
        with pytest.raises(LimitExceeded, match="max_file"), session.open("cat", "wb") as file:
            file.write(b"x" * 200_000)
        assert session.files() == []

    def test_it_is_told_once(self, session: Session) -> None:
        heard = Heard(session.store)
        with pytest.raises(LimitExceeded), session.open("cat", "wb") as file:
            file.write(b"x" * 200_000)
        assert heard.kinds() == ["limit_exceeded"]

    def test_passing_over_it_does_not_look_like_a_save(self, session: Session) -> None:
        file = session.open("cat", "wb")
        with pytest.raises(LimitExceeded):
            file.write(b"x" * 200_000)
        with pytest.raises(LimitExceeded):
            file.close()
        assert (file.closed, session.files()) == (True, [])

    def test_what_was_reserved_is_given_back_at_once(self, session: Session) -> None:
        file = session.open("cat", "wb")
        file.write(b"x" * 90_000)
        with pytest.raises(LimitExceeded):
            file.write(b"x" * 20_000)
        session.put("dog", b"y" * 90_000)
        session.put("owl", b"z" * 60_000)
        assert names(session) == ["dog", "owl"]
        with pytest.raises(LimitExceeded):
            file.close()

    def test_what_the_block_raises_is_not_hidden(self, session: Session) -> None:
        session.put("dog", b"x" * 99_999)
        session.put("owl", b"x" * 50_000)
        with pytest.raises(ZeroDivisionError), session.open("cat", "wb") as file:
            raise_after(file.write(b"xx"))  # in the buffer still, and over the limit


class TestDirectory:
    def test_what_is_in_it_afterwards_is_saved_by_relative_names(self, either: Session) -> None:
        with either.directory() as path:
            (path / "cat.png").write_bytes(b"cat")
            (path / "frames" / "deep").mkdir(parents=True)
            (path / "frames" / "deep" / "1.png").write_bytes(b"one")
        assert {file.name: file.read() for file in either.files()} == {
            "cat.png": b"cat",
            "frames/deep/1.png": b"one",
        }

    def test_is_private_empty_and_gone_afterwards(self, session: Session) -> None:
        session.put("cat", b"cat")
        with session.directory() as path:
            found = list(path.iterdir())
            mode = stat.S_IMODE(path.stat().st_mode)
        assert (found, mode, path.exists()) == ([], 0o700, False)

    def test_replaces_the_same_names_and_removes_none(self, session: Session) -> None:
        session.put("cat", b"old")
        session.put("dog", b"dog")
        with session.directory() as path:
            (path / "cat").write_bytes(b"new")
        assert [file.read() for file in session.files()] == [b"new", b"dog"]

    def test_links_and_special_files_are_passed_over(
        self, session: Session, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "key").write_bytes(b"key")
        with session.directory() as path:
            (path / "cat").write_bytes(b"cat")
            (path / "file link").symlink_to(secret / "key")
            (path / "directory link").symlink_to(secret)
            (path / "inner link").symlink_to(path / "cat")
            (path / "dangling").symlink_to(path / "nothing")
            os.mkfifo(path / "pipe")
        assert names(session) == ["cat"]

    def test_nothing_is_saved_when_the_block_raises(self, session: Session) -> None:
        with pytest.raises(ZeroDivisionError), session.directory() as path:
            raise_after((path / "cat").write_bytes(b"cat"))
        assert (session.files(), path.exists()) == ([], False)

    def test_is_gone_when_a_save_fails(self, clock: FakeClock) -> None:
        session = memory_store(clock, limits=Limits(max_file=3)).session("alice")
        with pytest.raises(LimitExceeded), session.directory() as path:
            fill(path, {b"a": b"cat", b"b": b"goldfish"})
        assert (names(session), path.exists()) == (["a"], False)

    def test_a_name_that_cannot_be_kept_saves_nothing(self, session: Session) -> None:
        with pytest.raises(InvalidName), session.directory() as path:
            fill(path, {b"a": b"cat", b"b\xff": b"dog"})
        assert session.files() == []

    def test_it_may_be_removed_within_the_block(self, session: Session) -> None:
        with session.directory() as path:
            path.rmdir()
        assert session.files() == []

    def test_a_place_that_cannot_be_written_is_our_error(
        self, session: Session, tmp_path: Path
    ) -> None:
        (tmp_path / "a file").write_bytes(b"")
        session.store.use_local_copies(LocalCopies(tmp_path / "a file"))
        with pytest.raises(BackendUnavailable, match="Could not make a local directory"):
            session.directory().__enter__()

    def test_what_a_killed_process_left_is_removed_by_a_sweep(
        self, own_temp: Path, clock: FakeClock
    ) -> None:
        killed = (
            "import os; from sessionstore import SessionStore;"
            "directory = SessionStore.open('memory://').session('alice').directory();"
            "open(directory.__enter__() / 'cat', 'w').close();"
            "os._exit(0)"
        )
        subprocess.run(
            [sys.executable, "-c", killed], check=True, env={**os.environ, "TMPDIR": str(own_temp)}
        )
        before = len(list(own_temp.rglob("cat")))
        with memory_store(clock) as store:
            store.sweep()
        assert (before, list(own_temp.rglob("cat"))) == (1, [])
