"""A linger of zero on a bucket that dates in whole seconds: gone at once, unless in use again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pytest

from sessionstore import Retention, SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.backend import AT_ONCE
from sessionstore.testing import FakeClock
from sessionstore.wrapping import wrap_methods
from tests.support.object_client import (
    Answer,
    DatelessObjectClient,
    FakeBucket,
    FakeObjectClient,
    Request,
)
from tests.support.stores import PATIENCE, timers_rest

T = TypeVar("T")

Open = Callable[[], SessionStore]


@pytest.fixture
def clock() -> FakeClock:
    """A clock near the end of a second, so that a client's idea of the store's time is behind."""
    clock = FakeClock()
    clock.advance(timedelta(seconds=0.9))
    return clock


@pytest.fixture(params=[FakeObjectClient, DatelessObjectClient])
def open_store(request: pytest.FixtureRequest, clock: FakeClock) -> Open:
    bucket = FakeBucket(clock.now)

    def open_store() -> SessionStore:
        backend = ObjectBackend(request.param(bucket), elapsed=bucket.seconds)
        return SessionStore(backend, clock=clock, retention=Retention(linger=timedelta(0)))

    return open_store


def test_the_files_are_gone_when_end_returns(open_store: Open, clock: FakeClock) -> None:
    with open_store() as store:
        clock.advance(timedelta(seconds=0.2))
        session = store.session("visitor")
        session.put("cat.png", b"cat")
        session.end()
        assert session.files() == []
        assert list(store.sessions()) == []


def test_a_sweep_takes_what_a_dead_process_left_ended(open_store: Open, clock: FakeClock) -> None:
    with open_store() as store:
        clock.advance(timedelta(seconds=0.2))
        session = store.session("visitor")
        session.put("cat.png", b"cat")
        store.backend.end(session.sid)
        assert [row.action for row in store.sweep()] == ["drop"]


def test_a_visitor_who_came_back_within_the_second_keeps_the_files(
    open_store: Open, clock: FakeClock
) -> None:
    with open_store() as one, open_store() as other:
        clock.advance(timedelta(seconds=0.2))
        one.session("visitor").put("cat.png", b"cat")

        def after_a_resume(drop: Callable[..., Any]) -> Callable[..., Any]:
            """After the end was seen, and before the drop."""

            def dropped(*arguments: Any, **options: Any) -> Any:
                other.session("visitor").resume()
                other.session("visitor").put("dog.png", b"dog")
                return drop(*arguments, **options)

            return dropped

        one.wrap(lambda backend: wrap_methods(backend, {"drop": after_a_resume}))
        one.session("visitor").end()
        assert [file.name for file in other.session("visitor").files()] == ["cat.png", "dog.png"]


def test_a_sweep_spares_who_came_back_within_the_second(open_store: Open) -> None:
    with open_store() as one, open_store() as other:
        session = one.session("visitor")
        session.put("cat.png", b"cat")
        one.backend.end(session.sid)
        one.on("sweep_started", lambda _: other.session("visitor").resume())
        assert [row.action for row in one.sweep()] == ["hold"]
        assert [file.name for file in other.session("visitor").files()] == ["cat.png"]


class Several(FakeObjectClient):
    """A client of a distant bucket, where ``most`` deletes wait for each other."""

    at_once: ClassVar[int] = 2
    most: ClassVar[int] = AT_ONCE

    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(bucket)
        self._together = threading.Barrier(self.most)
        self._lock = threading.Lock()
        self._now = self.peak = 0

    def send(self, request: Request[T]) -> Answer[T]:
        if request.verb != "DELETE":
            return super().send(request)
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
        self._together.wait(PATIENCE)
        with self._lock:
            self._now -= 1
        return super().send(request)


def test_visitors_who_leave_together_are_dropped_side_by_side(clock: FakeClock) -> None:
    """Each by one listing and one deletion; and never more at once than a bucket is worth."""
    bucket = FakeBucket(clock.now)
    client = Several(bucket)
    backend = ObjectBackend(client, elapsed=bucket.seconds)
    with SessionStore(backend, clock=clock) as store:
        for number in range(4 * AT_ONCE):
            store.session(f"{number}").add(b"cat")
            store.session(f"{number}").end()
        clock.settle()
        client.requests.clear()
        clock.advance(store.retention.linger + timedelta(seconds=1))
        timers_rest(store)

        assert not store._timers._due
        assert client.peak == AT_ONCE
        assert client.requests == {"LIST": 4 * AT_ONCE, "DELETE": 4 * AT_ONCE}
        assert list(store.sessions()) == []


def test_a_visitor_whom_another_replica_kept_is_looked_at_again(clock: FakeClock) -> None:
    """When the drop finds the session in use: one listing more, to see when it is due."""
    bucket = FakeBucket(clock.now)
    client = FakeObjectClient(bucket)
    with SessionStore(ObjectBackend(client, elapsed=bucket.seconds), clock=clock) as store:
        session, linger = store.session("visitor"), store.retention.linger
        session.put("cat.png", b"cat")
        session.end()
        clock.settle()
        clock.advance(linger - timedelta(seconds=30))
        ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds).touch(session.sid)
        client.requests.clear()
        clock.advance(timedelta(seconds=31))
        clock.settle()
        counted, spared = dict(client.requests), session.files()
        clock.advance(linger)
        timers_rest(store)

        assert counted == {"LIST": 2}
        assert spared
        assert not session.files()
