"""Events: told to whoever asked, and no callback can do harm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import pytest

from sessionstore import SessionStore
from sessionstore.events import KINDS, Event, Events
from sessionstore.testing import FakeClock
from tests.support.stores import HOUR, MINUTE, Heard, in_threads, memory_store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[SessionStore]:
    with memory_store(clock) as store:
        yield store


def an_event(clock: FakeClock, kind: str = "saved") -> Event:
    return Event(kind, "alice", None, "a", 3, "saved", clock.now())


def test_the_kinds_are_these() -> None:
    assert set(KINDS) == {
        "saved", "deduplicated", "deleted", "expired", "dropped", "ended", "resumed",
        "limit_exceeded", "sweep_started", "sweep_finished", "sweep_held", "sweep_failed",
        "copied", "copy_finished",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_listened_to(store: SessionStore, kind: str) -> None:
    heard: list[Event] = []
    store.on(kind, heard.append)
    store.emit(kind, reason="for a test")
    assert [(event.kind, event.reason) for event in heard] == [(kind, "for a test")]


def test_another_kind_is_refused_and_names_the_kinds(store: SessionStore) -> None:
    with pytest.raises(
        ValueError, match=r"event kind 'save': choose one of saved, .*sweep_failed, "
    ):
        store.on("save", print)


def test_an_event_says_what_where_and_when(store: SessionStore, clock: FakeClock) -> None:
    heard = Heard(store)
    clock.advance(HOUR)
    store.session("alice", "alice@example.org").put("a", b"cat")
    assert heard.next() == Event(
        "saved", "alice", "alice@example.org", "a", 3, "saved", clock.now()
    )


def test_an_event_cannot_be_changed(clock: FakeClock) -> None:
    with pytest.raises(FrozenInstanceError):
        an_event(clock).size = 7  # type: ignore[misc]  # the point of the test


def test_only_the_kind_that_was_asked_for_is_told(store: SessionStore) -> None:
    heard = Heard(store, "deleted")
    store.session("alice").put("a", b"cat")
    store.session("alice").delete("a")
    assert heard.kinds() == ["deleted"]


def test_what_on_returns_ends_it(store: SessionStore) -> None:
    heard: list[Event] = []
    stop = store.on("saved", heard.append)
    store.session("alice").put("a", b"cat")
    stop()
    stop()
    store.session("alice").put("b", b"cat")
    assert [event.name for event in heard] == ["a"]


def test_one_callback_s_end_is_not_another_s(store: SessionStore) -> None:
    first: list[Event] = []
    second: list[Event] = []
    stop = store.on("saved", first.append)
    store.on("saved", second.append)
    stop()
    store.session("alice").put("a", b"cat")
    assert (len(first), len(second)) == (0, 1)


def test_callbacks_are_called_in_their_order(store: SessionStore) -> None:
    order: list[str] = []
    for callback in (lambda _: order.append("a"), lambda _: order.append("b")):
        store.on("saved", callback)
    store.session("alice").put("a", b"cat")
    assert order == ["a", "b"]


def test_a_callback_that_raises_is_logged_and_the_next_is_told(
    store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Event) -> None:
        raise ZeroDivisionError

    store.on("saved", fails)
    heard = Heard(store, "saved")
    file = store.session("alice").put("a", b"cat")
    assert (heard.kinds(), file.read()) == (["saved"], b"cat")
    assert "A callback for 'saved' failed; the store goes on." in caplog.text


@pytest.mark.parametrize(
    "kind", ["saved", "deduplicated", "deleted", "dropped", "ended", "resumed"]
)
def test_a_callback_that_raises_never_reaches_the_caller(store: SessionStore, kind: str) -> None:
    def fails(_: Event) -> None:
        raise ZeroDivisionError

    store.on(kind, fails)
    session = store.session("alice")
    session.put("a", b"cat")
    session.put("b", b"cat")
    session.delete("a")
    session.end()
    session.resume()
    session.drop()
    assert session.files() == []


def test_an_interrupt_in_a_callback_is_not_swallowed(store: SessionStore) -> None:
    def interrupted(_: Event) -> None:
        raise KeyboardInterrupt

    store.on("saved", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.session("alice").put("a", b"cat")


def test_a_callback_may_use_the_store(store: SessionStore) -> None:
    def copy(event: Event) -> None:
        if event.session_id == "alice":
            store.session("bob").put(event.name or "", store.session("alice").read("a"))

    store.on("saved", copy)
    store.session("alice").put("a", b"cat")
    assert store.session("bob").read("a") == b"cat"


def test_a_callback_may_end_itself(store: SessionStore) -> None:
    heard: list[Event] = []

    def once(event: Event) -> None:
        heard.append(event)
        stop()

    stop = store.on("saved", once)
    for name in "abc":
        store.session("alice").put(name, b"cat")
    assert [event.name for event in heard] == ["a"]


def test_nothing_is_made_for_nobody() -> None:
    events = Events()
    stop = events.on("saved", print)
    wanted = events.wanted("saved"), events.wanted("deleted")
    stop()
    assert (wanted, events.wanted("saved")) == ((True, False), False)


def test_threads_may_come_and_go_while_events_are_told(clock: FakeClock) -> None:
    events = Events()
    told = threading.Semaphore(0)
    events.on("saved", lambda _: told.release())

    def come_and_go(_: int) -> None:
        for _ in range(100):
            stop = events.on("saved", lambda _: None)
            events.emit(an_event(clock))
            stop()

    in_threads(8, target=come_and_go)
    assert len(events.callbacks["saved"]) == 1
    assert all(told.acquire(blocking=False) for _ in range(800))


def test_stores_do_not_hear_each_other(clock: FakeClock) -> None:
    one, two = memory_store(clock), memory_store(clock)
    heard = Heard(two)
    one.session("alice").put("a", b"cat", ttl=MINUTE)
    assert heard.kinds() == []
