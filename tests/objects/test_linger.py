"""A linger of zero on a bucket that dates in whole seconds: gone at once, unless in use again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sessionstore import Retention, SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing import FakeClock
from sessionstore.wrapping import wrap_methods
from tests.support.object_client import DatelessObjectClient, FakeBucket, FakeObjectClient

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

        def then_resumed(identify: Callable[..., Any]) -> Callable[..., Any]:
            """After the end was seen, and before the drop."""

            def identified(*arguments: Any) -> Any:
                found = identify(*arguments)
                other.session("visitor").resume()
                other.session("visitor").put("dog.png", b"dog")
                return found

            return identified

        one.wrap(lambda backend: wrap_methods(backend, {"identify": then_resumed}))
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
