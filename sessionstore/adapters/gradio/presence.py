"""The visitors that are present in this process, and the calls to the store for them.

A worker thread makes the calls (``resume``, ``touch`` and ``end``), one at a time for each session,
and only the newest one that waits: a close after a reconnect is never overtaken by it. An event
that arrived *before* the visitor left does not resume the session, however late it runs; when it
saves a file afterwards, the session is ended again. When a server stops, no session ends.

Session ids come from the client, so an attacker can send any number of them. For sessions that no
event of this process used (forged ones, or those of another replica) a token bucket limits the
calls. Beyond it the sweep decides.
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

from sessionstore._threads import start_all
from sessionstore.adapters import cookies

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sessionstore.events import Event
    from sessionstore.store import SessionStore

ARRIVED: Final = "sessionstore.arrived"
"""The key of a request's arrival in its scope (see ``PresenceTracker.moment``)."""

CALLER: Final = "sessionstore.caller"
"""The key of the visitor whose page calls a component's function, in the scope of the request."""

REMEMBERED: Final = 10_000
"""The most visitors remembered without an open heartbeat; Gradio keeps the state of as many."""

STRANGERS: Final = 32
STRANGERS_PER_SECOND: Final = 8.0
WORKERS: Final = 16

_moments = itertools.count(1)  # of the process: a reload hands visitors to another tracker

Verb = Literal["resume", "touch", "end"]

log: Final = logging.getLogger("sessionstore")


class Visitor(NamedTuple):
    """A session id and its owner. The id is chosen by the client and can be hostile."""

    id: str
    owner: str | None


def mcp_visitor(session_id: str) -> Visitor:
    """Return the visitor for an MCP session. The id is a secret, so only its digest is kept."""
    return Visitor("mcp", cookies.of_secret("mcp", session_id))


@dataclass(slots=True)
class _Presence:
    heartbeats: int = 0
    running: int = 0
    """The events of the visitor that run now: until they are over, the session does not end."""
    used: bool = False
    left: int | None = None
    """The moment when the last heartbeat closed; None if one is open or none ever was."""
    resumed: int = 0
    """The arrival of the last request that resumed it: each request resumes once."""
    moved: bool = False
    """True if the session existed when the heartbeat opened: it may have been another replica's."""
    touched: datetime | None = None
    """The time of the last touch, or of the opening."""
    wanted: Verb | None = None
    scheduled: bool = False


class TokenBucket:
    """A token bucket: at most ``burst`` at once, ``rate`` per second in the long run."""

    def __init__(
        self, burst: float, rate: float, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._rate, self._seconds = burst, rate, seconds
        self._left, self._at = burst, seconds()

    def take(self) -> bool:
        """Take one token; return False when the bucket is empty."""
        now = self._seconds()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class PresenceTracker:
    """The visitors of one store in this process. All methods may be called from any thread."""

    def __init__(self, store: SessionStore, strangers: TokenBucket | None = None) -> None:
        self._store = store
        self._strangers = strangers or TokenBucket(STRANGERS, STRANGERS_PER_SECOND)
        self._lock = threading.Lock()
        self._visitors: OrderedDict[Visitor, _Presence] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._newest = [self]
        """The tracker that has the visitors now; after reloads all trackers share the list."""
        self._stop_listening: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to call the store. No call is made before this and after ``stop``."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(WORKERS, "sessionstore-presence")
                start_all(self._pool, WORKERS)
                self._stop_listening = self._store.on("saved", self._saved)

    def stop(self) -> None:
        """Finish the calls that wait, and make no more."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            self._stop_listening()
            pool.shutdown()

    def take_over(self, before: PresenceTracker) -> None:
        """Take the visitors of another tracker, which passes the ends of their heartbeats on."""
        with before._lock, self._lock:
            self._newest = before._newest
            self._newest[0] = self
            for visitor, presence in before._visitors.items():
                mine = self._remember(visitor)
                mine.heartbeats += presence.heartbeats
                mine.running += presence.running
                mine.used, mine.left = presence.used, presence.left
            before._visitors.clear()

    def moment(self) -> int:
        """Return the next number in this process's order of arrivals and departures."""
        return next(_moments)

    def opened(self, visitor: Visitor) -> None:
        """Note that a heartbeat of the visitor opened. Raises InvalidName for an invalid id."""
        self._store.session(*visitor)
        with self._lock:
            presence = self._remember(visitor)
            presence.heartbeats += 1
            presence.left = None
            self._schedule(visitor, presence, "resume")

    def closed(self, visitor: Visitor, *, left: bool) -> None:
        """Note that a heartbeat closed: the client ``left``, or else the server stops."""
        with self._lock:
            newest = self._newest[0]
            if newest is not self:
                newest.closed(visitor, left=left)
                return
            presence = self._visitors[visitor]
            presence.heartbeats -= 1
            if left and presence.heartbeats == 0:
                presence.left = self.moment()
                if not presence.running:
                    self._schedule(visitor, presence, "end")

    def began(self, visitor: Visitor) -> None:
        """Note that an event of the visitor runs, until ``finished``."""
        with self._lock:
            self._remember(visitor).running += 1

    def finished(self, visitor: Visitor) -> None:
        with self._lock:
            newest, presence = self._newest[0], self._visitors.get(visitor)
            if newest is not self:
                newest.finished(visitor)
            elif presence is not None:
                presence.running -= 1
                if presence.left is not None and not presence.running:
                    self._schedule(visitor, presence, "end")

    def used(self, visitor: Visitor, arrived: int, *, wait: bool) -> None:
        """Note that an event that arrived at the moment ``arrived`` uses the visitor's session.

        With ``wait`` the session is resumed before this returns; an event loop must not wait.
        """
        with self._lock:
            presence = self._remember(visitor)
            presence.used = True
            late = presence.left is not None and arrived <= presence.left
            if late or presence.heartbeats or presence.resumed == arrived:
                return
            presence.left, presence.resumed = None, arrived
            mine = self._schedule(visitor, presence, "resume", here=wait)
        if mine:
            self._work(visitor)

    def here(self) -> list[Visitor]:
        with self._lock:
            return [visitor for visitor, presence in self._visitors.items() if presence.heartbeats]

    def beat(self) -> None:
        """Touch the sessions of visitors with an open heartbeat, each once in a while.

        One that another replica may still end, because a connection there is lost and not closed
        yet, is touched at every beat: that postpones the end.
        """
        now, often = self._store.now(), self._store.touch_interval
        opened = now - self._store.live_interval  # at the earliest, if this is the first beat
        with self._lock:
            for visitor, presence in list(self._visitors.items()):
                present = presence.heartbeats or presence.running
                if not present or presence.wanted is not None:
                    continue
                # The replica that has the heartbeat of a running event's page may end the session.
                moved = presence.moved or not presence.heartbeats
                presence.touched = presence.touched or opened
                if moved or now - presence.touched >= often:
                    presence.touched = now
                    self._schedule(visitor, presence, "touch")

    def _saved(self, event: Event) -> None:
        """End a session that a save made or kept after its visitor left."""
        visitor = Visitor(event.session_id or "", event.owner)
        with self._lock:
            presence = self._visitors.get(visitor)
            if presence is not None and presence.left is not None and not presence.running:
                self._schedule(visitor, presence, "end")

    def _remember(self, visitor: Visitor) -> _Presence:
        presence = self._visitors.setdefault(visitor, _Presence())
        self._visitors.move_to_end(visitor)
        if len(self._visitors) > REMEMBERED:
            # Forget the visitor without a heartbeat that was not seen for longest.
            for each, known in self._visitors.items():
                if not (known.heartbeats or known.running or known.scheduled):
                    del self._visitors[each]
                    break
        return presence

    def _schedule(
        self, visitor: Visitor, presence: _Presence, verb: Verb, *, here: bool = False
    ) -> bool:
        """Schedule ``verb``. Return True if the caller must run ``_work`` after the lock."""
        if self._pool is None or not (presence.used or self._strangers.take()):
            return False
        presence.wanted = verb
        if presence.scheduled:
            return False
        presence.scheduled = True
        if not here:
            self._pool.submit(self._work, visitor)
        return here

    def _work(self, visitor: Visitor) -> None:
        while (verb := self._take_verb(visitor)) is not None:
            try:
                exists = getattr(self._store.session(*visitor), verb)()
                if verb == "resume" and exists:
                    self._note_moved(visitor)
            except Exception:
                # No caller waits for the result, and the sweep does not need this call. The id is
                # not logged: a reader of the log could use it.
                log.exception("Could not %s a visitor's session; the sweep will handle it.", verb)

    def _note_moved(self, visitor: Visitor) -> None:
        with self._lock:
            presence = self._visitors.get(visitor)
            if presence is not None and presence.heartbeats:
                presence.moved = True

    def _take_verb(self, visitor: Visitor) -> Verb | None:
        with self._lock:
            presence = self._visitors.get(visitor) or _Presence()  # another tracker took it over
            verb, presence.wanted = presence.wanted, None
            presence.scheduled = verb is not None
        return verb
