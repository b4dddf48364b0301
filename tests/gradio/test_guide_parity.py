"""Each tool of Gradio's guide to resource clean-up, and its counterpart here.

https://www.gradio.app/guides/resource-cleanup: ``delete_cache=(frequency, age)``, the cache cleared
at a restart, ``Blocks.unload``, and ``gr.State`` with ``time_to_live`` and ``delete_callback``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionstore import Retention, Session, SessionStore
from sessionstore.events import Event
from sessionstore.testing import FakeClock
from tests.support.stores import (
    HOUR,
    MINUTE,
    SECOND,
    Heard,
    local_store,
    memory_store,
    names,
    store_of,
    timers_rest,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hour(clock: FakeClock) -> Iterator[SessionStore]:
    """A store that waits an hour for visitors, as Gradio does for their state."""
    with memory_store(clock, retention=Retention(linger=HOUR)) as store:
        yield store


@pytest.fixture
def session(hour: SessionStore) -> Session:
    session = hour.session("visitor")
    session.put("image.webp", b"red")
    return session


def test_frequency_and_age(clock: FakeClock) -> None:
    """delete_cache=(60, 3600): every 60 seconds, what is older than an hour."""
    store = memory_store(clock, retention=Retention(max_age=HOUR))
    heard = Heard(store, "expired")
    store.session("visitor").put("old.webp", b"red")
    with store.sweeping(every=MINUTE):
        clock.advance(HOUR)
        clock.settle()
        store.session("another").put("young.webp", b"blue")
        clock.advance(MINUTE)
        event = heard.next()
    assert (event.name, names(store.session("another"))) == ("old.webp", ["young.webp"])


def test_clearing_at_restart(clock: FakeClock, tmp_path: Path) -> None:
    """The cache is deleted entirely when the server restarts: here that is a choice."""
    with local_store(tmp_path, clock) as before:
        before.session("visitor").put("image.webp", b"red")
    with local_store(tmp_path, clock, restart="keep") as kept:
        after_keep = names(kept.session("visitor"))
    with local_store(tmp_path, clock, restart="drop") as dropped:
        after_drop = names(dropped.session("visitor"))
        left = dropped.backend.stored().blobs
    assert (after_keep, after_drop, left) == (["image.webp"], [], 0)


def test_unload(clock: FakeClock) -> None:
    """Blocks.unload(delete_directory): the visitor's files go when the page is closed."""
    store = memory_store(clock, retention=Retention(linger=10 * SECOND))
    for id_ in ("closes", "stays"):
        store.session(id_).put("image.webp", id_.encode())
    store.session("closes").end()
    clock.advance(10 * SECOND)
    timers_rest(store)
    assert [names(store.session(id_)) for id_ in ("closes", "stays")] == [[], ["image.webp"]]


def test_time_to_live(session: Session, clock: FakeClock) -> None:
    """gr.State(time_to_live=...): gone before the session is closed, counted from the update."""
    session.put("image.webp", b"red", ttl=MINUTE)
    clock.advance(MINUTE - SECOND)
    session.put("image.webp", b"blue", ttl=MINUTE)
    clock.advance(MINUTE - SECOND)
    before = session.read("image.webp")
    clock.advance(SECOND)
    assert (before, "image.webp" in session) == (b"blue", False)


def test_delete_callback(session: Session, clock: FakeClock) -> None:
    """gr.State(delete_callback=...): called with what goes, for a file and for a session."""
    heard = Heard(session.store, "expired", "dropped")
    session.put("short.webp", b"green", ttl=MINUTE)
    clock.advance(MINUTE)
    store_of(session).sweep()
    session.end()
    clock.advance(HOUR)
    timers_rest(session.store)
    told = [(event.kind, event.session_id, event.name) for event in heard.all()]
    assert told == [("expired", "visitor", "short.webp"), ("dropped", "visitor", None)]


def test_a_delete_callback_that_raises_stops_nothing(
    hour: SessionStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In Gradio it ends the loop that deletes state, for ever."""

    def fails(_: Event) -> None:
        raise ZeroDivisionError("STATE DELETED")

    for kind in ("expired", "dropped"):
        hour.on(kind, fails)
    for number in range(3):
        hour.session(f"{number}").put("image.webp", b"red", ttl=MINUTE)
    clock.advance(MINUTE)
    hour.sweep()
    for number in range(3):
        hour.session(f"{number}").put("image.webp", b"red", ttl=MINUTE)
    clock.advance(MINUTE)
    hour.sweep()
    assert [hour.session(f"{number}").files() for number in range(3)] == [[], [], []]
    assert hour.usage().files == 0
    assert len(caplog.records) == 6


def test_the_clock_starts_at_the_close(session: Session, clock: FakeClock) -> None:
    """In Gradio it starts at the last write: state of two hours ago is gone the instant."""
    clock.advance(2 * HOUR)
    session.end()
    clock.settle()
    at_once = names(session)
    clock.advance(HOUR - SECOND)
    clock.settle()
    just_before = names(session)
    clock.advance(SECOND)
    timers_rest(session.store)
    assert (at_once, just_before, names(session)) == (["image.webp"], ["image.webp"], [])


def test_a_reconnect_resets_it(session: Session, clock: FakeClock) -> None:
    """In Gradio a session stays closed, and its state is deleted while the page is open."""
    session.end()
    clock.advance(HOUR - SECOND)
    session.resume()
    clock.advance(5 * HOUR)
    store_of(session).sweep()
    timers_rest(session.store)
    reconnected = names(session)
    session.end()
    clock.advance(HOUR - SECOND)
    clock.settle()
    closed_again = names(session)
    assert (reconnected, closed_again) == (["image.webp"], ["image.webp"])


def test_every_visitor_has_a_directory_of_their_own(hour: SessionStore) -> None:
    """user_dir = current_dir / str(request.session_hash), without its traps."""
    hashes = ["k3j9x", "../k3j9x", "K3J9X"]
    for number, session_hash in enumerate(hashes):
        hour.session(session_hash).put("image.webp", b"%d" % number)
    assert [hour.session(each).read("image.webp") for each in hashes] == [b"0", b"1", b"2"]


def test_what_a_crash_left_is_found_again(clock: FakeClock, tmp_path: Path) -> None:
    """Gradio walks path sets in memory: after a restart it has forgotten every file."""
    with local_store(tmp_path, clock) as before:
        before.session("visitor").put("image.webp", b"red")
        before.session("visitor").end()
    clock.advance(HOUR)
    with local_store(tmp_path, clock) as after:
        after.sweep()
        assert after.usage().files == 0
