"""Limits, enforced while the bytes come in; each refusal says what to do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sessionstore import LimitExceeded, Limits, Retention, Session, SessionStore, SettingsError
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.backends.objects import ObjectBackend
from sessionstore.content import CHUNK, Ingest, TempSpool, ingest
from sessionstore.events import Event
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on, unavailable
from sessionstore.testing.faulty import Call
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import (
    HOUR,
    MINUTE,
    PATIENCE,
    SECOND,
    Heard,
    in_threads,
    local_store,
    memory_store,
    names,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def limited(clock: FakeClock, place: Place | None = None, **limits: int) -> SessionStore:
    return memory_store(clock, place, limits=Limits(**limits))


def pieces(count: int, size: int = 10) -> Iterator[bytes]:
    return (bytes(size) for _ in range(count))


class TestSettings:
    @pytest.mark.parametrize("value", [-1, 1.5, "10MB", True, timedelta(1)], ids=repr)
    @pytest.mark.parametrize(
        "name",
        [
            "max_file",
            "max_session",
            "max_session_files",
            "max_owner",
            "max_owner_files",
            "max_store",
            "min_free",
        ],
    )
    def test_a_wrong_value_is_refused_by_name(self, name: str, value: Any) -> None:
        with pytest.raises(SettingsError, match=f"^invalid {name}=.*: give a whole number"):
            Limits(**{name: value})

    def test_none_is_no_limit(self, clock: FakeClock) -> None:
        session = memory_store(clock, limits=Limits()).session("alice")
        assert session.put("a", bytes(CHUNK)).size == CHUNK

    def test_zero_is_a_limit(self, clock: FakeClock) -> None:
        with pytest.raises(LimitExceeded):
            limited(clock, max_session_files=0).session("alice").put("a", b"")

    def test_min_free_without_a_disk_is_refused_at_once(self, clock: FakeClock) -> None:
        class Bucket(MemoryBackend):
            free = None  # type: ignore[assignment]  # as a bucket, which never fills up

        refusal = r"^invalid min_free=1: .* not on a disk.*or set max_store"
        with pytest.raises(SettingsError, match=refusal):
            SessionStore(Bucket(Place(), clock), limits=Limits(min_free=1), clock=clock)


class TestMaxFile:
    def test_a_file_of_just_that_size_fits(self, clock: FakeClock) -> None:
        session = limited(clock, max_file=100).session("alice")
        assert session.put("a", bytes(100)).size == 100

    @pytest.mark.parametrize("source", [bytes(101), list(pieces(11))], ids=["whole", "stream"])
    def test_one_byte_more_is_refused_and_says_what_to_do(
        self, clock: FakeClock, source: Any
    ) -> None:
        session = limited(clock, max_file=100).session("alice")
        with pytest.raises(LimitExceeded) as caught:
            session.put("a.bin", source)
        assert str(caught.value) == (
            "'a.bin' is larger than max_file=100 B: save a smaller file, or raise the limit."
        )
        assert session.files() == []

    def test_is_enforced_while_the_bytes_come(self, clock: FakeClock) -> None:
        source = pieces(1000)
        with pytest.raises(LimitExceeded):
            limited(clock, max_file=100).session("alice").put("a", source)
        assert len(list(source)) == 1000 - 11

    def test_it_is_also_the_builtin_error(self, clock: FakeClock) -> None:
        with pytest.raises(OSError, match="max_file"):
            limited(clock, max_file=1).session("alice").put("a", b"cat")

    def test_the_older_file_stays(self, clock: FakeClock) -> None:
        session = limited(clock, max_file=3).session("alice")
        session.put("a", b"cat")
        with pytest.raises(LimitExceeded):
            session.put("a", b"goldfish")
        assert session.read("a") == b"cat"

    def test_nothing_is_left_of_a_long_one(self, clock: FakeClock, tmp_path: Path) -> None:
        with local_store(tmp_path, clock, limits=Limits(max_file=5 * CHUNK)) as store:
            with pytest.raises(LimitExceeded):
                store.session("alice").put("a", pieces(6, CHUNK))
            files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert {name for name in files if not name.endswith(".lock")} == {"layout"}


class TestMaxSession:
    def test_is_the_sum_of_the_session_s_files(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=100).session("alice")
        session.put("a", bytes(60))
        session.put("b", bytes(40))
        with pytest.raises(LimitExceeded) as caught:
            session.put("c.bin", b"x")
        assert str(caught.value) == (
            "Saving 'c.bin' would take the session over max_session=100 B: delete some of its "
            "files first."
        )
        assert names(session) == ["a", "b"]

    def test_is_each_session_s_own(self, clock: FakeClock) -> None:
        store = limited(clock, max_session=100)
        for id_ in ("alice", "bob"):
            store.session(id_).put("a", bytes(100))
        assert store.usage().bytes == 200

    def test_equal_bytes_count_for_each_file(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=100).session("alice")
        session.put("a", bytes(60))
        with pytest.raises(LimitExceeded):
            session.put("b", bytes(60))

    def test_a_replaced_file_is_not_counted_twice(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=100).session("alice")
        for size in (100, 100, 60, 100, 1, 100):
            session.put("a", bytes(size))
        assert session.usage().bytes == 100

    def test_replacing_counts_what_is_beyond_the_old(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=100).session("alice")
        session.put("a", bytes(60))
        session.put("b", bytes(40))
        with pytest.raises(LimitExceeded):
            session.put("b", bytes(41))
        assert session.usage().bytes == 100

    @pytest.mark.parametrize("forget", ["delete", "drop", "expire"])
    def test_what_is_gone_counts_no_more(self, clock: FakeClock, forget: str) -> None:
        store = limited(clock, max_session=100)
        session = store.session("alice")
        session.put("a", bytes(100), ttl=MINUTE)
        if forget == "delete":
            session.delete("a")
        elif forget == "drop":
            session.drop()
        else:
            clock.advance(MINUTE)
            store.sweep()
        assert session.put("b", bytes(100)).size == 100

    def test_a_failed_save_takes_nothing_of_it(self, clock: FakeClock) -> None:
        def fails() -> Iterator[bytes]:
            yield bytes(90)
            raise ZeroDivisionError

        session = limited(clock, max_session=100).session("alice")
        with pytest.raises(ZeroDivisionError):
            session.put("a", fails())
        assert session.put("b", bytes(100)).size == 100

    def test_what_was_there_when_the_store_opened_counts(self, clock: FakeClock) -> None:
        place = Place()
        memory_store(clock, place).session("alice").put("a", bytes(60))
        with pytest.raises(LimitExceeded):
            limited(clock, place, max_session=100).session("alice").put("b", bytes(41))

    def test_other_replicas_saves_count_within_a_minute(self, clock: FakeClock) -> None:
        place = Place()
        one, two = (limited(clock, place, max_session=100).session("alice") for _ in range(2))
        one.put("a", bytes(30))
        two.put("b", bytes(30))
        one.put("c", bytes(50))  # has not seen b yet
        clock.advance(MINUTE + SECOND)
        with pytest.raises(LimitExceeded):
            one.put("d", b"x")

    def test_over_a_limit_that_was_lowered_only_growth_is_refused(self, clock: FakeClock) -> None:
        place = Place()
        before = memory_store(clock, place).session("alice")
        before.put("a", bytes(90))
        before.put("b", bytes(90))
        session = limited(clock, place, max_session=100).session("alice")
        session.put("a", bytes(80))
        with pytest.raises(LimitExceeded):
            session.put("a", bytes(81))
        assert session.usage().bytes == 170


class TestMaxSessionFiles:
    def test_is_the_number_of_the_session_s_files(self, clock: FakeClock) -> None:
        session = limited(clock, max_session_files=2).session("alice")
        session.put("a", b"1")
        session.add(b"2")
        with pytest.raises(LimitExceeded) as caught:
            session.put("c.bin", b"3")
        assert str(caught.value) == (
            "The session has 2 files and max_session_files=2: delete some before saving 'c.bin'."
        )

    def test_is_enforced_before_anything_is_read(self, clock: FakeClock) -> None:
        session = limited(clock, max_session_files=0).session("alice")
        source = pieces(3)
        with pytest.raises(LimitExceeded):
            session.put("a", source)
        assert len(list(source)) == 3

    def test_replacing_needs_no_room(self, clock: FakeClock) -> None:
        session = limited(clock, max_session_files=1).session("alice")
        for _ in range(3):
            session.put("a", b"1")
        assert names(session) == ["a"]

    @pytest.mark.parametrize("forget", ["delete", "drop"])
    def test_what_is_gone_counts_no_more(self, clock: FakeClock, forget: str) -> None:
        session = limited(clock, max_session_files=1).session("alice")
        session.put("a", b"1")
        getattr(session, forget)(*(["a"] if forget == "delete" else []))
        session.put("b", b"2")
        assert names(session) == ["b"]

    def test_a_file_that_is_being_written_counts(self, clock: FakeClock) -> None:
        session = limited(clock, max_session_files=1).session("alice")
        with session.open("a", "wb"), pytest.raises(LimitExceeded):
            session.put("b", b"2")
        assert names(session) == ["a"]


@contextlib.contextmanager
def saving(session: Session, name: str, size: int) -> Iterator[None]:
    """Within the block a save into the session has sent its bytes and is not done."""
    reached, go_on = threading.Event(), threading.Event()

    def source() -> Iterator[bytes]:
        yield bytes(size)
        reached.set()
        go_on.wait(PATIENCE)

    thread = threading.Thread(target=session.put, args=(name, source()))
    thread.start()
    assert reached.wait(PATIENCE)
    try:
        yield
    finally:
        go_on.set()
        thread.join(PATIENCE)


class TestSavesAtOnce:
    """With one process the limits of a session are exact, whatever its threads do."""

    @pytest.mark.parametrize("backend", ["memory", "local"])
    @pytest.mark.parametrize("verb", ["put", "add"])
    def test_eight_threads_fill_a_session_to_the_byte_and_no_further(
        self, clock: FakeClock, tmp_path: Path, backend: str, verb: str
    ) -> None:
        limits = Limits(max_session=100 * 37, max_session_files=1000)
        local = backend == "local"
        store = local_store(tmp_path, clock, limits=limits) if local else memory_store(
            clock, limits=limits
        )  # fmt: skip
        refused = self.fill(store.session("alice"), verb, each=25, size=37)
        assert store.session("alice").usage().bytes == 100 * 37
        assert refused == 8 * 25 - 100
        store.close()

    @pytest.mark.parametrize("verb", ["put", "add"])
    def test_eight_threads_fill_a_session_to_the_file_and_no_further(
        self, clock: FakeClock, verb: str
    ) -> None:
        store = limited(clock, max_session_files=99)
        refused = self.fill(store.session("alice"), verb, each=25, size=1)
        assert store.session("alice").usage().files == 99
        assert refused == 8 * 25 - 99

    def fill(self, session: Session, verb: str, *, each: int, size: int) -> int:
        """Save from eight threads; how many saves were refused."""
        refused: list[int] = []

        def save(thread: int) -> None:
            for number in range(each):
                args = (f"{thread}-{number}",) if verb == "put" else ()
                try:
                    getattr(session, verb)(*args, iter([bytes([thread]) * size]))
                except LimitExceeded:
                    refused.append(number)

        in_threads(8, target=save)
        return len(refused)

    def test_eight_threads_that_replace_are_never_refused(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=800, max_session_files=8).session("alice")
        for number in range(8):
            session.put(f"{number}", bytes(100))

        def replace(thread: int) -> None:
            for number in range(25):
                session.put(f"{thread}", [bytes([number]) * 100])

        in_threads(8, target=replace)
        assert session.usage()[:2] == (8, 800)

    def test_eight_threads_that_delete_and_save_never_go_over(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=400, max_session_files=4).session("alice")
        over: list[int] = []

        def churn(thread: int) -> None:
            for _ in range(40):
                try:
                    session.put(f"{thread}", [bytes([thread]) * 100])
                except LimitExceeded:
                    continue
                over.extend(file for file in [session.usage().bytes] if file > 400)
                session.delete(f"{thread}")

        in_threads(8, target=churn)
        assert (over, session.files()) == ([], [])
        assert session.put("whole", bytes(400)).size == 400

    def test_two_saves_under_one_new_name_need_room_for_one(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=100, max_session_files=1).session("alice")
        with saving(session, "a", 100):
            session.put("a", bytes(100))
        assert session.usage()[:2] == (1, 100)

    def test_a_file_deleted_while_it_is_replaced_keeps_its_place(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=100, max_session_files=1).session("alice")
        session.put("a", bytes(100))
        with saving(session, "a", 100):
            session.delete("a")
            with pytest.raises(LimitExceeded):
                session.put("b", b"x")
        assert session.usage()[:2] == (1, 100)

    def test_a_session_dropped_while_a_file_is_replaced_keeps_its_place(
        self, clock: FakeClock
    ) -> None:
        session = limited(clock, max_session=100).session("alice")
        session.put("a", bytes(100))
        with saving(session, "a", 100):
            session.drop()
            with pytest.raises(LimitExceeded):
                session.put("b", b"x")
        assert session.usage().bytes == 100

    def test_a_replacement_that_got_smaller_makes_room_only_for_what_it_freed(
        self, clock: FakeClock
    ) -> None:
        session = limited(clock, max_session=200).session("alice")
        session.put("a", bytes(100))
        session.put("b", bytes(100))
        with saving(session, "a", 100):
            session.put("a", bytes(10))  # the slow one will take it back to 100
            with pytest.raises(LimitExceeded):
                session.put("c", bytes(90))
        assert session.usage().bytes == 200

    def test_a_failing_replacement_has_not_given_its_room_away(self, clock: FakeClock) -> None:
        session = limited(clock, max_session=100).session("alice")
        session.put("a", bytes(100))

        def replaces_and_fails() -> Iterator[bytes]:
            yield b"x"
            with pytest.raises(LimitExceeded):
                session.put("b", bytes(99))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            session.put("a", replaces_and_fails())
        assert session.usage().bytes == 100

    def test_a_save_that_is_done_is_not_coming_any_more(self, clock: FakeClock) -> None:
        store = limited(clock, max_session=100, max_session_files=2)
        session = store.session("alice")
        with store.ledger.reservation(session.key, "a", fresh=False) as save:
            save.admit(60)
            with ingest(bytes(60), Ingest("sha256", TempSpool)) as content:
                store.ledger.keep(save, partial(store.backend.put, session.key, "a", content))
            session.put("b", bytes(40))
        assert session.usage()[:2] == (2, 100)

    def test_many_sessions_do_not_push_out_one_that_is_being_saved_to(
        self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sessionstore.limits._REMEMBERED", 4)
        store = limited(clock, max_session=100)
        with saving(store.session("alice"), "a", 60):
            for number in range(20):
                store.session(f"{number}").put("a", b"x")
            with pytest.raises(LimitExceeded):
                store.session("alice").put("b", bytes(41))
        assert store.session("alice").usage().bytes == 60

    def test_what_is_remembered_is_bounded(
        self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sessionstore.limits._REMEMBERED", 4)
        store = limited(clock, max_session=100)
        for number in range(20):
            store.session(f"{number}").put("a", bytes(60))
        assert len(store.ledger._tallies) == 4
        with pytest.raises(LimitExceeded):
            store.session("0").put("b", bytes(41))


@pytest.fixture(autouse=True)
def _room_is_made_before_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full store has its thread look for room at once, and not at a later time of the test."""
    advance = FakeClock.advance

    def settled(clock: FakeClock, by: timedelta | float) -> None:
        for thread in threading.enumerate():
            if thread.name == "sessionstore-room" and thread is not threading.current_thread():
                thread.join(PATIENCE)
        advance(clock, by)

    monkeypatch.setattr(FakeClock, "advance", settled)


class TestMaxStore:
    def stored(self, store: SessionStore) -> int:
        return store.backend.stored().bytes

    def test_is_all_content_each_once(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        store.session("alice").put("a", b"a" * 60)
        store.session("bob").put("b", b"b" * 40)
        store.sweep()
        with pytest.raises(LimitExceeded) as caught:
            store.session("carol").put("c.bin", b"c")
        assert str(caught.value) == (
            "Saving 'c.bin' would take the store over max_store=100 B, and only files of live "
            "sessions are left to delete: wait for visitors to leave, or raise the limit."
        )

    def test_equal_bytes_take_room_once(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        for id_ in ("alice", "bob", "carol"):
            store.session(id_).put("a", b"a" * 30)
        store.session("dave").put("d", b"d" * 70)
        assert self.stored(store) == 100

    def test_what_was_there_when_the_store_opened_counts(self, clock: FakeClock) -> None:
        place = Place()
        memory_store(clock, place).session("alice").put("a", b"a" * 60)
        with pytest.raises(LimitExceeded):
            limited(clock, place, max_store=100).session("bob").put("b", b"b" * 41)

    def test_sessions_that_are_not_live_make_room_oldest_first(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        for id_ in "dcba":
            store.session(id_).put("a", id_.encode() * 25)
            clock.advance(SECOND)
        clock.advance(HOUR)
        heard = Heard(store)
        store.session("new").put("a", b"n" * 40)
        gone = [(event.kind, event.session_id, event.reason) for event in heard.all()[:2]]
        assert gone == [
            ("expired", "d", "room was needed under max_store"),
            ("expired", "c", "room was needed under max_store"),
        ]
        assert [names(store.session(id_)) for id_ in ("d", "c", "b", "a", "new")] == [
            [], [], ["a"], ["a"], ["a"],
        ]  # fmt: skip

    def test_within_a_session_the_oldest_file_goes_first(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        for name in "zyx":
            store.session("old").put(name, name.encode() * 30)
            clock.advance(SECOND)
        clock.advance(HOUR)
        store.session("new").put("a", b"n" * 38)  # 2 are free after it, so no more goes
        assert names(store.session("old")) == ["x", "y"]

    def test_live_sessions_are_never_asked(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        live, idle = store.session("live"), store.session("idle")
        live.put("a", b"l" * 50)
        idle.put("a", b"i" * 50)
        clock.advance(HOUR)
        live.touch()
        store.session("new").put("a", b"n" * 40)
        with pytest.raises(LimitExceeded):
            store.session("new").put("b", b"m" * 40)
        assert (names(live), names(idle)) == (["a"], [])

    def test_an_ended_session_makes_room(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        store.session("gone").put("a", b"g" * 100)
        store.session("gone").end()
        store.session("new").put("a", b"n" * 40)
        assert store.session("gone").files() == []
        store.close()

    def test_the_app_s_own_session_is_never_asked(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        store.shared.put("logo", b"l" * 100)
        clock.advance(HOUR)
        with pytest.raises(LimitExceeded):
            store.session("new").put("a", b"n")
        assert names(store.shared) == ["logo"]

    def test_the_session_that_is_saved_to_is_never_asked(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        session = store.session("alice")
        session.put("a", b"a" * 100)
        clock.advance(HOUR)
        with pytest.raises(LimitExceeded):
            session.put("a", b"b" * 50)
        assert session.read("a") == b"a" * 100

    def test_no_room_is_made_for_what_could_never_fit(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        store.session("old").put("a", b"a" * 60)
        clock.advance(HOUR)
        with pytest.raises(LimitExceeded):
            store.session("new").put("a", bytes(101))
        assert names(store.session("old")) == ["a"]

    @pytest.mark.parametrize("forget", ["delete", "drop"])
    def test_room_that_is_there_already_is_not_made(self, clock: FakeClock, forget: str) -> None:
        store = limited(clock, max_store=100)
        store.session("old").put("a", b"a" * 30)
        clock.advance(HOUR)
        other = store.session("other")
        other.put("b", b"b" * 67)
        getattr(other, forget)(*(["b"] if forget == "delete" else []))
        store.session("new").put("c", b"c" * 65)
        assert names(store.session("old")) == ["a"]

    def test_many_that_save_at_once_stay_within_it(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=1000)
        for number in range(100):
            store.session(f"old {number}").put("a", number.to_bytes(10))
        clock.advance(HOUR)
        in_threads(
            8, target=lambda number: store.session(f"new {number}").put("a", [b"%010d" % number])
        )
        assert self.stored(store) <= 1000
        assert len([session for session in store.sessions() if session.files()]) >= 90

    def test_bytes_on_their_way_in_count(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        with saving(store.session("slow"), "a", 60):
            with pytest.raises(LimitExceeded):
                store.session("quick").put("b", b"b" * 41)
            store.session("quick").put("c", b"c" * 40)
        assert self.stored(store) == 100

    def test_a_failed_save_gives_them_back(self, clock: FakeClock) -> None:
        def fails() -> Iterator[bytes]:
            yield bytes(100)
            raise ZeroDivisionError

        store = limited(clock, max_store=100)
        with pytest.raises(ZeroDivisionError):
            store.session("alice").put("a", fails())
        assert store.session("bob").put("b", b"b" * 100).size == 100

    def test_shared_content_is_deleted_until_there_is_room(self, clock: FakeClock) -> None:
        place = Place()
        unlimited = memory_store(clock, place)
        for number in range(3):
            unlimited.session(f"{number}").put("same", b"s" * 60)
            clock.advance(SECOND)
        unlimited.session("3").put("own", b"o" * 40)
        clock.advance(HOUR)
        store = limited(clock, place, max_store=100)
        store.session("new").put("a", b"n" * 50)
        assert [names(store.session(f"{number}")) for number in range(4)] == [[], [], [], ["own"]]

    def test_one_that_comes_alive_meanwhile_is_spared(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        for number in range(2):
            store.session(f"{number}").put("a", bytes([number]) * 50)
            clock.advance(SECOND)
        clock.advance(HOUR)
        store.on("expired", lambda _: store.session("1").touch())
        with pytest.raises(LimitExceeded):
            store.session("new").put("a", b"n" * 60)
        assert names(store.session("1")) == ["a"]

    def test_a_callback_of_an_eviction_does_not_wait_for_it(self, clock: FakeClock) -> None:
        store = limited(clock, max_store=100)
        for number in range(2):
            store.session(f"{number}").put("a", bytes([number]) * 50)
        clock.advance(HOUR)
        refused: list[LimitExceeded] = []

        def save(_: Event) -> None:
            try:
                store.session("callback").put("a", b"c" * 99)
            except LimitExceeded as error:
                refused.append(error)

        store.on("expired", save)
        store.session("new").put("a", b"n" * 60)
        assert len(refused) == 2

    @pytest.mark.parametrize("saves", [1, 20])
    def test_a_save_that_ends_while_the_sum_is_read_does_not_count_twice(
        self, clock: FakeClock, saves: int
    ) -> None:
        place = Place()
        backend = FaultyBackend(MemoryBackend(place, clock))
        store = SessionStore(backend, limits=Limits(max_store=102), clock=clock)
        store.session("alice").put("a", bytes(40))
        memory_store(clock, place).session("alice").drop()  # by another process
        reads = []

        def saving(call: Call) -> None:
            if call.verb == "stored":
                reads.append(call.number)
                if len(reads) <= saves:
                    store.session("beside").put("a", b"%4d" % call.number)

        backend.plan = saving
        assert store.session("new").put("b", bytes(96)).size == 96
        assert len(reads) <= 3

    def test_a_backend_that_fails_meanwhile_is_its_error(self, clock: FakeClock) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        store = SessionStore(backend, limits=Limits(max_store=10), clock=clock)
        store.session("other").put("a", bytes(5))
        backend.plan = on("stored", Fault(unavailable))
        with pytest.raises(OSError, match="did not answer"):
            store.session("new").put("a", bytes(8))
        assert store.session("new").files() == []


class TestMaxStoreOfAnObjectStore:
    """What is deleted in a bucket takes its room until it is collected, and counts no more."""

    @pytest.fixture
    def store(self, clock: FakeClock) -> SessionStore:
        bucket = FakeBucket(clock.now)
        backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
        return SessionStore(backend, limits=Limits(max_store=100), clock=clock)

    def test_sessions_that_are_not_live_make_room(
        self, store: SessionStore, clock: FakeClock
    ) -> None:
        store.session("older").put("a", b"a" * 60)
        clock.advance(MINUTE)
        store.session("old").put("a", b"b" * 40)
        clock.advance(HOUR)
        store.session("new").put("a", b"n" * 58)  # 2 are free after it, so no more goes
        assert [names(store.session(id_)) for id_ in ("older", "old", "new")] == [[], ["a"], ["a"]]

    def test_live_ones_do_not(self, store: SessionStore) -> None:
        store.session("old").put("a", b"a" * 60)
        with pytest.raises(LimitExceeded, match="max_store"):
            store.session("new").put("a", b"n" * 70)
        assert names(store.session("old")) == ["a"]

    def test_a_sweep_counts_what_files_refer_to(
        self, store: SessionStore, clock: FakeClock
    ) -> None:
        store.session("old").put("a", b"a" * 60)
        store.session("old").drop()
        clock.advance(MINUTE)
        store.sweep()
        assert store.usage().stored_bytes == 60
        assert store.session("new").put("a", b"n" * 100).size == 100


class Disk(NamedTuple):
    total: int
    used: int
    free: int


class TestMinFree:
    def test_asks_the_disk_what_would_be_left(
        self, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: Disk(10_000, 9000, 1000))
        with local_store(tmp_path, clock, limits=Limits(min_free=900)) as store:
            session = store.session("alice")
            session.put("fits", bytes(100))
            with pytest.raises(LimitExceeded) as caught:
                session.put("a.bin", bytes(101))
            assert names(session) == ["fits"]
        assert str(caught.value) == (
            "Saving 'a.bin' would leave less than min_free=900 B on the disk, which has 1000 B: "
            "free some space."
        )

    def test_counts_the_room_of_a_memory_store_too(self, clock: FakeClock) -> None:
        place = Place(cap=1000)
        session = limited(clock, place, min_free=900).session("alice")
        with pytest.raises(LimitExceeded, match="min_free"):
            session.put("a", bytes(101))


class TestEvent:
    @pytest.mark.parametrize("limit", ["max_file", "max_session", "max_session_files", "max_store"])
    def test_a_refusal_is_told_with_its_message(self, clock: FakeClock, limit: str) -> None:
        store = memory_store(clock, limits=Limits(**{limit: 0}))
        heard = Heard(store, "limit_exceeded")
        with pytest.raises(LimitExceeded) as caught:
            store.session("alice", "o").put("a", b"cat")
        (event,) = heard.all()
        assert event == Event(
            "limit_exceeded", "alice", "o", "a", 0, str(caught.value), clock.now()
        )

    def test_a_full_backend_is_told_too(self, clock: FakeClock) -> None:
        store = memory_store(clock, Place(cap=2))
        heard = Heard(store, "limit_exceeded")
        with pytest.raises(LimitExceeded, match="cap"):
            store.session("alice").put("a", b"cat")
        assert heard.kinds() == ["limit_exceeded"]

    def test_one_session_s_limit_stops_no_other(self, clock: FakeClock) -> None:
        store = limited(clock, max_session=3)
        store.session("alice").put("a", b"cat")
        with pytest.raises(LimitExceeded):
            store.session("alice").put("b", b"cat")
        assert store.session("bob").put("a", b"cat").read() == b"cat"


def test_limits_and_retention_are_told_apart(clock: FakeClock) -> None:
    store = memory_store(clock, limits=Limits(max_file=1), retention=Retention(idle=HOUR))
    assert (store.ledger.limits.max_file, store.retention.idle) == (1, HOUR)
