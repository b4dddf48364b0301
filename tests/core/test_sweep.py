"""A sweep does what its plan says, tells what it does, and is stopped by nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import BackendUnavailable, Limits, Retention, SessionStore, sweep
from sessionstore.backend import Collected
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.events import Event
from sessionstore.session import Usage
from sessionstore.testing import Call, FakeClock, Fault, FaultyBackend, on, unavailable
from tests.support.stores import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Heard,
    brief,
    ids,
    in_threads,
    local_store,
    memory_store,
    names,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[SessionStore]:
    """A store with a session to drop, a file to delete, a file to hold and one to keep."""
    with memory_store(clock, retention=Retention(max_age=HOUR, idle=3 * HOUR)) as store:
        for id_ in ("idle", "old", "live"):
            store.session(id_).put("a", id_.encode())
        clock.advance(2 * HOUR)
        for id_ in ("old", "live"):
            store.session(id_).put("b", id_.encode())
        clock.advance(HOUR + SECOND)
        store.session("live").touch()
        store.session("old").touch()
        clock.advance(6 * MINUTE)
        store.session("live").touch()
        store.session("young").put("a", b"young")
        yield store


PLAN = [
    ("delete", "old", "a"),
    ("delete", "old", "b"),
    ("drop", "idle", ""),
    ("hold", "live", "a"),
    ("hold", "live", "b"),
]


def test_the_plan_of_the_fixture(store: SessionStore) -> None:
    assert brief(store.plan()) == PLAN


class TestPlan:
    def test_planning_deletes_and_tells_nothing(self, store: SessionStore) -> None:
        heard, before = Heard(store), store.usage()
        store.plan()
        assert (heard.kinds(), store.usage()) == ([], before)

    def test_a_dry_run_is_the_plan_and_no_more(self, store: SessionStore) -> None:
        heard, before = Heard(store), store.usage()
        assert store.sweep(dry_run=True) == store.plan()
        assert (heard.kinds(), store.usage()) == ([], before)

    def test_a_sweep_does_exactly_the_plan_and_returns_it(self, store: SessionStore) -> None:
        plan = store.plan()
        assert store.sweep() == [row for row in plan if row.action != "hold"]
        assert {id_: names(store.session(id_)) for id_ in ("idle", "old", "live", "young")} == {
            "idle": [],
            "old": [],
            "live": ["a", "b"],
            "young": ["a"],
        }

    def test_a_second_sweep_has_nothing_to_do(self, store: SessionStore) -> None:
        store.sweep()
        assert store.sweep() == []
        assert [row.action for row in store.plan()] == ["hold", "hold"]


class TestTelling:
    def test_files_expire_and_sessions_are_dropped_between_start_and_finish(
        self, store: SessionStore
    ) -> None:
        heard = Heard(store)
        store.sweep()
        told = [(event.kind, event.session_id, event.name, event.size) for event in heard.all()]
        assert told[0] == ("sweep_started", None, None, 0)
        assert sorted(told[1:-1], key=str) == [
            ("dropped", "idle", None, 4),
            ("expired", "old", "a", 3),
            ("expired", "old", "b", 3),
        ]
        assert told[-1] == ("sweep_finished", None, None, 10)

    def test_each_says_why_and_when(self, store: SessionStore, clock: FakeClock) -> None:
        heard = Heard(store, "dropped", "expired")
        plan = {(row.session_id, row.name): row.reason for row in store.plan()}
        store.sweep()
        assert all(
            (event.reason, event.at) == (plan[event.session_id or "", event.name], clock.now())
            for event in heard.all()
        )

    def test_the_start_and_the_end_count(self, store: SessionStore) -> None:
        heard = Heard(store, "sweep_started", "sweep_finished")
        store.sweep()
        assert [event.reason for event in heard.all()] == [
            "3 rows",
            "3 deleted, 0 blobs and 0 leftovers collected",
        ]

    def test_what_was_collected_counts(self, clock: FakeClock, tmp_path: Path) -> None:
        with local_store(tmp_path, clock) as store:
            heard = Heard(store, "sweep_finished")
            store.session("alice").put("a", b"cat")
            (stored,) = (tmp_path / "sessions").glob("*/files/a")
            stored.unlink()
            store.sweep()
            assert heard.next().reason == "0 deleted, 1 blobs and 0 leftovers collected"

    def test_a_callback_that_raises_stops_nothing(
        self, store: SessionStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fails(event: Event) -> None:
            raise ZeroDivisionError(event.kind)

        for kind in ("sweep_started", "expired", "dropped", "sweep_finished"):
            store.on(kind, fails)
        heard = Heard(store, "expired", "dropped")
        plan = store.plan()
        assert store.sweep() == [row for row in plan if row.action != "hold"]
        assert len(heard.all()) == 3
        assert [record.message for record in caplog.records].count(
            "A callback for 'expired' failed; the store goes on."
        ) == 2

    def test_what_a_backend_holds_back_is_told(self, clock: FakeClock) -> None:
        class Holding(MemoryBackend):
            def collect(self, *, force: bool = False) -> Collected:
                return Collected(0, 0, 0, held="the listing looks too short")

        store = SessionStore(Holding(Place(), clock), clock=clock)
        heard = Heard(store)
        store.sweep()
        assert [(event.kind, event.reason) for event in heard.all()][1] == (
            "sweep_held",
            "the listing looks too short",
        )


class TestRaces:
    """Between the plan and its deed the world goes on."""

    def test_a_session_that_became_active_is_spared(self, store: SessionStore) -> None:
        store.on("sweep_started", lambda _: store.session("idle").touch())
        rows = {(row.session_id, row.name): row for row in store.sweep()}
        spared = rows["idle", None]
        assert (spared.action, spared.size) == ("hold", 4)
        assert spared.reason == "it was in use, or gone already, when the sweep came to it"
        assert names(store.session("idle")) == ["a"]

    def test_a_spared_session_is_not_counted_or_told(self, store: SessionStore) -> None:
        store.on("sweep_started", lambda _: store.session("idle").touch())
        heard = Heard(store, "dropped", "sweep_finished")
        store.sweep()
        assert [(event.kind, event.size) for event in heard.all()] == [("sweep_finished", 6)]

    def test_a_file_that_was_replaced_is_spared(self, store: SessionStore) -> None:
        store.on("sweep_started", lambda _: store.session("old").put("a", b"new"))
        actions = {(row.session_id, row.name): row.action for row in store.sweep()}
        assert (actions["old", "a"], actions["old", "b"]) == ("hold", "delete")
        assert store.session("old").read("a") == b"new"

    @pytest.mark.parametrize("id_", ["idle", "old"])
    def test_what_is_gone_already_is_no_error(self, store: SessionStore, id_: str) -> None:
        store.on("sweep_started", lambda _: store.session(id_).drop())
        heard = Heard(store, "expired", "dropped")
        held = [row.session_id for row in store.sweep() if row.action == "hold"]
        assert held.count(id_) == {"idle": 1, "old": 2}[id_]
        assert len([event for event in heard.all() if event.session_id == id_]) == 1

    def test_any_number_of_stores_may_sweep_at_once(self, clock: FakeClock) -> None:
        place = Place()
        stores = [memory_store(clock, place) for _ in range(8)]
        for number in range(50):
            stores[0].session(f"{number}").put("a", b"cat")
        clock.advance(2 * DAY)
        heard = [Heard(store, "dropped") for store in stores]
        in_threads(8, target=lambda number: stores[number].sweep())
        assert sorted(event.session_id or "" for each in heard for event in each.all()) == sorted(
            map(str, range(50))
        )
        assert stores[0].usage() == Usage(0, 0, 0, 0)


class TestFailures:
    @pytest.fixture
    def backend(self, clock: FakeClock) -> FaultyBackend:
        return FaultyBackend(MemoryBackend(Place(), clock))

    @pytest.fixture
    def store(self, backend: FaultyBackend, clock: FakeClock) -> SessionStore:
        store = SessionStore(backend, clock=clock)
        for number in range(5):
            store.session(f"{number}").put("a", b"cat")
            store.session("files").put(f"{number}", b"cat", ttl=MINUTE)
        clock.advance(2 * DAY)
        store.session("files").touch()
        return store

    def failing(self, store: SessionStore, id_: str, error: BaseException) -> FaultyBackend:
        backend, sid = store.backend, store.session(id_).sid
        assert isinstance(backend, FaultyBackend)

        def plan(call: Call) -> Fault | None:
            hit = call.verb == "drop" and call.arguments["sid"] == sid
            return Fault(lambda: error) if hit else None

        backend.plan = plan
        return backend

    @pytest.mark.parametrize("error", [unavailable(), OSError("raw"), KeyError("bug")], ids=repr)
    def test_a_row_that_fails_stops_no_other(
        self, store: SessionStore, error: BaseException
    ) -> None:
        self.failing(store, "2", error)
        with pytest.raises(type(error)):
            store.sweep()
        assert ids(store) == ["2", "files"]
        assert store.session("files").files() == []

    def test_a_file_that_cannot_be_deleted_stops_no_other(self, store: SessionStore) -> None:
        backend = store.backend
        assert isinstance(backend, FaultyBackend)

        def plan(call: Call) -> Fault | None:
            hit = call.verb == "discard" and "2" in [it.name for it in call.arguments["references"]]
            return Fault(unavailable) if hit else None

        backend.plan = plan
        with pytest.raises(BackendUnavailable):
            store.sweep()
        backend.plan = lambda _: None
        left = [file.name for file in backend.files(store.session("files").sid)]
        assert (left, ids(store)) == (["2"], ["files"])

    def test_files_of_a_discard_with_a_lost_response_have_events(
        self, store: SessionStore, backend: FaultyBackend
    ) -> None:
        lost = Fault(unavailable, at="after")
        backend.plan = on("discard", lost, number=backend.calls["discard"] + 1)
        heard = Heard(store, "expired")
        store.sweep()
        assert sorted(event.name or "" for event in heard.all()) == ["0", "1", "2", "3", "4"]
        assert store.session("files").files() == []

    def test_the_failure_is_told_and_the_finish_is_not(self, store: SessionStore) -> None:
        self.failing(store, "2", unavailable())
        heard = Heard(store, "sweep_started", "sweep_failed", "sweep_finished")
        with pytest.raises(BackendUnavailable):
            store.sweep()
        assert [(event.kind, event.reason) for event in heard.all()] == [
            ("sweep_started", "10 rows"),
            ("sweep_failed", "The backend did not answer."),
        ]

    def test_it_is_logged_which_session_could_not_be_deleted(
        self, store: SessionStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.failing(store, "2", unavailable())
        with pytest.raises(BackendUnavailable), caplog.at_level(logging.WARNING):
            store.sweep()
        assert store.session("2").sid[-32:] in caplog.text
        assert store.session("2").sid not in caplog.text

    def test_the_next_sweep_does_the_rest(self, store: SessionStore) -> None:
        backend = self.failing(store, "2", unavailable())
        with pytest.raises(BackendUnavailable):
            store.sweep()
        backend.plan = lambda _: None
        assert brief(store.sweep()) == [("drop", "2", "")]

    @pytest.mark.parametrize("verb", ["sessions", "files"])
    @pytest.mark.parametrize("at", [0, 1])
    def test_a_listing_that_ends_early_deletes_nothing(
        self, store: SessionStore, backend: FaultyBackend, verb: str, at: int
    ) -> None:
        before = store.usage()
        backend.plan = on(verb, Fault(unavailable, at=at))
        with pytest.raises(BackendUnavailable):
            store.sweep()
        backend.plan = lambda _: None
        assert store.usage() == before

    @pytest.mark.parametrize("verb", ["sessions", "files", "collect", "identify"])
    def test_every_failure_is_told(
        self, store: SessionStore, backend: FaultyBackend, verb: str
    ) -> None:
        heard = Heard(store, "sweep_failed")
        backend.plan = on(verb, Fault(unavailable))
        with pytest.raises(BackendUnavailable):
            store.sweep()
        assert heard.kinds() == ["sweep_failed"]

    def test_a_dry_run_that_fails_is_no_failed_sweep(
        self, store: SessionStore, backend: FaultyBackend
    ) -> None:
        heard = Heard(store)
        backend.plan = on("sessions", Fault(unavailable))
        with pytest.raises(BackendUnavailable):
            store.sweep(dry_run=True)
        assert heard.kinds() == []

    def test_a_collection_that_fails_has_had_the_rows_before_it(
        self, store: SessionStore, backend: FaultyBackend
    ) -> None:
        backend.plan = on("collect", Fault(unavailable))
        with pytest.raises(BackendUnavailable):
            store.sweep()
        assert ids(store) == ["files"]


def test_the_due_files_of_a_session_are_discarded_in_few_calls(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "AT_ONCE", 10)
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    store = SessionStore(backend, clock=clock)
    for number in range(25):
        store.session("alice").put(f"{number}", b"same", ttl=MINUTE)
        store.session("bob").put(f"{number}", b"%d" % number, ttl=MINUTE if number < 5 else HOUR)
    clock.advance(2 * MINUTE)
    heard = Heard(store, "expired")
    assert len(store.sweep()) == len(heard.all()) == 30
    assert backend.calls["discard"] == 3 + 1
    assert len(store.session("bob").files()) == 20


class TestDamagedSessions:
    """What a crash or a hand on the disk can make of a session's id."""

    @pytest.fixture
    def store(self, clock: FakeClock, tmp_path: Path) -> Iterator[SessionStore]:
        with local_store(tmp_path, clock) as store:
            store.session("alice").put("a", b"cat")
            yield store

    def rewrite(self, tmp_path: Path, store: SessionStore, text: str) -> None:
        (tmp_path / "sessions" / store.session("alice").sid / "id").write_text(text)

    @pytest.mark.parametrize("text", ["", "{", "{}"])
    def test_one_that_does_not_know_its_id_goes_in_the_end(
        self, store: SessionStore, clock: FakeClock, tmp_path: Path, text: str
    ) -> None:
        self.rewrite(tmp_path, store, text)
        clock.advance(2 * DAY)
        store.sweep()
        assert list(store.backend.sessions()) == []

    def test_one_that_goes_by_another_s_id_goes_alone(
        self, store: SessionStore, clock: FakeClock, tmp_path: Path
    ) -> None:
        self.rewrite(tmp_path, store, json.dumps({"id": "bob", "owner": None}))
        clock.advance(2 * DAY)
        store.session("bob").put("a", b"cat")
        store.sweep()
        assert [record.sid for record in store.backend.sessions()] == [store.session("bob").sid]


def test_a_sweep_takes_the_total_of_max_store_anew(clock: FakeClock) -> None:
    place = Place()
    one, two = (memory_store(clock, place, limits=Limits(max_store=100)) for _ in range(2))
    one.session("alice").put("a", bytes(90))
    one.sweep()
    before = one.ledger.room.total
    two.session("alice").drop()
    one.sweep()
    assert (before, one.ledger.room.total) == (90, 0)


@dataclass(frozen=True)
class History:
    """One file's session: when it was saved and touched, whether it ended, all in minutes ago."""

    saved: int
    ttl: int | None
    touched: int | None
    ended: int | None


HISTORIES = st.lists(
    st.builds(
        History,
        saved=st.integers(0, 300),
        ttl=st.none() | st.integers(1, 300),
        touched=st.none() | st.integers(0, 300),
        ended=st.none() | st.integers(0, 300),
    ),
    max_size=6,
)
RETENTIONS = st.builds(
    Retention,
    max_age=st.none() | st.integers(1, 200).map(lambda count: count * MINUTE),
    idle=st.integers(1, 300).map(lambda count: count * MINUTE),
    linger=st.integers(0, 90).map(lambda count: count * MINUTE),
    sweep_live=st.booleans(),
)


def survives(it: History, retention: Retention) -> bool:
    """Whether the file is there after a sweep, reckoned from the rules alone."""
    signs = [
        at for at in (it.saved, it.touched, it.ended) if at is not None and at <= it.saved
    ]  # nothing happens to a session that is not there yet
    quiet = min(signs) * MINUTE
    ended = it.ended is not None and it.ended <= it.saved
    live = not ended and quiet <= max(retention.linger, 180 * SECOND)
    age = it.saved * MINUTE
    if it.ttl is not None and it.ttl * MINUTE <= age:
        return False
    if ended and retention.linger <= quiet:
        return False
    if retention.idle is not None and quiet > retention.idle:
        return False
    aged = retention.max_age is not None and age > retention.max_age
    return not aged or (live and not retention.sweep_live)


@given(HISTORIES, RETENTIONS)
def test_a_sweep_leaves_what_the_rules_say(histories: list[History], retention: Retention) -> None:
    clock = FakeClock()
    backend = MemoryBackend(Place(), clock)
    # Its own policy keeps everything, and its timers are not asked.
    writer = SessionStore(backend, retention=Retention(idle=DAY, linger=DAY), clock=clock)
    happenings = [
        (at, order, number)
        for number, it in enumerate(histories)
        for order, at in enumerate((it.saved, it.touched, it.ended))
        if at is not None
    ]
    now = 300
    for at, order, number in sorted(happenings, key=lambda each: (-each[0], each[1])):
        clock.advance((now - at) * MINUTE)
        now, session, ttl = at, writer.session(f"{number}"), histories[number].ttl
        if order == 0:
            session.put("a", b"cat", ttl=None if ttl is None else ttl * MINUTE)
        elif order == 1:
            session.touch()
        else:
            backend.end(session.sid)
    clock.advance(now * MINUTE)

    sweeper = SessionStore(backend, retention=retention, clock=clock)
    plan = sweeper.plan()
    done = sweeper.sweep()

    left = {number for number in range(len(histories)) if "a" in sweeper.session(f"{number}")}
    assert left == {n for n, it in enumerate(histories) if survives(it, retention)}
    assert done == [row for row in plan if row.action != "hold"]


def test_durations_in_reasons_are_readable(clock: FakeClock) -> None:
    store = memory_store(clock, retention=Retention(idle=timedelta(days=2, minutes=5)))
    store.session("alice").put("a", b"cat")
    clock.advance(timedelta(days=3, seconds=1))
    assert [row.reason for row in store.plan()] == ["idle for 3d1s, longer than idle=2d5m"]
