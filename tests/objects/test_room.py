"""Saves at the edge of ``max_store`` on a bucket: what one takes more than another."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessionstore import LimitExceeded, Limits, SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing import FakeClock
from tests.support.object_client import FakeBucket, FakeObjectClient

FILES, SESSIONS, SIZE = 2000, 200, 100
SAVES = 60


class Full:
    """A store of so many files, at its limit."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        bucket = FakeBucket(self.clock.now)
        self.client = FakeObjectClient(bucket)
        backend = ObjectBackend(self.client, elapsed=bucket.seconds)
        limits = Limits(max_store=FILES * SIZE)
        self.store = SessionStore(backend, clock=self.clock, limits=limits)
        for number in range(FILES):
            self.save(number, f"{number % SESSIONS}")

    def save(self, number: int, id_: str = "new") -> None:
        self.store.session(id_).add(f"{number:0{SIZE}}".encode())

    def most(self, saves: int) -> int:
        """The requests of so many saves, each with three more than usual."""
        return saves * (3 + 3)


def test_a_refused_save_takes_few_requests_more() -> None:
    """The first one looks at the listing, in which all sessions are live; the others know."""
    full = Full()
    full.client.requests.clear()
    for number in range(SAVES):
        with pytest.raises(LimitExceeded, match="max_store"):
            full.save(FILES + number)

    assert full.client.requests == {"LIST": 4}  # of 2,000 files, and of their sessions
    assert full.client.requests.total() <= 3 * SAVES


def test_it_is_looked_again_when_a_visitor_left_or_some_seconds_later() -> None:
    full = Full()
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            full.save(FILES)
    full.store.session("7").end()

    full.save(FILES)

    for number in range(1, 10):  # the other files of the session that ended
        full.save(FILES + number)
    with pytest.raises(LimitExceeded):
        full.save(FILES + 10)
    full.store.backend.end(full.store.session("8").sid)  # another replica's visitor
    full.clock.advance(timedelta(seconds=10))
    full.save(FILES + 10)


def test_a_save_that_can_never_fit_asks_for_nothing() -> None:
    full = Full()
    full.client.requests.clear()
    with pytest.raises(LimitExceeded, match="max_store"):
        full.store.session("new").add(b"x" * (FILES * SIZE + 1))

    assert full.client.requests == {}


def test_it_is_looked_again_the_later_the_more_a_look_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sessionstore.limits._A_PAGE", timedelta(seconds=30))
    full = Full()
    with pytest.raises(LimitExceeded):
        full.save(FILES)
    full.client.requests.clear()
    full.clock.advance(timedelta(seconds=59))  # 2,000 files
    with pytest.raises(LimitExceeded):
        full.save(FILES)
    assert full.client.requests == {}
    full.clock.advance(timedelta(seconds=1))
    with pytest.raises(LimitExceeded):
        full.save(FILES)
    assert full.client.requests["LIST"] == 4


def test_so_do_many_of_them() -> None:
    """A session that was emptied to make room is not asked again each time."""
    full = Full()
    full.clock.advance(timedelta(hours=1))
    full.client.requests.clear()
    taken = []
    for number in range(900):
        full.client.requests.clear()
        full.save(FILES + number, f"new {number % 10}")
        taken.append(full.client.requests.total())

    rounds = [count for count in taken if count > 6]
    assert len(rounds) == 9
    assert max(rounds) <= rounds[0] + 10  # the listing has some pages more: a note of each session
    assert sum(taken) <= full.most(900)


def test_it_keeps_few_sessions_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.sweep._OLDEST", 3)
    full = Full()
    full.clock.advance(timedelta(hours=1))
    full.save(FILES)

    left = [len(full.store.session(f"{number}").files()) for number in range(SESSIONS)]
    assert sorted(left) == [0] * 10 + [10] * (SESSIONS - 10)


def test_saves_that_make_room_take_few_requests_more() -> None:
    """A twentieth of the store is freed at once, so that few of them make room."""
    full = Full()
    full.clock.advance(timedelta(hours=1))
    full.client.requests.clear()
    for number in range(SAVES):
        full.save(FILES + number)

    assert full.client.requests.total() <= full.most(SAVES)
