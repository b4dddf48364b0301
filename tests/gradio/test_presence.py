"""Who is here and what the store is told of it: the rules, without a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from sessionstore import InvalidName, Limits, Retention, Session, SessionStore
from sessionstore.adapters.gradio import presence
from sessionstore.adapters.gradio.presence import PresenceTracker, TokenBucket, Visitor
from sessionstore.testing import FakeClock
from tests.support.gradio_rig import PATIENCE, until

ANNA = Visitor("anna", "visitor-a")


class Told:
    """Presences of a store that writes down what it is told, and can be held up."""

    def __init__(self, strangers: float = 0) -> None:
        self.clock = FakeClock()
        self.store = SessionStore.open("memory://", clock=self.clock)
        self.exists = False
        self.presences = PresenceTracker(self.store, TokenBucket(strangers, 0, lambda: 0.0))
        self.verbs: list[str] = []
        self.told = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()

    def emit(self, verb: str) -> bool:
        self.verbs.append(verb)
        self.told.release()
        assert self.go_on.wait(PATIENCE)
        return self.exists

    def idle(self) -> None:
        """Wait until nothing is scheduled."""
        while any(presence.scheduled for presence in self.presences._visitors.values()):
            threading.Event().wait(0.001)

    def all(self) -> list[str]:
        """All that the store was told, once everything has been."""
        self.go_on.set()
        self.presences.stop()
        return self.verbs

    def use(self, visitor: Visitor = ANNA) -> None:
        self.presences.used(visitor, self.presences.moment(), wait=True)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    told = Told()
    for verb in ("resume", "touch", "end"):
        monkeypatch.setattr(Session, verb, lambda _, verb=verb: told.emit(verb))
    told.presences.start()
    with told.store:
        yield told
        told.all()


def test_a_visitor_comes_and_leaves(told: Told) -> None:
    told.use()
    told.presences.opened(ANNA)
    told.presences.closed(ANNA, left=True)

    assert told.all()[-1] == "end"


def test_its_threads_start_before_a_visitor_comes(told: Told) -> None:
    pool = told.presences._pool
    assert pool is not None
    until(lambda: len(pool._threads) == presence.WORKERS)


def test_an_event_resumes_once_however_often_it_asks(told: Told) -> None:
    arrived = told.presences.moment()

    for _ in range(3):
        told.presences.used(ANNA, arrived, wait=True)

    assert told.all() == ["resume"]


def test_an_event_of_a_visitor_who_is_here_costs_nothing(told: Told) -> None:
    told.presences.opened(ANNA)

    told.use()
    told.use()

    assert told.all() == []


def test_those_who_are_here_are_touched_once_in_a_while(told: Told) -> None:
    told.presences.opened(ANNA)
    told.use()
    told.presences.beat()
    often, beats = told.store.touch_interval, told.store.live_interval
    told.clock.advance(often - beats - timedelta(seconds=1))
    told.presences.beat()
    told.idle()
    too_early = list(told.verbs)
    told.clock.advance(timedelta(seconds=1))
    told.presences.beat()

    assert (too_early, told.all()) == ([], ["touch"])


def test_who_may_have_come_from_another_replica_is_touched_at_every_beat(told: Told) -> None:
    """That replica may not know yet that the connection is gone, and end the session later."""
    told.exists = True
    told.use()
    told.presences.opened(ANNA)
    for _ in range(3):  # what was scheduled is done, or the beat would be left out
        assert told.told.acquire(timeout=PATIENCE)
        told.idle()
        told.presences.beat()

    assert told.all() == ["resume", "resume", "touch", "touch", "touch"]


@pytest.mark.parametrize(
    "policy",
    [
        {"retention": Retention(max_age=timedelta(hours=1))},
        {"limits": Limits(max_store=1 << 30)},
        {"restart": "drop"},
    ],
    ids=["max_age", "max_store", "restart"],
)
def test_pages_are_touched_often_where_live_sessions_are_spared(policy: dict[str, Any]) -> None:
    with SessionStore.open("memory://", settings=False, **policy) as store:
        assert store.touch_interval == store.live_interval


@pytest.mark.parametrize(
    ("retention", "interval"),
    [
        (Retention(), timedelta(hours=1)),
        (Retention(idle=timedelta(minutes=30)), timedelta(minutes=10)),
        (Retention(max_age=timedelta(days=1), sweep_live=True, idle=None), timedelta(hours=1)),
    ],
)
def test_otherwise_touches_only_keep_a_session_from_being_idle(
    retention: Retention, interval: timedelta
) -> None:
    with SessionStore.open("memory://", retention=retention, settings=False) as store:
        assert store.touch_interval == interval


def test_a_beat_touches_nobody_who_left(told: Told) -> None:
    told.use()
    told.presences.opened(ANNA)
    told.presences.closed(ANNA, left=True)
    told.presences.beat()

    assert "touch" not in told.all()


def test_a_visitor_who_goes_because_the_server_does_has_not_left(told: Told) -> None:
    told.use()
    told.presences.opened(ANNA)
    told.presences.closed(ANNA, left=False)

    assert "end" not in told.all()


def test_the_last_word_wins_while_the_store_is_slow(told: Told) -> None:
    """Telling takes time: what was overtaken meanwhile is not told, the end is told last."""
    told.use()
    assert told.told.acquire(timeout=PATIENCE)
    told.go_on.clear()
    told.presences.opened(ANNA)
    assert told.told.acquire(timeout=PATIENCE)

    for _ in range(10):
        told.presences.closed(ANNA, left=True)
        told.presences.opened(ANNA)
    told.presences.closed(ANNA, left=True)

    assert told.all() == ["resume", "resume", "end"]


def test_the_store_is_told_nothing_before_the_start_and_after_the_stop() -> None:
    told = Told(strangers=10)
    with told.store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "end", lambda _: told.emit("end"))
        told.presences.opened(ANNA)
        told.presences.closed(ANNA, left=True)

    assert told.verbs == []


def test_a_thousand_forged_unloads_cost_a_handful_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(strangers=5)
    for verb in ("resume", "end"):
        monkeypatch.setattr(Session, verb, lambda _, verb=verb: told.emit(verb))
    with told.store:
        told.presences.start()
        for number in range(1000):
            forged = Visitor(f"forged-{number}", None)
            told.presences.opened(forged)
            told.presences.closed(forged, left=True)

        assert len(told.all()) <= 5


def test_a_stranger_s_storm_takes_nothing_from_visitors_who_are_known(told: Told) -> None:
    told.use()
    for number in range(100):
        told.presences.opened(Visitor(f"forged-{number}", None))

    told.presences.opened(ANNA)
    told.presences.closed(ANNA, left=True)

    assert told.all()[-1] == "end"


def test_what_is_remembered_is_bounded(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "REMEMBERED", 10)
    told.use()
    told.presences.opened(ANNA)

    for number in range(100):
        forged = Visitor(f"forged-{number}", None)
        told.presences.opened(forged)
        told.presences.closed(forged, left=True)

    assert len(told.presences._visitors) == 10
    assert ANNA in told.presences._visitors


def test_an_impossible_id_is_refused_before_anything_is_remembered(told: Told) -> None:
    with pytest.raises(InvalidName):
        told.presences.opened(Visitor("x" * 100_000, None))

    assert not told.presences._visitors


def test_a_budget_fills_up_again_at_its_rate() -> None:
    now = [0.0]
    budget = TokenBucket(2, 4.0, lambda: now[0])

    def taken() -> list[Any]:
        return [budget.take() for _ in range(3)]

    at_first = taken()
    now[0] += 0.25
    a_quarter_second_later = taken()
    now[0] += 1000
    much_later = taken()

    assert at_first == [True, True, False]
    assert a_quarter_second_later == [True, False, False]
    assert much_later == [True, True, False]


def test_a_session_with_a_running_event_ends_when_the_event_does(told: Told) -> None:
    told.use()
    told.idle()
    told.presences.opened(ANNA)
    told.presences.began(ANNA)
    told.presences.began(ANNA)
    told.presences.closed(ANNA, left=True)
    told.presences.finished(ANNA)
    told.idle()
    running = list(told.verbs)
    told.presences.finished(ANNA)

    assert "end" not in running
    assert told.all()[-1] == "end"


def test_a_page_that_is_back_before_its_event_is_over_is_not_ended(told: Told) -> None:
    told.use()
    told.presences.opened(ANNA)
    told.presences.began(ANNA)
    told.presences.closed(ANNA, left=True)
    told.presences.opened(ANNA)
    told.presences.finished(ANNA)

    assert "end" not in told.all()


def test_a_running_event_touches_the_session_of_a_page_that_is_elsewhere(told: Told) -> None:
    """The replica with the heartbeat may end it: each touch postpones the drop."""
    told.use()
    told.presences.began(ANNA)
    for _ in range(2):
        told.clock.advance(told.store.live_interval)
        told.presences.beat()
        told.idle()
    running = list(told.verbs)
    told.presences.finished(ANNA)
    told.clock.advance(told.store.live_interval)
    told.presences.beat()

    assert running.count("touch") == 2
    assert told.all() == running


def test_a_running_event_goes_over_to_the_tracker_of_a_reloaded_demo(told: Told) -> None:
    told.use()
    told.presences.opened(ANNA)
    told.presences.began(ANNA)
    newer = PresenceTracker(told.store, TokenBucket(0, 0, lambda: 0.0))
    newer.start()
    newer.take_over(told.presences)
    told.presences.closed(ANNA, left=True)
    told.idle()
    before = "end" in told.verbs
    told.presences.finished(ANNA)
    newer.stop()

    assert not before
    assert told.verbs[-1] == "end"
