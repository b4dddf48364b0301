"""How often a process sweeps, what a bucket bills for it, and which process does it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Limits, SessionStore
from sessionstore.backends.objects import ObjectBackend, keys
from sessionstore.errors import BackendUnavailable, LimitExceeded
from sessionstore.schedule import BUDGET, LONGEST, SHORTEST, TERM, Lease, Schedule
from sessionstore.testing import FakeClock
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request
from tests.support.stores import DAY, HOUR, MINUTE, SECOND, local_store, memory_store, names

Replica = tuple[SessionStore, Schedule]


class Failing(FakeObjectClient):
    """A client that cannot read or write the lease."""

    def send(self, request: Request[Any]) -> Answer[Any]:
        if request.keys[0] == keys.SWEEPER:
            raise BackendUnavailable("No lease.")
        return super().send(request)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


@pytest.fixture
def make(bucket: FakeBucket, clock: FakeClock) -> Iterator[Callable[..., Replica]]:
    stores: list[SessionStore] = []

    def make(
        every: timedelta | None = None,
        kind: type[FakeObjectClient] = FakeObjectClient,
        **options: Any,
    ) -> Replica:
        backend = ObjectBackend(kind(bucket, page_size=10), elapsed=bucket.seconds)
        stores.append(SessionStore(backend, clock=clock, **options))
        return stores[-1], Schedule(stores[-1], stores[-1]._planner, every)

    yield make
    for store in stores:
        store.close()


def requests_of(store: SessionStore) -> Any:
    return store.backend.client.requests  # type: ignore[attr-defined]  # a FakeObjectClient


def _full_disk() -> None:
    raise LimitExceeded("The disk of the temporary files is full.", limit="disk")


def is_swept(replica: Replica) -> bool:
    """Let a replica have its turn; return whether it listed."""
    store, schedule = replica
    requests_of(store).clear()
    schedule.turn()
    return bool(requests_of(store)["LIST"])


@pytest.mark.parametrize(
    ("whole", "plan", "every"),
    [(29, 17, SHORTEST), (1009, 507, 1079 * SECOND), (2009, 1007, LONGEST), (20_009, 9, LONGEST)],
)
def test_the_interval_keeps_to_the_budget(
    make: Callable[..., Replica], whole: int, plan: int, every: timedelta
) -> None:
    _, schedule = make()
    schedule._listed = {True: whole, False: plan}
    schedule._choose()
    assert abs(schedule.every - every) < SECOND
    if whole < BUDGET and every < LONGEST:
        an_hour = whole + (HOUR / schedule.every - 1) * plan
        assert an_hour <= BUDGET


def test_content_is_listed_once_an_hour_and_sessions_by_the_budget(
    make: Callable[..., Replica], clock: FakeClock
) -> None:
    store, schedule = make()
    for number in range(100):
        store.session(f"{number}").put("a", b"%d" % number)
    listed = []
    began = clock.now()
    while clock.now() - began < 2 * HOUR:
        requests_of(store).clear()
        wait = schedule.turn()
        listed.append(requests_of(store)["LIST"])
        clock.advance(wait)
    whole, plan = 10 + 10 + 1 + 1, 10  # content, sessions, intents, uploads; sessions
    assert (listed.count(whole), set(listed)) == (2, {whole, plan})
    assert schedule.every == MINUTE


def test_the_interval_is_said(
    make: Callable[..., Replica], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionstore.schedule.BUDGET", 30)
    store, schedule = make()
    for number in range(20):
        store.session(f"{number}").put("a", b"%d" % number)
    with caplog.at_level(logging.INFO, "sessionstore"):
        schedule.turn()
    assert store.swept_every == 40 * MINUTE
    assert "a sweep takes 12 requests, a plan 12; at most 30 an hour" in caplog.text


def test_sweep_every_overrides_it(make: Callable[..., Replica], clock: FakeClock) -> None:
    store, schedule = make(5 * MINUTE)
    store.session("a").put("a", b"cat")
    for _ in range(3):
        requests_of(store).clear()
        assert schedule.turn() == 5 * MINUTE
        assert requests_of(store)["LIST"] == 4  # content, intents, sessions; uploads
        clock.advance(5 * MINUTE)


def test_a_minute_where_nothing_is_billed(clock: FakeClock, tmp_path: Path) -> None:
    for store in (memory_store(clock), local_store(tmp_path, clock)):
        schedule = Schedule(store, store._planner, None)
        assert schedule.turn() == MINUTE


def test_sixteen_replicas_take_hardly_more_than_one(
    make: Callable[..., Replica], clock: FakeClock
) -> None:
    totals = []
    for count in (1, 16):
        replicas = [make() for _ in range(count)]
        if count == 1:
            for number in range(300):
                replicas[0][0].session(f"{number}").put("a", b"%d" % number)
        for store, _ in replicas:
            requests_of(store).clear()
        due = dict.fromkeys(range(count), clock.now())
        end = clock.now() + 6 * HOUR
        while (first := min(due, key=due.__getitem__)) is not None and due[first] < end:
            clock.advance(max(due[first] - clock.now(), timedelta(0)))
            due[first] = clock.now() + replicas[first][1].turn()
        clock.advance(DAY)  # the lease of these ends
        totals.append(sum(requests_of(store).total() for store, _ in replicas))
    assert totals[1] <= 1.1 * totals[0]


class TestLease:
    """It decides who sweeps, and never whether a sweep is safe."""

    def test_one_of_two_sweeps(self, make: Callable[..., Replica], clock: FakeClock) -> None:
        one, two = make(), make()
        for _ in range(5):
            assert (is_swept(one), is_swept(two)) == (True, False)
            clock.advance(MINUTE)

    def test_another_takes_over_when_it_died(
        self, make: Callable[..., Replica], clock: FakeClock
    ) -> None:
        one, two = make(), make()
        assert is_swept(one)
        clock.advance(2 * MINUTE)
        assert (is_swept(two), is_swept(one)) == (True, False)

    def test_another_sweeps_when_it_cannot(
        self, make: Callable[..., Replica], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = make(), make()
        monkeypatch.setattr(one[1], "_work", _full_disk)
        for _ in range(3):
            with pytest.raises(LimitExceeded):
                one[1].turn()
            clock.advance(MINUTE)
        assert is_swept(two)
        one[1].turn()  # it stands by

    def test_another_sweeps_soon_when_it_died_in_a_sweep(
        self,
        make: Callable[..., Replica],
        bucket: FakeBucket,
        clock: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        one, two = make(DAY / 2), make()
        notes = []
        monkeypatch.setattr(one[1], "_work", lambda: notes.append(one[0].backend.lease()))  # type: ignore[attr-defined]  # an ObjectBackend
        one[1].turn()
        bucket.put(keys.SWEEPER, notes[0])  # as if it had been killed then

        assert not is_swept(two)
        clock.advance(TERM)
        assert is_swept(two)

    @pytest.mark.parametrize("every", [30 * SECOND, None, 3 * HOUR])
    def test_it_is_renewed_in_a_long_sweep_but_not_for_ever(
        self,
        make: Callable[..., Replica],
        clock: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
        every: timedelta | None,
    ) -> None:
        one, two = make(every), make(every)
        one[1]._pulse = clock
        longest = max(2 * one[1].every, HOUR)

        def work() -> None:
            began = clock.now()
            while clock.now() - began < longest - TERM:
                clock.settle()
                assert not is_swept(two)
                clock.advance(30 * SECOND)
            clock.settle()
            clock.advance(TERM)
            clock.settle()
            assert is_swept(two)

        monkeypatch.setattr(one[1], "_work", work)
        one[1].turn()

    def test_a_short_sweep_writes_it_twice(self, make: Callable[..., Replica]) -> None:
        store, schedule = make()
        store.backend.write_lease(b"")  # type: ignore[attr-defined]  # the first write of a store
        schedule.turn()
        requests_of(store).clear()
        schedule.turn()
        assert requests_of(store)["PUT"] == 2

    def test_when_it_died_between_sweeps_another_waits_little_longer_than_the_interval(
        self, make: Callable[..., Replica], clock: FakeClock
    ) -> None:
        one, two = make(HOUR), make(HOUR)
        assert is_swept(one)
        clock.advance(HOUR)
        assert not is_swept(two)
        clock.advance(TERM)
        assert is_swept(two)

    def test_a_shorter_interval_does_not_wait_for_a_longer_one(
        self, make: Callable[..., Replica], clock: FakeClock
    ) -> None:
        rare, often = make(DAY), make(MINUTE)
        assert (is_swept(rare), is_swept(often)) == (True, False)
        clock.advance(2 * MINUTE)
        assert is_swept(often)

    @pytest.mark.parametrize(
        "note", [b"", b"\xff", b"5", b'["a"]', b'["a", "b", "c", 0]', b'["a", 1, 2, null]',
                 b'["a", "2026-01-01", "2027-01-01", null]']
    )  # fmt: skip
    def test_an_unreadable_one_is_none(
        self, make: Callable[..., Replica], bucket: FakeBucket, note: bytes
    ) -> None:
        bucket.put(keys.SWEEPER, note)
        assert Lease.parse(note) is None
        assert is_swept(make())

    def test_one_from_the_future_or_without_an_end_does_not_count_for_long(
        self, make: Callable[..., Replica], bucket: FakeBucket, clock: FakeClock
    ) -> None:
        now = clock.now()
        bucket.put(keys.SWEEPER, Lease("x", now + HOUR, now + 2 * HOUR).note())
        assert is_swept(make())
        bucket.put(keys.SWEEPER, Lease("x", now, now + 1000 * DAY).note())
        replica = make()
        assert not is_swept(replica)
        clock.advance(DAY)
        assert is_swept(replica)

    def test_without_access_to_it_each_process_sweeps(self, make: Callable[..., Replica]) -> None:
        assert is_swept(make(kind=Failing))
        assert is_swept(make(kind=Failing))

    def test_on_a_disk_too(self, clock: FakeClock, tmp_path: Path) -> None:
        one, two = (local_store(tmp_path, clock) for _ in range(2))
        turns = [Schedule(store, store._planner, None) for store in (one, two)]
        one.session("a").put("a", b"cat")
        for turn in turns:
            turn.turn()
        assert (one.swept_every, two.swept_every) == (MINUTE, None)
        assert one.verify() == []

    def test_the_others_forget_copies_of_what_was_dropped(
        self, make: Callable[..., Replica], clock: FakeClock
    ) -> None:
        (sweeper, turn), (other, others) = make(), make()
        session = other.session("a")
        session.put("a", b"cat")
        path = session.get("a").local_path()
        turn.turn()
        sweeper.session("a").drop()
        others.turn()
        assert not path.exists()
        assert names(session) == []

    def test_the_others_learn_the_total_that_is_limited(
        self, make: Callable[..., Replica], clock: FakeClock
    ) -> None:
        limits = Limits(max_store=1000)
        (sweeper, turn), (other, others) = make(limits=limits), make(limits=limits)
        sweeper.session("a").put("a", b"x" * 600)
        turn.turn()
        others.turn()
        assert other.ledger.room.total == 600
