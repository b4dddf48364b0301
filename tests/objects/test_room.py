"""Saves at the edge of ``max_store`` on a bucket: what one takes more than another."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from itertools import count
from typing import TypeVar

import pytest

from sessionstore import LimitExceeded, Limits, SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing import FakeClock
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request

T = TypeVar("T")

FILES, SESSIONS, SIZE = 2000, 200, 100
SAVES = 60
A_SAVE = 3
"""The requests of a save of new content."""


class CountingClient(FakeObjectClient):
    """A client that counts the requests of the thread that makes room apart."""

    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(bucket)
        self.beside: Counter[str] = Counter()

    def send(self, request: Request[T]) -> Answer[T]:
        if threading.current_thread().name != "sessionstore-room":
            return super().send(request)
        self.beside[request.verb] += 1
        return self.bucket.carry_out(request)


class Full:
    """A store of so many files, at its limit or so many files below it."""

    def __init__(self, below: int = 0) -> None:
        self.clock = FakeClock()
        bucket = FakeBucket(self.clock.now)
        self.client = CountingClient(bucket)
        backend = ObjectBackend(self.client, elapsed=bucket.seconds)
        limits = Limits(max_store=(FILES + below) * SIZE)
        self.store = SessionStore(backend, clock=self.clock, limits=limits)
        for number in range(FILES):
            self.save(number, f"{number % SESSIONS}")
        self.forget()

    def save(self, number: int, id_: str = "new") -> None:
        self.store.session(id_).add(f"{number:0{SIZE}}".encode())

    def settle(self) -> None:
        """Wait until no thread makes room."""
        thread = self.store.ledger.room._thread
        if thread is not None:
            thread.join()

    def forget(self) -> None:
        """Count from now on, as if it were not known yet whether anything can make room."""
        self.settle()
        self.store.ledger.room.may_have_room()
        self.client.requests.clear()
        self.client.beside.clear()


def test_a_refused_save_takes_no_request() -> None:
    """For the first one the listing is looked at, in which all sessions are live."""
    full = Full()
    for number in range(SAVES):
        with pytest.raises(LimitExceeded, match="max_store"):
            full.save(FILES + number)

    assert full.client.requests == {}
    assert full.client.beside == {"LIST": 4}  # of 2,000 files, and of their sessions


def test_it_is_looked_again_when_a_visitor_left_or_some_seconds_later() -> None:
    full = Full()
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            full.save(FILES)
    full.store.session("7").end()

    full.save(FILES)
    full.settle()

    for number in range(1, 10):  # the other files of the session that ended
        full.save(FILES + number)
    with pytest.raises(LimitExceeded):
        full.save(FILES + 10)
    full.store.backend.end(full.store.session("8").sid)  # another replica's visitor
    full.clock.advance(timedelta(seconds=10))
    full.save(FILES + 10)
    full.store.close()  # and the timer of "7" with it


def test_a_save_that_can_never_fit_asks_for_nothing() -> None:
    full = Full()
    with pytest.raises(LimitExceeded, match="max_store"):
        full.store.session("new").add(b"x" * (FILES * SIZE + 1))

    assert full.client.requests + full.client.beside == {}


def test_it_is_looked_again_the_later_the_more_a_look_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sessionstore.room._A_PAGE", timedelta(seconds=30))
    full = Full()
    for wait, looks in ((0, 4), (59, 4), (1, 8)):  # 2,000 files
        full.clock.advance(timedelta(seconds=wait))
        with pytest.raises(LimitExceeded):
            full.save(FILES)
        assert full.client.beside["LIST"] == looks


@pytest.mark.parametrize("swept", [False, True])
def test_no_save_at_the_edge_takes_more_requests_than_another(*, swept: bool) -> None:
    full = Full()
    full.clock.advance(timedelta(hours=1))
    if swept:
        full.store.sweep()
    full.forget()
    taken = []
    for number in range(900):
        full.client.requests.clear()
        full.save(FILES + number, f"new {number % 10}")
        taken.append(full.client.requests.total())

    assert max(taken) <= A_SAVE + 1  # the first save of a session
    full.settle()
    assert full.client.beside.total() <= 3 * 900  # less than one: it frees a twentieth at once


@pytest.mark.parametrize("swept", [False, True])
def test_what_a_sweep_has_seen_is_not_listed_again(
    monkeypatch: pytest.MonkeyPatch, *, swept: bool
) -> None:
    full = Full()
    full.clock.advance(timedelta(hours=1))
    if swept:
        full.store.sweep()
    full.forget()
    listings, sessions = count(1), full.store.backend.sessions
    monkeypatch.setattr(full.store.backend, "sessions", lambda: (next(listings), sessions())[1])
    full.save(FILES)
    full.settle()

    assert next(listings) == (1 if swept else 2)


def test_room_is_made_before_it_is_needed() -> None:
    """When a fortieth is left a twentieth is freed, so that no save waits."""
    full = Full(below=53)  # a fortieth of the limit, and two
    full.clock.advance(timedelta(hours=1))
    full.save(FILES)
    assert full.client.beside == {}

    full.save(FILES + 1)
    full.settle()

    limit = (FILES + 53) * SIZE
    assert limit * 0.949 < (full.store.ledger.room.total or 0) <= limit * 0.95


def test_it_keeps_few_sessions_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.room._OLDEST", 3)
    full = Full()
    full.clock.advance(timedelta(hours=1))
    full.save(FILES)
    full.settle()

    left = sorted(len(full.store.session(f"{number}").files()) for number in range(SESSIONS))
    assert left[:10] == [0] * 10
    assert sum(left) >= FILES - FILES // 20 - 1  # maybe the room of the save beside the twentieth
