"""Which visitors are here, as this process sees it, and what the store is told about them.

Three sources speak: heartbeats open and close, events use sessions, files are saved. The store
hears ``resume``, ``touch`` and ``end``, always from a worker thread, one verb at a time for each
session, and the last word wins: a close that follows a reconnect is never overtaken by it.

* The last heartbeat of a session closes because the client went away: it ends.
* A heartbeat opens, or an event arrives after the end: it is resumed. An event that arrived
  *before* the visitor left does not resume it however late it runs, and what it saves afterwards
  ends again, so a slow handler leaves nothing behind.
* A server that stops ends nothing: the visitors are still there, and may come back to the next.

Session ids come from the client, so a stranger can name as many as it likes. Sessions that an
event of this process used are told of at once; for others (forged ones, or those of another
replica or an earlier process) the store is asked at most ``STRANGERS`` times, refilled at
``STRANGERS_PER_SECOND``. What is not told then is left to the sweep.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionstore.events import Event
    from sessionstore.store import SessionStore

REMEMBERED: Final = 10_000
"""Visitors remembered beside those with an open heartbeat; Gradio keeps as many sessions' state."""

STRANGERS: Final = 32
STRANGERS_PER_SECOND: Final = 8.0
WORKERS: Final = 4

Verb = Literal["resume", "touch", "end"]

log = logging.getLogger("sessionstore")


class Visitor(NamedTuple):
    """A session as its client and owner name it. The id is as hostile as the client likes."""

    id: str
    owner: str | None


@dataclass(slots=True)
class _Presence:
    heartbeats: int = 0
    used: bool = False
    left: int | None = None
    """The moment the last heartbeat closed; None while the visitor is here or never had one."""
    resumed: int = 0
    """The arrival of the last request that resumed it: once is enough for each."""
    wanted: Verb | None = None
    telling: bool = False


class Budget:
    """A token bucket: at most ``burst`` at once, ``rate`` per second in the long run."""

    def __init__(
        self, burst: float, rate: float, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._rate, self._seconds = burst, rate, seconds
        self._left, self._at = burst, seconds()

    def take(self) -> bool:
        """Whether there is one left, which is then taken."""
        now = self._seconds()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Presences:
    """The visitors of one store in this process. All methods may be called from any thread."""

    def __init__(self, store: SessionStore, strangers: Budget | None = None) -> None:
        self._store = store
        self._strangers = strangers or Budget(STRANGERS, STRANGERS_PER_SECOND)
        self._lock = threading.Lock()
        self._moments = itertools.count(1)
        self._visitors: OrderedDict[Visitor, _Presence] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._stop_listening: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to tell the store. Before that, and after ``stop``, nothing is told."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(WORKERS, "sessionstore-presence")
                self._stop_listening = self._store.on("saved", self._saved)

    def stop(self) -> None:
        """Finish what was to be told, and tell nothing more."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            self._stop_listening()
            pool.shutdown()

    def moment(self) -> int:
        """A mark in this process's order of arrivals and departures."""
        return next(self._moments)

    def opened(self, visitor: Visitor) -> None:
        """A heartbeat of the visitor opened. Raises InvalidName for an id that no session has."""
        self._store.session(*visitor)
        with self._lock:
            presence = self._remember(visitor)
            presence.heartbeats += 1
            presence.left = None
            self._tell(visitor, presence, "resume")

    def closed(self, visitor: Visitor, *, left: bool) -> None:
        """A heartbeat closed: because the client ``left``, or because the server stops."""
        with self._lock:
            presence = self._visitors[visitor]
            presence.heartbeats -= 1
            if left and presence.heartbeats == 0:
                presence.left = self.moment()
                self._tell(visitor, presence, "end")

    def used(self, visitor: Visitor, arrived: int, *, wait: bool) -> None:
        """An event that came in at the moment ``arrived`` uses the visitor's session.

        With ``wait`` a resume is told before this returns; an event loop must not wait.
        """
        with self._lock:
            presence = self._remember(visitor)
            presence.used = True
            late = presence.left is not None and arrived <= presence.left
            if late or presence.heartbeats or presence.resumed == arrived:
                return
            presence.left, presence.resumed = None, arrived
            mine = self._tell(visitor, presence, "resume", here=wait)
        if mine:
            self._work(visitor)

    def here(self) -> list[Visitor]:
        """The visitors with an open heartbeat."""
        with self._lock:
            return [each for each, presence in self._visitors.items() if presence.heartbeats]

    def beat(self) -> None:
        """Touch the session of every visitor with an open heartbeat."""
        with self._lock:
            here = [each for each in self._visitors.items() if each[1].heartbeats]
            for visitor, presence in here:
                if presence.wanted is None:
                    self._tell(visitor, presence, "touch")

    def _saved(self, event: Event) -> None:
        """A save after its visitor left makes, or keeps, a session that must end too."""
        visitor = Visitor(event.session_id or "", event.owner)
        with self._lock:
            presence = self._visitors.get(visitor)
            if presence is not None and presence.left is not None:
                self._tell(visitor, presence, "end")

    def _remember(self, visitor: Visitor) -> _Presence:
        presence = self._visitors.setdefault(visitor, _Presence())
        self._visitors.move_to_end(visitor)
        if len(self._visitors) > REMEMBERED:
            self._forget()
        return presence

    def _forget(self) -> None:
        """Forget the one not seen for longest; those with a heartbeat stay, however many."""
        for visitor, presence in self._visitors.items():
            if not presence.heartbeats and not presence.telling:
                del self._visitors[visitor]
                return

    def _tell(
        self, visitor: Visitor, presence: _Presence, verb: Verb, *, here: bool = False
    ) -> bool:
        """Have ``verb`` told; True when the caller is to do it, by ``_work``, after the lock."""
        if self._pool is None or not (presence.used or self._strangers.take()):
            return False
        presence.wanted = verb
        if presence.telling:
            return False
        presence.telling = True
        if not here:
            self._pool.submit(self._work, visitor)
        return here

    def _work(self, visitor: Visitor) -> None:
        while (verb := self._next(visitor)) is not None:
            try:
                getattr(self._store.session(*visitor), verb)()
            except Exception:
                # Nobody waits for the answer, and the sweep finds what was not told. The id stays
                # out of the log: whoever reads it there could use it.
                log.exception("Could not %s a visitor's session; the sweep will see to it.", verb)

    def _next(self, visitor: Visitor) -> Verb | None:
        with self._lock:
            presence = self._visitors[visitor]
            verb, presence.wanted = presence.wanted, None
            presence.telling = verb is not None
        return verb
