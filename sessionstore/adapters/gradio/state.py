"""``gr.State`` in the store: what an event sets on one replica, the next event gets on any other.

A value is a file of its visitor's session, so it is dropped with the session: one file for each
``gr.State``, below ``@/sessionstore/state/``, which is no path in Gradio's cache. An event reads
the files of the states that it uses, beside the claims of its inputs, and writes those that it
changed, beside the saves of its outputs. Only the reference is read if this process has the value.

A value with a ``delete_callback`` is deleted by one process: by the one that drops the session, or,
when its time to live is over, by the one that wrote it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar, copy_context
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessionstore._threads import Deferred, run_together
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.paths import OURS
from sessionstore.adapters.gradio.presence import Visitor
from sessionstore.adapters.gradio.recent_saves import KeptSession
from sessionstore.adapters.gradio.signed_pickles import OVERHEAD, Place, Refused, SignedPickles
from sessionstore.errors import Corrupted, FileNotStored, SessionStoreError
from sessionstore.limits import moving
from sessionstore.names import HIDDEN, is_private, session_key

if TYPE_CHECKING:
    from gradio import Blocks

    from sessionstore.adapters.gradio.presence import PresenceTracker
    from sessionstore.model import Reference, SessionKey
    from sessionstore.store import SessionStore
    from sessionstore.storedfile import StoredFile

STATE_SIZE: Final = 16 << 20
"""The default of the most bytes of one value's pickle."""

FOLDER: Final = f"{OURS}/state/"
"""The beginning of the names of values, below ``HIDDEN``."""

TAKEN: Final = f"{HIDDEN}{OURS}/taken"
"""The name of the mark that a session was taken over into another one."""

_STRANGERS: Final = 1000
"""The most sessions in memory whose id another owner has too."""

_TRIES: Final = 3

log: Final = logging.getLogger("sessionstore")


class Page(NamedTuple):
    """The page that an event is of: its app, and the memory of its session in Gradio."""

    demo: Blocks
    memory: Any


page: Final[ContextVar[Page | None]] = ContextVar("sessionstore_page", default=None)
"""The page of the event that runs now."""


@dataclass(slots=True)
class Value:
    """What this process knows of one value: the version that it has, None if it has none."""

    reference: Reference | None = None
    digest: bytes | None = None
    """The digest of the pickle of that version, None: the value is to be saved in any case."""
    since: datetime | None = None
    """The local time when it was set, as far as it is saved."""
    mine: bool = False
    """True if this process wrote that version."""
    unsaved: bool = False
    """True if a generator that has not ended may have changed it."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Memory:
    """The memory of one session in Gradio, and the visitor that it belongs to."""

    demo: Blocks
    visitor: Visitor
    values: dict[int, Value] = field(default_factory=dict)


class _Read(NamedTuple):
    """A version of a value, and the value with the digest of its pickle."""

    reference: Reference
    value: Any = None
    digest: bytes | None = None
    has_value: bool = False


class States:
    """The values of ``gr.State`` of one store's visitors, for one process."""

    def __init__(
        self, store: SessionStore, secret: bytes, presences: PresenceTracker, size: int | None
    ) -> None:
        """Keep values of up to ``size`` bytes in the store; with None keep nothing there."""
        self.store = store
        self.size = size
        self.pickles: Final = SignedPickles(store, secret)
        self._secret = secret
        self._presences = presences
        self._memories: weakref.WeakKeyDictionary[Any, _Memory] = weakref.WeakKeyDictionary()
        self._by_visitor: weakref.WeakValueDictionary[Visitor, Any] = weakref.WeakValueDictionary()
        self._strangers: OrderedDict[Visitor, Any] = OrderedDict()
        self._closed: weakref.WeakKeyDictionary[Any, datetime] = weakref.WeakKeyDictionary()
        self._demos: weakref.WeakSet[Blocks] = weakref.WeakSet()
        self._apps: weakref.WeakKeyDictionary[Blocks, str] = weakref.WeakKeyDictionary()
        self._initial: weakref.WeakKeyDictionary[Any, bytes | None] = weakref.WeakKeyDictionary()
        self._told: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._deferred = Deferred()

    def serve(self, demo: Blocks) -> None:
        """Note a demo, whose callbacks are called when a session is dropped."""
        self._demos.add(demo)

    def app_of(self, demo: Blocks) -> str:
        """Return the name of an app, which its processes share until its parts change."""
        if demo not in self._apps:
            self._apps[demo] = f"{compat.app_id(demo, self._secret):x}"
        return self._apps[demo]

    # Events

    def numbers(self, demo: Blocks, block_fn: Any) -> list[tuple[int, Any]]:
        """Return the states that an event uses and that are kept, each with its number."""
        used = compat.states_used(block_fn, demo) if self.size is not None else []
        kept = {id(block): number for number, block in enumerate(compat.states_of(demo))}
        for block in used:
            if id(block) not in kept:
                self._tell(block, demo, "only a state that the app has from its start is kept")
        return [(kept[id(block)], block) for block in used if id(block) in kept]

    def memory(self, demo: Blocks, state: Any, visitor: Visitor) -> Any:
        """Return the visitor's memory. Gradio's own belongs to the first owner who sends its id."""
        with self._lock:
            if self._memories.setdefault(state, _Memory(demo, visitor)).visitor == visitor:
                self._by_visitor[visitor] = state
                return state
            mine = self._strangers.setdefault(visitor, None) or compat.new_state(demo)
            self._strangers[visitor] = mine
            self._strangers.move_to_end(visitor)
            if len(self._strangers) > _STRANGERS:
                self._strangers.popitem(last=False)
            self._memories[mine] = _Memory(demo, visitor)
            self._by_visitor[visitor] = mine
            return mine

    def used(self, state: Any) -> None:
        """Note an event of a page: the hour after its closing begins again."""
        self._closed.pop(state, None)

    def value(self, state: Any, number: int) -> Value:
        return self._memories[state].values.setdefault(number, Value())

    def read(self, key: SessionKey, place: Place, known: Reference | None) -> _Read | None:
        """Return the newest version of a value, None if there is none.

        A version that is ``known``, or refused, has no value.
        """
        for _ in range(_TRIES):
            try:
                reference = self.store.backend.get(place.sid, name_of(place))
            except FileNotStored:
                return None
            if known is not None and reference.token == known.token:
                return _Read(known)
            try:
                value = self.opened(key, place, reference, {})
            except FileNotStored:
                continue  # it was replaced at this moment
            except Refused:
                return _Read(reference)
            return _Read(reference, value, self.digest(value, place.sid), has_value=True)
        return None

    def opened(
        self, key: SessionKey, place: Place, reference: Reference, files: Mapping[str, Reference]
    ) -> Any:
        """Read a version of a value; ``files`` as for ``SignedPickles.opened``. Raises Refused."""
        try:
            with self.store.backend.open(place.sid, reference) as stream:
                data = stream.read((self.size or 0) + OVERHEAD + 1)
            return self.pickles.opened(place, self._within(data), key, files)
        except (Refused, Corrupted) as error:
            log.warning(
                "A value of gr.State in the session %s was refused: %s. It starts with its initial "
                "value.", place.sid, error,
            )  # fmt: skip
            raise Refused(*error.args) from error

    def _within(self, data: bytes) -> bytes:
        if len(data) > (self.size or 0) + OVERHEAD:
            raise Refused(f"it has more bytes than state_size, {self.size}")
        return data

    def digest(self, value: Any, sid: str) -> bytes | None:
        """Return the digest of a value's pickle, None if it has none."""
        try:
            return hashlib.sha256(self.pickles.pickled(value, sid)).digest()
        except Exception:  # noqa: BLE001 - the value's own code; ``pickled`` tells it
            return None

    def pickled(self, block: Any, demo: Blocks, value: Any, sid: str) -> bytes | None:
        """Return the pickle of a value; None, and a line in the log, if it cannot be kept."""
        error: Exception | None = None
        for _ in range(_TRIES):  # another event of the session may change it meanwhile
            try:
                pickled = self.pickles.pickled(value, sid)
            except Exception as cause:  # noqa: BLE001 - the value's own code may raise anything
                error = cause
                continue
            if len(pickled) <= (self.size or 0):
                return pickled
            error = ValueError(f"it has {len(pickled)} bytes, and state_size is {self.size}")
            break
        self._tell(block, demo, f"{type(value).__name__}: {error}")
        return None

    def _tell(self, block: Any, demo: Blocks, why: str) -> None:
        if block not in self._told:
            self._told.add(block)
            log.warning(
                "A value of %s stays in the memory of this process, and another replica does not "
                "get it: %s.", compat.state_name(block, demo), why,
            )  # fmt: skip

    def initial(self, block: Any, sid: str) -> bytes | None:
        """Return the digest of the value that every process begins with; None: it is to be kept.

        What a function returns differs, and a ``delete_callback`` gets what an event has set.
        """
        if block not in self._initial:
            fixed = not callable(block.value) and not compat.has_callback(block)
            self._initial[block] = self.digest(deepcopy(block.value), sid) if fixed else None
        return self._initial[block]

    def write(self, key: SessionKey, place: Place, pickled: bytes) -> Reference:
        """Save a value, and list its session for the owner. Raises as ``Session.put``."""
        session, signed = KeptSession(self.store, key), self.pickles.signed(place, pickled)
        tasks: list[Callable[[], Any]] = [
            partial(session.put, name_of(place).removeprefix(HIDDEN), signed)
        ]
        if key.owner is not None:
            tasks.append(partial(self.store.owners.record, key.owner, key.sid))
        calls = [partial(copy_context().run, task) for task in tasks]
        file: StoredFile = run_together(calls, getattr(self.store.backend, "at_once", 1))[0]
        return file.reference

    def remove(self, place: Place) -> None:
        """Delete a value that the memory has another version of, which cannot be kept."""
        self.store.backend.delete(place.sid, [name_of(place)])

    # The end of a value

    def dropping(self, key: SessionKey) -> Callable[[], None] | None:
        """Return what to do when a session was dropped: its callbacks, with the values it had."""
        if is_private(key) or self.size is None:
            return None
        calls: list[Callable[[], None]] = []
        demos = {self.app_of(demo): demo for demo in list(self._demos)}
        wanted = {
            (app, number): block
            for app, demo in demos.items()
            for number, block in enumerate(compat.states_of(demo))
            if compat.has_callback(block)
        }
        try:
            files = list(self.store.backend.files(key.sid)) if wanted else []
            taken = [file.created for file in files if file.name == TAKEN]
            for place, reference in places_in(key.sid, files):
                block = wanted.get((place.app, place.number))
                lives_on = any(reference.created <= time for time in taken)
                if block is not None and not lives_on:
                    with suppress(Refused):  # its log line says so
                        calls.append(partial(_call, block, self.opened(key, place, reference, {})))
        except SessionStoreError as error:
            log.warning("A delete_callback of gr.State is not called: %s", error)
        return partial(self._dropped, Visitor(key.id, key.owner), calls)

    def _dropped(self, visitor: Visitor, calls: list[Callable[[], None]]) -> None:
        state = self._by_visitor.get(visitor)
        if state is not None:
            memory = self._memories[state]
            for number, block in enumerate(compat.states_of(memory.demo)):
                known = memory.values.pop(number, None)
                if known is not None and compat.has_value(state, block):
                    if known.reference is None and compat.set_since(state, block):
                        calls.append(partial(_call, block, compat.value_of(state, block)))
                    compat.forget_value(state, block)
        for call in calls:
            call()

    def take_over(
        self,
        older: SessionKey,
        mine: SessionKey,
        listed: Iterable[Reference],
        *,
        files: Mapping[str, Reference],
        moved: Callable[[str], str],
        page: Page,
    ) -> dict[int, Any]:
        """Save the values of another session in the one of this page; return them by component.

        ``files`` are the files of the new session that replace those of the other one, and
        ``moved`` returns a text with their paths.
        """
        visitor = Visitor(mine.id, mine.owner)
        memory, app = self.memory(*page, visitor), self.app_of(page.demo)
        blocks, values = compat.states_of(page.demo), {}
        for place, reference in places_in(older.sid, listed) if self.size is not None else ():
            if place.app != app or place.number >= len(blocks):
                continue
            with suppress(Refused):
                value = self.opened(mine, place, reference, files)
                value = self.pickles.with_texts(value, mine, moved)
                values[place.number] = value, reference
        for number, (value, reference) in values.items():
            pickled, place = self.pickles.pickled(value, mine.sid), Place(mine.sid, app, number)
            known, block = self.value(memory, number), blocks[number]
            age = max(self.store.now() - reference.created, timedelta(0))
            with moving(reference.size):
                known.reference, known.mine = self.write(mine, place, pickled), True
            known.digest, known.since = hashlib.sha256(pickled).digest(), datetime.now() - age  # noqa: DTZ005 - as Gradio
            compat.set_value(memory, block, value, known.since)
        return {id(blocks[number]): value for number, (value, _) in values.items()}

    def expire(self, holder: Any) -> None:
        """Delete the values that are too old, as Gradio does each second.

        Unlike Gradio, the hour of a closed page begins when it is closed, and a page that is open
        again is open; and a callback that raises stops nothing.
        """
        now, here = datetime.now(), {visitor.id for visitor in self._presences.here()}  # noqa: DTZ005 - as Gradio
        for session_id, state in compat.sessions_in(holder):
            if state.is_closed and session_id not in here:
                closed = now - self._closed.setdefault(state, now)
            else:
                self._closed.pop(state, None)
                closed = timedelta(0)
            for block, value, _ in list(state.state_components):
                since = compat.set_since(state, block) or now
                old = (now - since).total_seconds() > block.time_to_live
                if old or closed > compat.closed_for(state):
                    self._delete(holder.blocks, state, block, value, old=old)

    def _delete(self, demo: Blocks, state: Any, block: Any, value: Any, *, old: bool) -> None:
        compat.forget_value(state, block)
        memory = self._memories.get(state)
        numbers = [n for n, each in enumerate(compat.states_of(demo)) if each is block]
        known = memory.values.pop(numbers[0], None) if memory is not None and numbers else None
        if known is None or known.reference is None or memory is None:
            _call(block, value)
        elif old and known.mine:  # a copy of another process's value goes without a word
            sid = session_key(*memory.visitor).sid
            self._deferred.call(partial(self._over, sid, known.reference, block, value))

    def _over(self, sid: str, reference: Reference, block: Any, value: Any) -> None:
        """Delete a value whose time to live is over, unless it was set again elsewhere."""
        try:
            current = self.store.backend.get(sid, reference.name)
            if current == reference and self.store.backend.discard(sid, [reference]):
                _call(block, value)
        except FileNotStored:
            pass
        except SessionStoreError as error:
            log.warning("A value of gr.State whose time is over was not deleted: %s", error)

    def drain(self) -> None:
        self._deferred.drain()


def _call(block: Any, value: Any) -> None:
    try:
        block.delete_callback(value)
    except Exception:
        log.exception("A delete_callback of gr.State failed; nothing else waits for it.")


def name_of(place: Place) -> str:
    """Return the name of a value's file in its session."""
    return f"{HIDDEN}{FOLDER}{place.app}/{place.number}"


def places_in(sid: str, files: Iterable[Reference]) -> Iterator[tuple[Place, Reference]]:
    """Yield the values among the files of a session."""
    for reference in files:
        place = place_of(sid, reference.name)
        if place is not None:
            yield place, reference


def place_of(sid: str, name: str) -> Place | None:
    """Return the place of a file that ``name_of`` named, None for any other."""
    app, _, number = name.removeprefix(HIDDEN + FOLDER).partition("/")
    if not name.startswith(HIDDEN + FOLDER) or not number.isdecimal():
        return None
    return Place(sid, app, int(number))
