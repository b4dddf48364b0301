"""How long things are kept: the rules alone, then what a plan says and why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Retention, SessionStore, SettingsError
from sessionstore.backend import Reference, SessionKey, SessionRecord
from sessionstore.names import private_key
from sessionstore.plan import Planner
from sessionstore.testing import FakeClock
from tests.support.stores import DAY, HOUR, MINUTE, SECOND, brief, local_store, memory_store

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def record(
    *, idle: timedelta = timedelta(0), ended: timedelta | None = None, sid: str = "a"
) -> SessionRecord:
    """A session that was active ``idle`` ago, and ended ``ended`` ago."""
    end = None if ended is None else NOW - ended
    return SessionRecord(sid, NOW - idle, end, NOW - DAY, None)


class TestSettings:
    def test_defaults(self) -> None:
        assert Retention() == Retention(
            max_age=None, idle=24 * HOUR, linger=5 * MINUTE, sweep_live=False
        )

    def test_nothing_ever_deleted_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="nothing would ever be deleted: set one of them"):
            Retention(max_age=None, idle=None)

    @pytest.mark.parametrize("kept", [{"max_age": HOUR, "idle": None}, {"idle": HOUR}])
    def test_one_of_the_two_is_enough(self, kept: dict[str, Any]) -> None:
        assert Retention(**kept).linger == 5 * MINUTE

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_age": timedelta(0)}, {"idle": timedelta(0)}, {"max_age": -SECOND},
            {"idle": -SECOND}, {"linger": -SECOND}, {"linger": None}, {"linger": 300},
            {"idle": 3600}, {"max_age": "1h"}, {"idle": True}, {"sweep_live": "no"},
            {"sweep_live": None}, {"linger": timedelta.max},
        ],
        ids=repr,
    )  # fmt: skip
    def test_a_wrong_value_is_refused_by_name(self, wrong: dict[str, Any]) -> None:
        (name,) = wrong
        with pytest.raises(SettingsError, match=f"^invalid {name}=.*: .*"):
            Retention(**wrong)

    def test_the_longest_times_can_be_planned_with(self) -> None:
        longest = Retention(max_age=timedelta.max, idle=timedelta.max, linger=timedelta(days=36525))
        planner = Planner(
            longest, NOW, "shared", lambda _: SessionKey("a", "a", None), lambda _: []
        )
        assert [row.action for row in planner.rows([record(ended=HOUR)])] == ["hold"]


class TestLive:
    @pytest.mark.parametrize(
        ("linger", "live_for"),
        [
            (timedelta(0), 180 * SECOND), (180 * SECOND, 180 * SECOND),
            (181 * SECOND, 181 * SECOND), (HOUR, HOUR),
        ],
    )  # fmt: skip
    def test_is_active_within_the_linger_or_three_minutes(
        self, linger: timedelta, live_for: timedelta
    ) -> None:
        retention = Retention(linger=linger)
        assert retention.is_live(record(idle=live_for), NOW)
        assert not retention.is_live(record(idle=live_for + SECOND), NOW)

    def test_an_ended_session_is_not_live(self) -> None:
        assert not Retention().is_live(record(idle=SECOND, ended=HOUR), NOW)

    @pytest.mark.parametrize(
        ("linger", "interval"),
        [
            (timedelta(0), 5 * SECOND), (15 * SECOND, 5 * SECOND), (30 * SECOND, 10 * SECOND),
            (3 * MINUTE, MINUTE), (HOUR, MINUTE),
        ],
    )  # fmt: skip
    def test_connections_touch_often_enough(self, linger: timedelta, interval: timedelta) -> None:
        assert Retention(linger=linger).live_interval == interval


class TestDue:
    def test_a_session_that_has_not_ended_is_never_due(self) -> None:
        assert Retention().due(record(idle=DAY)) is None

    @pytest.mark.parametrize(
        ("idle", "ended", "due_in"),
        [
            (MINUTE, MINUTE, 4 * MINUTE),
            (HOUR, MINUTE, 4 * MINUTE),
            (MINUTE, HOUR, 4 * MINUTE),
            (timedelta(0), HOUR, 5 * MINUTE),
            (HOUR, HOUR, -55 * MINUTE),
        ],
    )
    def test_is_the_linger_after_the_last_sign_of_life(
        self, idle: timedelta, ended: timedelta, due_in: timedelta
    ) -> None:
        assert Retention().due(record(idle=idle, ended=ended)) == NOW + due_in

    @pytest.mark.parametrize(
        ("linger", "behind", "due"),
        [
            (timedelta(0), timedelta(0), True),
            (timedelta(0), SECOND, True),
            (SECOND, timedelta(0), False),
            (SECOND, -SECOND, True),
        ],
    )
    def test_the_store_s_time_has_reached_what_its_record_says(
        self, linger: timedelta, behind: timedelta, *, due: bool
    ) -> None:
        ended = record(idle=MINUTE, ended=timedelta(0))
        assert Retention(linger=linger).is_due(ended, NOW - behind) == due

    def test_what_has_not_ended_is_not_due(self) -> None:
        assert not Retention(linger=timedelta(0)).is_due(record(idle=DAY), NOW)


class TestPlanner:
    """What only hand-made records show."""

    KEY = SessionKey("a", "alice", "owner")

    def plan(
        self, records: list[SessionRecord], files: list[Reference], **retention: Any
    ) -> list[tuple[str, str | None]]:
        planner = Planner(
            Retention(**retention), NOW, "shared", lambda _: self.KEY, lambda _: files
        )
        return [(row.action, row.name) for row in planner.rows(records)]

    def file(self, name: str, age: timedelta) -> Reference:
        return Reference(name, 3, "d", NOW - age, None, "t")

    def test_files_of_sessions_too_young_to_have_any_are_not_listed(self) -> None:
        def listed(_: str) -> list[Reference]:
            raise AssertionError("The files were listed.")

        young = SessionRecord("a", NOW, None, NOW - HOUR, NOW + SECOND)
        planner = Planner(Retention(max_age=HOUR), NOW, "shared", lambda _: self.KEY, listed)
        assert list(planner.rows([young])) == []

    def test_a_sweep_asks_for_nothing_about_what_is_only_held(self) -> None:
        """Sessions that linger, and live ones with files that are too old."""

        def asked(_: str) -> Any:
            raise AssertionError("The backend was asked.")

        held = [SessionRecord(f"{n}", NOW, NOW - MINUTE, NOW, None) for n in range(100)]
        held += [SessionRecord("live", NOW, None, NOW - DAY, None)]
        planner = Planner(Retention(max_age=HOUR), NOW, "shared", asked, asked, held=False)
        assert list(planner.rows(held)) == []

    @pytest.mark.parametrize(
        ("active", "rows"), [(MINUTE, [("delete", "old")]), (HOUR, [("drop", None)])]
    )
    def test_an_adapter_s_session_goes_with_its_last_files(
        self, active: timedelta, rows: list[tuple[str, str | None]]
    ) -> None:
        key = private_key("gradio unclaimed", "anna")
        expired = Reference("old", 3, "d", NOW - active, NOW - SECOND, "t")
        planner = Planner(Retention(), NOW, "shared", lambda _: key, lambda _: [expired])
        of_it = SessionRecord(key.sid, NOW - active, None, NOW - active, NOW - SECOND)
        assert [(row.action, row.name) for row in planner.rows([of_it])] == rows

    def test_bounds_are_only_bounds(self) -> None:
        files = [self.file("young", MINUTE), self.file("old", 2 * HOUR)]
        rows = self.plan([record(idle=HOUR)], files, max_age=HOUR)
        assert rows == [("delete", "old")]

    def test_sessions_are_planned_in_their_order(self) -> None:
        records = [record(idle=2 * DAY, sid=sid) for sid in "cab"]
        planner = Planner(Retention(), NOW, "shared", lambda _: self.KEY, lambda _: [])
        assert [row.record and row.record.sid for row in planner.rows(records)] == ["c", "a", "b"]

    def test_a_session_that_does_not_know_its_id_goes_too(self) -> None:
        planner = Planner(Retention(), NOW, "shared", lambda _: None, lambda _: [])
        (row,) = planner.rows([record(idle=2 * DAY, sid="lost-1")])
        assert (row.action, row.session_id, row.owner) == ("drop", "lost-1", None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "local"])
def open_store(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Any]:
    opened: list[SessionStore] = []

    def open_store(**retention: Any) -> SessionStore:
        policy: dict[str, Any] = {"retention": Retention(**retention)}
        local = request.param == "local"
        store = (
            local_store(tmp_path / "r", clock, **policy) if local else memory_store(clock, **policy)
        )
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


def reasons(store: SessionStore) -> list[str]:
    return [row.reason for row in store.plan()]


class TestIdle:
    def test_drops_the_session_whole(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(idle=HOUR)
        store.session("alice", "o").put("a", b"cat")
        store.session("alice", "o").put("b", b"goldfish")
        clock.advance(HOUR + MINUTE)
        (row,) = store.plan()
        assert (row.action, row.session_id, row.owner, row.name) == ("drop", "alice", "o", None)
        assert (row.size, row.reason) == (11, "idle for 1h1m, longer than idle=1h")

    def test_spares_one_that_is_just_as_old(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(idle=HOUR)
        store.session("alice").put("a", b"cat")
        clock.advance(HOUR)
        assert store.plan() == []

    @pytest.mark.parametrize("sign", ["put", "touch", "resume"])
    def test_counts_from_the_last_sign_of_life(
        self, open_store: Any, clock: FakeClock, sign: str
    ) -> None:
        store = open_store(idle=HOUR)
        session = store.session("alice")
        session.put("a", b"cat")
        clock.advance(HOUR)
        getattr(session, sign)(*(("b", b"dog") if sign == "put" else ()))
        clock.advance(HOUR)
        assert store.plan() == []

    def test_reading_is_no_sign_of_life(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(idle=HOUR)
        session = store.session("alice")
        session.put("a", b"cat")
        clock.advance(HOUR)
        session.read("a")
        clock.advance(SECOND)
        assert brief(store.plan()) == [("drop", "alice", "")]

    def test_none_keeps_sessions(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(idle=None, max_age=1000 * DAY)
        store.session("alice").put("a", b"cat")
        clock.advance(999 * DAY)
        assert store.plan() == []


class TestMaxAge:
    def test_deletes_single_files_of_sessions_that_are_not_live(
        self, open_store: Any, clock: FakeClock
    ) -> None:
        store = open_store(max_age=HOUR)
        store.session("alice").put("old", b"goldfish")
        clock.advance(30 * MINUTE)
        store.session("alice").put("young", b"cat")
        clock.advance(31 * MINUTE)
        (row,) = store.plan()
        assert (row.action, row.session_id, row.name, row.size) == ("delete", "alice", "old", 8)
        assert row.reason == "1h1m old, older than max_age=1h"

    def test_holds_back_while_the_session_is_live(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(max_age=HOUR)
        session = store.session("alice")
        session.put("old", b"cat")
        clock.advance(2 * HOUR)
        session.touch()
        (row,) = store.plan()
        assert (row.action, row.name) == ("hold", "old")
        assert row.reason == "2h old, older than max_age=1h, but its session is live"

    def test_sweep_live_lifts_that(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(max_age=HOUR, sweep_live=True)
        session = store.session("alice")
        session.put("old", b"cat")
        clock.advance(2 * HOUR)
        session.touch()
        assert brief(store.plan()) == [("delete", "alice", "old")]

    def test_an_ended_session_is_not_spared(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(max_age=HOUR)
        store.session("alice").put("old", b"cat")
        clock.advance(2 * HOUR)
        store.session("alice").end()
        assert brief(store.plan()) == [("delete", "alice", "old"), ("hold", "alice", "")]

    def test_a_replaced_file_is_young_again(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(max_age=HOUR)
        store.session("alice").put("a", b"cat")
        clock.advance(HOUR)
        store.session("alice").put("a", b"dog")
        clock.advance(HOUR)
        assert store.plan() == []

    def test_without_idle_an_empty_session_goes_in_the_end(
        self, open_store: Any, clock: FakeClock
    ) -> None:
        store = open_store(max_age=HOUR, idle=None)
        store.session("alice").put("a", b"cat")
        clock.advance(2 * HOUR)
        store.sweep()
        clock.advance(2 * HOUR)
        (row,) = store.sweep()
        assert (row.action, row.name) == ("drop", None)
        assert row.reason == "it has no files, and is not in use"
        assert store.usage().sessions == 0

    def test_with_idle_an_empty_session_stays_as_long_as_any(
        self, open_store: Any, clock: FakeClock
    ) -> None:
        store = open_store(max_age=HOUR, idle=DAY)
        store.session("alice").put("a", b"cat")
        clock.advance(2 * HOUR)
        store.sweep()
        clock.advance(2 * HOUR)
        assert store.plan() == []

    def test_without_idle_an_empty_live_session_stays(
        self, open_store: Any, clock: FakeClock
    ) -> None:
        store = open_store(max_age=HOUR, idle=None)
        session = store.session("alice")
        session.put("a", b"cat")
        session.delete("a")
        clock.advance(2 * HOUR)
        session.touch()
        assert store.plan() == []


class TestTimeToLive:
    def test_deletes_the_file_also_of_a_live_session(
        self, open_store: Any, clock: FakeClock
    ) -> None:
        store = open_store()
        session = store.session("alice")
        session.put("a", b"cat", ttl=MINUTE)
        session.put("b", b"dog", ttl=HOUR)
        session.put("c", b"owl")
        clock.advance(2 * MINUTE)
        session.touch()
        (row,) = store.plan()
        assert (row.action, row.name) == ("delete", "a")
        assert row.reason == "its time to live was over 1m ago"

    def test_holds_from_its_very_moment(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store()
        store.session("alice").put("a", b"cat", ttl=MINUTE)
        clock.advance(MINUTE)
        assert brief(store.plan()) == [("delete", "alice", "a")]


class TestEnded:
    def test_is_held_while_it_lingers(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store()
        store.session("alice").put("a", b"cat")
        store.session("alice").end()
        clock.advance(MINUTE)
        (row,) = store.plan()
        assert (row.action, row.name, row.size) == ("hold", None, 3)
        assert row.reason == "it ended and lingers for 4m more"

    def test_is_dropped_when_the_linger_is_over(self, clock: FakeClock, tmp_path: Path) -> None:
        # Ended by another process: this one has no timer for it.
        stores = [local_store(tmp_path, clock) for _ in range(2)]
        stores[0].session("alice").put("a", b"cat")
        stores[0].session("alice").end()
        stores[0]._timers.close()
        clock.advance(6 * MINUTE)
        (row,) = stores[1].plan()
        for store in stores:
            store.close()
        assert (row.action, row.name) == ("drop", None)
        assert row.reason == "it ended, and its linger of 5m was over 1m ago"


class TestShared:
    def test_is_never_idle_and_never_ends(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(idle=HOUR, linger=timedelta(0))
        store.shared.put("logo.png", b"logo")
        store.shared.end()
        clock.advance(1000 * DAY)
        assert store.plan() == []
        assert store.shared.read("logo.png") == b"logo"

    def test_ends_neither_by_another_s_mark(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(linger=timedelta(0))
        store.shared.put("logo.png", b"logo")
        store.backend.end(store.shared.sid)
        clock.advance(HOUR)
        assert store.plan() == []

    def test_is_swept_by_max_age_also_while_it_is_used(
        self, open_store: Any, clock: FakeClock
    ) -> None:
        store = open_store(max_age=HOUR)
        store.shared.put("old", b"logo")
        clock.advance(2 * HOUR)
        store.shared.put("young", b"logo")
        assert brief(store.plan()) == [("delete", "shared", "old")]

    def test_is_swept_by_time_to_live(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store()
        store.shared.put("a", b"logo", ttl=MINUTE)
        clock.advance(MINUTE)
        assert brief(store.plan()) == [("delete", "shared", "a")]

    def test_stays_when_it_is_empty(self, open_store: Any, clock: FakeClock) -> None:
        store = open_store(max_age=HOUR, idle=None)
        store.shared.put("a", b"logo")
        store.shared.delete("a")
        clock.advance(2 * HOUR)
        assert store.plan() == []

    def test_a_visitor_cannot_reach_it(self, open_store: Any) -> None:
        store = open_store()
        store.shared.put("logo.png", b"logo")
        ids = ["shared", store.shared.sid, store.shared.id]
        assert [store.session(id_).files() for id_ in ids] == [[], [], []]


def test_every_reason_is_a_clause_for_people(open_store: Any, clock: FakeClock) -> None:
    store = open_store(max_age=HOUR, idle=3 * HOUR)
    for name in ("idle", "old", "live"):
        store.session(name).put("a", b"cat")
    clock.advance(90 * MINUTE)
    store.session("old").touch()
    clock.advance(91 * MINUTE)
    store.session("live").touch()
    assert sorted(reasons(store)) == [
        "3h1m old, older than max_age=1h",
        "3h1m old, older than max_age=1h, but its session is live",
        "idle for 3h1m, longer than idle=3h",
    ]
