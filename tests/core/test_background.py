"""The two background threads: the one that drops ended sessions, and the one that sweeps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Retention, Session, SessionStore
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.background import Sweeping, Timers
from sessionstore.events import Event
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on, unavailable
from tests.support.stores import (
    DAY,
    HOUR,
    MINUTE,
    PATIENCE,
    SECOND,
    Heard,
    brief,
    ids,
    local_store,
    memory_store,
    names,
    store_of,
    timers_rest,
)

LINGER = 5 * MINUTE


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "local"])
def open_store(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> Iterator[Callable[..., SessionStore]]:
    """Opens stores that share one place."""
    place, opened = Place(), list[SessionStore]()

    def open_store(**policy: Any) -> SessionStore:
        local = request.param == "local"
        store = (
            local_store(tmp_path, clock, **policy)
            if local
            else memory_store(clock, place, **policy)
        )
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., SessionStore]) -> SessionStore:
    return open_store()


@pytest.fixture
def session(store: SessionStore) -> Session:
    session = store.session("alice")
    session.put("a", b"cat")
    return session


class TestEnd:
    def test_drops_the_session_after_the_linger_without_a_sweep(
        self, session: Session, clock: FakeClock
    ) -> None:
        heard = Heard(session.store, "dropped")
        session.end()
        clock.advance(LINGER)
        event = heard.next()
        assert (event.session_id, event.size) == ("alice", 3)
        assert event.reason == "it ended, and its linger is over"
        assert store_of(session).usage().sessions == 0

    def test_drops_nothing_before(self, session: Session, clock: FakeClock) -> None:
        session.end()
        clock.settle()
        clock.advance(LINGER - SECOND)
        clock.settle()
        assert names(session) == ["a"]

    def test_is_told(self, session: Session, clock: FakeClock) -> None:
        heard = Heard(session.store)
        session.end()
        (event,) = heard.all()
        assert event == Event("ended", "alice", None, None, 0, "the visitor left", clock.now())

    def test_with_linger_zero_drops_at_once(self, open_store: Callable[..., SessionStore]) -> None:
        session = open_store(retention=Retention(linger=timedelta(0))).session("alice")
        session.put("a", b"cat")
        heard = Heard(session.store)
        session.end()
        assert heard.kinds() == ["ended", "dropped"]
        assert session.files() == []

    def test_twice_counts_from_the_second(self, session: Session, clock: FakeClock) -> None:
        session.end()
        clock.advance(LINGER - SECOND)
        session.end()
        clock.advance(LINGER - SECOND)
        clock.settle()
        before = names(session)
        clock.advance(SECOND)
        timers_rest(session.store)
        assert (before, session.files()) == (["a"], [])

    def test_the_session_keeps_working_until_then(self, session: Session, clock: FakeClock) -> None:
        session.end()
        clock.advance(LINGER - SECOND)
        clock.settle()
        session.put("b", b"dog")
        assert session.read("a") == b"cat"

    def test_other_sessions_stay(self, session: Session, clock: FakeClock) -> None:
        other = store_of(session).session("alice", owner="somebody else")
        other.put("a", b"dog")
        session.end()
        clock.advance(LINGER)
        timers_rest(session.store)
        assert (session.files(), names(other)) == ([], ["a"])

    def test_many_sessions_end_each_at_its_time(
        self, store: SessionStore, clock: FakeClock
    ) -> None:
        for id_ in "abc":
            store.session(id_).put("a", b"cat")
            store.session(id_).end()
            clock.advance(MINUTE)
        heard, left = Heard(store, "dropped"), []
        clock.advance(LINGER - 3 * MINUTE)
        for _ in range(3):
            heard.next()
            left.append(ids(store))
            clock.settle(1 if left[-1] else 0)
            clock.advance(MINUTE)
        assert left == [["b", "c"], ["c"], []]


class TestPostponing:
    @pytest.fixture(params=["put", "add", "touch"])
    def sign(self, request: pytest.FixtureRequest, session: Session) -> Callable[[], object]:
        return {
            "put": lambda: session.put("a", b"dog"),
            "add": lambda: session.add(b"dog"),
            "touch": session.touch,
        }[request.param]

    def test_saves_and_touches_after_the_end_put_the_drop_off(
        self, session: Session, clock: FakeClock, sign: Callable[[], object]
    ) -> None:
        session.end()
        clock.advance(LINGER - SECOND)
        sign()
        clock.advance(SECOND)
        clock.settle()
        at_first_due = names(session)
        clock.advance(LINGER - 2 * SECOND)
        clock.settle()
        just_before = names(session)
        clock.advance(SECOND)
        timers_rest(session.store)
        assert at_first_due
        assert just_before
        assert session.files() == []

    def test_also_after_the_due_time_while_it_is_not_dropped(
        self, session: Session, clock: FakeClock, sign: Callable[[], object]
    ) -> None:
        # Ended by a process that died: nothing drops it before the next sweep.
        session.store.backend.end(session.sid)
        clock.advance(2 * LINGER)
        due = brief(store_of(session).plan())
        sign()
        postponed = brief(store_of(session).plan())
        clock.advance(LINGER)
        assert (due, postponed) == ([("drop", "alice", "")], [("hold", "alice", "")])
        assert brief(store_of(session).sweep()) == [("drop", "alice", "")]

    def test_it_is_no_resume(
        self, session: Session, clock: FakeClock, sign: Callable[[], object]
    ) -> None:
        session.end()
        sign()
        record = session.store.backend.session(session.sid)
        assert record is not None
        assert record.ended is not None

    def test_reading_puts_nothing_off(self, session: Session, clock: FakeClock) -> None:
        session.end()
        clock.advance(LINGER - SECOND)
        session.read("a")
        session.files()
        clock.advance(SECOND)
        timers_rest(session.store)
        assert session.files() == []

    def test_another_replica_s_touch_counts(
        self, open_store: Callable[..., SessionStore], clock: FakeClock
    ) -> None:
        here, there = open_store(), open_store()
        here.session("alice").put("a", b"cat")
        here.session("alice").end()
        clock.advance(LINGER - SECOND)
        there.session("alice").touch()
        clock.advance(SECOND)
        clock.settle()
        assert names(here.session("alice")) == ["a"]

    def test_something_done_at_that_very_moment_spares_it_for_one_linger_more(
        self, store: SessionStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = store.session("alice")
        session.put("a", b"cat")
        real, busy = store.backend.drop, iter([True])

        def drop(sid: str, **rest: Any) -> object:
            return None if next(busy, False) else real(sid, **rest)

        monkeypatch.setattr(store.backend, "drop", drop)
        session.end()
        clock.settle()
        clock.advance(LINGER)
        clock.settle()
        spared = names(session)
        clock.advance(LINGER)
        timers_rest(store)
        assert (spared, session.files()) == (["a"], [])


class TestResume:
    def test_cancels_the_end(self, session: Session, clock: FakeClock) -> None:
        session.end()
        clock.advance(LINGER - SECOND)
        session.resume()
        forgotten = dict(session.store._timers._due)
        clock.advance(HOUR)
        timers_rest(session.store)
        assert (names(session), store_of(session).plan(), forgotten) == (["a"], [], {})

    def test_is_told_when_there_was_an_end(self, session: Session) -> None:
        heard = Heard(session.store)
        session.resume()
        session.end()
        session.resume()
        session.resume()
        assert [(event.kind, event.session_id) for event in heard.all()] == [
            ("ended", "alice"),
            ("resumed", "alice"),
        ]

    def test_also_after_the_due_time_while_it_is_not_dropped(
        self, session: Session, clock: FakeClock
    ) -> None:
        session.store.backend.end(session.sid)
        clock.advance(2 * LINGER)
        session.resume()
        assert store_of(session).sweep() == []

    def test_a_new_end_counts_from_then(self, session: Session, clock: FakeClock) -> None:
        session.end()
        clock.advance(LINGER - SECOND)
        session.resume()
        session.end()
        clock.advance(LINGER - SECOND)
        clock.settle()
        before = names(session)
        clock.advance(SECOND)
        timers_rest(session.store)
        assert (before, session.files()) == (["a"], [])

    def test_from_another_replica_holds_here(
        self, open_store: Callable[..., SessionStore], clock: FakeClock
    ) -> None:
        here, there = open_store(), open_store()
        here.session("alice").put("a", b"cat")
        here.session("alice").end()
        clock.advance(MINUTE)
        there.session("alice").resume()
        clock.advance(LINGER)
        timers_rest(here)
        assert names(here.session("alice")) == ["a"]


class TestBackstop:
    def test_another_store_s_sweep_drops_what_a_dead_process_ended(
        self, open_store: Callable[..., SessionStore], clock: FakeClock
    ) -> None:
        dead, alive = open_store(), open_store()
        dead.session("alice").put("a", b"cat")
        dead.session("alice").end()
        dead.close()
        clock.advance(LINGER - SECOND)
        early = brief(alive.sweep())
        clock.advance(SECOND)
        assert (early, brief(alive.sweep())) == ([], [("drop", "alice", "")])
        assert alive.usage().sessions == 0

    def test_a_timer_finds_what_a_sweep_dropped_and_leaves_it(
        self, open_store: Callable[..., SessionStore], clock: FakeClock
    ) -> None:
        here, there = open_store(), open_store()
        here.session("alice").put("a", b"cat")
        here.session("alice").end()
        there.session("alice").drop()
        heard = Heard(here)
        clock.advance(LINGER)
        timers_rest(here)
        assert heard.kinds() == []

    def test_a_session_of_that_name_made_since_is_not_dropped(
        self, open_store: Callable[..., SessionStore], clock: FakeClock
    ) -> None:
        here, there = open_store(), open_store()
        here.session("alice").put("a", b"cat")
        here.session("alice").end()
        there.session("alice").drop()
        there.session("alice").put("b", b"dog")
        clock.advance(LINGER)
        timers_rest(here)
        assert names(here.session("alice")) == ["b"]


class TestTimerThread:
    def test_lives_only_while_it_is_needed(self, session: Session, clock: FakeClock) -> None:
        timers = session.store._timers
        before = set(timers._threads)
        session.end()
        (meanwhile,) = timers._threads
        clock.advance(LINGER)
        timers_rest(session.store)
        assert (before, timers._threads) == (set(), set())
        assert meanwhile.daemon

    def test_closing_the_store_ends_it_and_drops_nothing(
        self, open_store: Callable[..., SessionStore], clock: FakeClock
    ) -> None:
        store, other = open_store(), open_store()
        store.session("alice").put("a", b"cat")
        store.session("alice").end()
        (thread,) = store._timers._threads
        store.close()
        clock.advance(LINGER)
        assert (thread.is_alive(), names(other.session("alice"))) == (False, ["a"])

    def test_a_drop_cancels_it(self, session: Session, clock: FakeClock) -> None:
        session.end()
        session.drop()
        session.put("b", b"dog")
        clock.advance(LINGER)
        timers_rest(session.store)
        assert names(session) == ["b"]

    def test_a_callback_may_close_the_store(self, session: Session, clock: FakeClock) -> None:
        closed = threading.Event()

        def close(_: Event) -> None:
            store_of(session).close()
            closed.set()

        session.store.on("dropped", close)
        session.end()
        clock.advance(LINGER)
        assert closed.wait(PATIENCE)

    def test_a_callback_that_raises_does_not_stop_it(
        self, store: SessionStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fails(_: Event) -> None:
            raise ZeroDivisionError

        store.on("dropped", fails)
        for id_ in ("alice", "bob"):
            store.session(id_).put("a", b"cat")
            store.session(id_).end()
        clock.advance(LINGER)
        timers_rest(store)
        assert ids(store) == []
        assert caplog.text.count("A callback for 'dropped' failed") == 2

    def test_a_failure_is_told_and_logged_and_left_to_the_sweep(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        store = SessionStore(backend, clock=clock)
        for id_ in ("alice", "bob"):
            store.session(id_).put("a", b"cat")
            store.session(id_).end()
        heard = Heard(store, "sweep_failed")
        backend.plan = on("drop", Fault(unavailable), number=1)
        clock.advance(LINGER)
        timers_rest(store)
        assert [event.reason for event in heard.all()] == ["The backend did not answer."]
        assert "Could not drop an ended session in time; the sweep will." in caplog.text
        assert ids(store) == ["alice"]
        assert brief(store.sweep()) == [("drop", "alice", "")]


class TestTimers:
    """The timers by themselves."""

    @pytest.fixture
    def called(self) -> list[str]:
        return []

    @pytest.fixture
    def timers(self, clock: FakeClock, called: list[str]) -> Iterator[Timers[str]]:
        def call(key: str) -> datetime | None:
            called.append(key)
            return clock.now() + MINUTE if key == "again" and called.count(key) < 3 else None

        timers = Timers(clock, clock.now, call)
        yield timers
        timers.close()

    def wait(self, timers: Timers[str]) -> None:
        for thread in list(timers._threads):
            thread.join(PATIENCE)

    def test_call_in_the_order_of_their_times(
        self, timers: Timers[str], clock: FakeClock, called: list[str]
    ) -> None:
        for key, minutes in (("c", 3), ("a", 1), ("b", 2)):
            timers.at(key, clock.now() + minutes * MINUTE)
        clock.settle()
        clock.advance(HOUR)
        self.wait(timers)
        assert called == ["a", "b", "c"]

    def test_a_later_time_moves_an_entry(
        self, timers: Timers[str], clock: FakeClock, called: list[str]
    ) -> None:
        timers.at("a", clock.now() + MINUTE)
        timers.at("a", clock.now() + HOUR)
        clock.advance(MINUTE)
        clock.settle()
        assert called == []
        clock.advance(HOUR)
        self.wait(timers)
        assert called == ["a"]

    def test_an_earlier_time_moves_it_too(
        self, timers: Timers[str], clock: FakeClock, called: list[str]
    ) -> None:
        timers.at("a", clock.now() + HOUR)
        clock.settle()
        timers.at("a", clock.now() + MINUTE)
        clock.settle()
        clock.advance(MINUTE)
        self.wait(timers)
        assert called == ["a"]

    def test_what_the_call_returns_is_the_next_time(
        self, timers: Timers[str], clock: FakeClock, called: list[str]
    ) -> None:
        timers.at("again", clock.now() + MINUTE)
        for _ in range(2):
            clock.settle()
            clock.advance(MINUTE)
        clock.settle()
        clock.advance(MINUTE)
        self.wait(timers)
        assert called == ["again"] * 3

    def test_nothing_is_called_after_a_close(
        self, timers: Timers[str], clock: FakeClock, called: list[str]
    ) -> None:
        timers.at("a", clock.now() + MINUTE)
        timers.close()
        timers.at("b", clock.now() + MINUTE)
        clock.advance(HOUR)
        self.wait(timers)
        assert (called, timers._threads) == ([], set())

    def test_one_in_the_past_is_called_at_once(
        self, timers: Timers[str], clock: FakeClock, called: list[str]
    ) -> None:
        timers.at("a", clock.now() - DAY)
        self.wait(timers)
        assert called == ["a"]


class TestSweeping:
    def test_sweeps_now_and_every_so_often(self) -> None:
        log: list[object] = []
        enough = threading.Event()

        class Impatient(FakeClock):
            """A clock on which the first three waits are over at once."""

            def wait(self, condition: threading.Condition, seconds: float) -> None:
                log.append(seconds)
                if log.count(seconds) == 3:
                    enough.set()
                    super().wait(condition, seconds)

        with Sweeping(Impatient(), lambda: log.append("sweep"), 90 * SECOND):
            assert enough.wait(PATIENCE)
            first = log[:6]
        assert first == ["sweep", 90.0] * 3

    def test_drops_what_is_due(self, session: Session, clock: FakeClock) -> None:
        heard = Heard(session.store, "dropped")
        with store_of(session).sweeping():
            clock.settle()
            clock.advance(2 * DAY)
            event = heard.next()
        assert event.session_id == "alice"

    def test_the_first_sweep_is_at_once(self, session: Session, clock: FakeClock) -> None:
        clock.advance(2 * DAY)
        heard = Heard(session.store, "dropped")
        with store_of(session).sweeping(every=1000 * DAY):
            assert heard.next().session_id == "alice"

    def test_every_minute_unless_told_otherwise(self, clock: FakeClock) -> None:
        assert memory_store(clock).sweeping()._every == 60

    @pytest.mark.parametrize("every", [timedelta.max, 40_000 * DAY])
    def test_a_time_that_no_clock_waits_for_is_refused(
        self, store: SessionStore, every: timedelta
    ) -> None:
        with pytest.raises(ValueError, match="at most a hundred years are allowed"):
            store.sweeping(every=every)

    @pytest.mark.parametrize("every", [timedelta(0), -SECOND, timedelta.min])
    def test_a_time_that_is_not_positive_is_refused(
        self, store: SessionStore, every: timedelta
    ) -> None:
        with pytest.raises(ValueError, match="longer than zero"):
            store.sweeping(every=every)

    @pytest.mark.parametrize("verb", ["sessions", "files", "drop", "collect"])
    def test_survives_a_backend_that_does_not_answer_and_says_so_and_goes_on(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture, verb: str
    ) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        store = SessionStore(backend, clock=clock)
        store.session("alice").put("a", b"cat")
        clock.advance(2 * DAY)
        backend.plan = on(verb, Fault(unavailable))
        failed, dropped = Heard(store, "sweep_failed"), Heard(store, "dropped")
        with store.sweeping(every=MINUTE):
            reasons = [failed.next().reason]
            clock.settle()
            clock.advance(MINUTE)
            reasons.append(failed.next().reason)
            clock.settle()
            backend.plan = lambda _: None
            dropped.all()
            store.session("bob").put("a", b"cat")
            clock.advance(2 * DAY)
            event = dropped.next()
        assert reasons == ["The backend did not answer."] * 2
        assert event.session_id in {"alice", "bob"}
        assert "A sweep failed; the next comes in 60.0 seconds." in caplog.text

    def test_survives_a_bug(self, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
        swept = threading.Semaphore(0)

        def sweep() -> None:
            swept.release()
            raise KeyError("a bug")

        with Sweeping(clock, sweep, MINUTE):
            assert swept.acquire(timeout=PATIENCE)
            clock.settle()
            clock.advance(MINUTE)
            assert swept.acquire(timeout=PATIENCE)
        assert caplog.records[0].levelno == logging.ERROR

    def test_stops_cleanly_while_it_waits(self, store: SessionStore, clock: FakeClock) -> None:
        with store.sweeping(every=DAY) as sweeping:
            clock.settle()
            thread = sweeping._thread
        assert thread is not None
        assert (thread.is_alive(), thread.daemon, sweeping._thread) == (False, True, None)

    def test_stops_after_the_sweep_it_is_in(self, clock: FakeClock) -> None:
        begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def sweep() -> None:
            begun.set()
            assert go_on.wait(PATIENCE)
            ended.set()

        sweeping = Sweeping(clock, sweep, MINUTE)
        sweeping.start()
        assert begun.wait(PATIENCE)
        stopping = threading.Thread(target=sweeping.stop)
        stopping.start()
        go_on.set()
        stopping.join(PATIENCE)
        assert ended.is_set()
        assert not stopping.is_alive()

    def test_starting_twice_is_one_thread(self, store: SessionStore, clock: FakeClock) -> None:
        with store.sweeping() as sweeping:
            clock.settle()
            thread = sweeping._thread
            sweeping.start()
            assert sweeping._thread is thread

    def test_starts_again_after_a_stop(self, session: Session, clock: FakeClock) -> None:
        sweeping = store_of(session).sweeping()
        with sweeping:
            clock.settle()
        clock.advance(2 * DAY)
        heard = Heard(session.store, "dropped")
        with sweeping:
            assert heard.next().session_id == "alice"

    def test_stopping_twice_or_unstarted_is_no_error(self, store: SessionStore) -> None:
        sweeping = store.sweeping()
        sweeping.stop()
        with sweeping:
            pass
        sweeping.stop()
        assert sweeping._thread is None

    def test_a_callback_may_stop_it(self, store: SessionStore, clock: FakeClock) -> None:
        stopped = threading.Event()
        sweeping = store.sweeping()

        def stop(_: Event) -> None:
            sweeping.stop()
            stopped.set()

        store.on("sweep_finished", stop)
        sweeping.start()
        assert stopped.wait(PATIENCE)

    def test_closing_the_store_stops_it(self, store: SessionStore, clock: FakeClock) -> None:
        sweeping = store.sweeping()
        sweeping.start()
        clock.settle()
        thread = sweeping._thread
        store.close()
        assert thread is not None
        assert not thread.is_alive()

    def test_several_stores_sweep_one_place(
        self, open_store: Callable[..., SessionStore], clock: FakeClock
    ) -> None:
        one, two = open_store(), open_store()
        for number in range(20):
            one.session(f"{number}").put("a", b"cat")
        heard = [Heard(one, "dropped"), Heard(two, "dropped")]
        with one.sweeping(every=DAY), two.sweeping(every=DAY):
            clock.settle(2)
            clock.advance(2 * DAY)
            clock.settle(2)
        told = sorted(event.session_id or "" for each in heard for event in each.all())
        assert told == sorted(map(str, range(20)))
