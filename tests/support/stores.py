"""Stores for the tests of policy, and what these tests look at: events, plans, threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sessionstore import Session, SessionStore
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.base import BaseStore, SessionHandle
from sessionstore.events import KINDS, Event
from sessionstore.plan import PlanRow
from sessionstore.testing import FakeClock

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

PATIENCE = 60.0
"""Real seconds after which something that does not happen is a failure."""


def memory_store(clock: FakeClock, place: Place | None = None, **policy: Any) -> SessionStore:
    """A store in memory; on a ``place`` of its own unless one is given to several."""
    return SessionStore(MemoryBackend(place or Place(), clock), clock=clock, **policy)


def local_store(root: Path, clock: FakeClock, **policy: Any) -> SessionStore:
    """A store on the disk."""
    return SessionStore.open(root, clock=clock, **policy)


def store_of(session: SessionHandle) -> SessionStore:
    """Return the store of a session, with its public verbs."""
    store = session.store
    assert isinstance(store, SessionStore)
    return store


class Heard:
    """What a store tells from now on, in order."""

    def __init__(self, store: BaseStore, *kinds: str) -> None:
        """Listen to some kinds of events, or to all."""
        self._queue: queue.Queue[Event] = queue.Queue()
        for kind in kinds or KINDS:
            store.on(kind, self._queue.put)

    def next(self) -> Event:
        """The next event, waited for: it may come from another thread."""
        return self._queue.get(timeout=PATIENCE)

    def all(self) -> list[Event]:
        """All that were told so far and not taken yet."""
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]

    def kinds(self) -> list[str]:
        """The kinds of ``all``."""
        return [event.kind for event in self.all()]


def names(session: Session) -> list[str]:
    return [file.name for file in session.files()]


def ids(store: SessionStore) -> list[str]:
    return sorted(session.id for session in store.sessions())


def brief(plan: Iterable[PlanRow]) -> list[tuple[str, str, str | None]]:
    """(action, session id, name) of each row."""
    return sorted((row.action, row.session_id, row.name or "") for row in plan)


def timers_rest(store: BaseStore) -> None:
    """Wait until the threads of the linger timers have nothing left to do."""
    while threads := list(store._timers._threads):
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def in_threads(count: int, *args: Any, target: Any) -> None:
    """Run ``target(number, *args)`` in so many threads at once, and wait for them."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        start.wait(PATIENCE)
        try:
            target(number, *args)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
