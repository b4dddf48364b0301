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
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessionstore._threads import Deferred, run_waiting
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.paths import OURS
from sessionstore.adapters.gradio.presence import Visitor
from sessionstore.adapters.gradio.recent_saves import KeptSession
from sessionstore.adapters.gradio.signed_pickles import OVERHEAD, Place, Refused, SignedPickles
from sessionstore.errors import Corrupted, FileNotStored, SessionStoreError
from sessionstore.names import HIDDEN, is_private, session_key

if TYPE_CHECKING:
    from gradio import Blocks

    from sessionstore.adapters.gradio.presence import PresenceTracker
    from sessionstore.model import Reference, SessionKey
    from sessionstore.store import SessionStore

STATE_SIZE: Final = 16 << 20
"""The default of the most bytes of one value's pickle."""

FOLDER: Final = f"{OURS}/state/"
"""The beginning of the names of values, below ``HIDDEN``."""

_STRANGERS: Final = 1000
"""The most sessions in memory whose id another owner has too."""

_TRIES: Final = 3

log: Final = logging.getLogger("sessionstore")


@dataclass(slots=True)
class _Value:
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
    values: dict[int, _Value] = field(default_factory=dict)


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

    def of_event(
        self,
        demo: Blocks,
        block_fn: Any,
        state: Any,
        visitor: Visitor,
        touch: Callable[[], None],
    ) -> EventStates | None:
        """Return the values that an event of this visitor uses, None if it uses none.

        ``touch`` is called when one was saved.
        """
        used = compat.states_used(block_fn, demo) if self.size is not None else []
        kept = {id(block): number for number, block in enumerate(compat.states_of(demo))}
        for block in used:
            if id(block) not in kept:
                self._tell(block, demo, "only a state that the app has from its start is kept")
        numbers = [(kept[id(block)], block) for block in used if id(block) in kept]
        if not numbers:
            return None
        memory = self._memory(demo, state, visitor)
        key = session_key(*visitor)
        return EventStates(self, demo, memory, key=key, numbers=numbers, touch=touch)

    def _memory(self, demo: Blocks, state: Any, visitor: Visitor) -> Any:
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

    def value(self, state: Any, number: int) -> _Value:
        return self._memories[state].values.setdefault(number, _Value())

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
        self, key: SessionKey, place: Place, reference: Reference, files: dict[str, Reference]
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
        """Save a value. Raises as ``Session.put``."""
        session = KeptSession(self.store, key)
        name = name_of(place).removeprefix(HIDDEN)
        return session.put(name, self.pickles.signed(place, pickled)).reference

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
            for place, reference in self.places(key.sid) if wanted else ():
                block = wanted.get((place.app, place.number))
                if block is not None:
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

    def places(self, sid: str) -> Iterator[tuple[Place, Reference]]:
        """Yield the values that a session has in the store; one listing."""
        for reference in self.store.backend.files(sid):
            place = place_of(sid, reference.name)
            if place is not None:
                yield place, reference

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


class EventStates:
    """The values of ``gr.State`` that one event uses."""

    def __init__(
        self,
        states: States,
        demo: Blocks,
        state: Any,
        *,
        key: SessionKey,
        numbers: list[tuple[int, Any]],
        touch: Callable[[], None],
    ) -> None:
        self.states = states
        self.demo = demo
        self.state = state
        """The session's memory in Gradio, that of this visitor."""
        self.key = key
        self._numbers = numbers
        self._touch = touch
        self._loading: asyncio.Task[None] | None = None

    def load(self) -> asyncio.Task[None]:
        """Begin to read what other replicas have set; ``loaded`` waits for it."""
        self.state.is_closed = False  # an event shows that its page is open
        self._loading = asyncio.create_task(self._load())
        return self._loading

    async def loaded(self) -> None:
        """Wait until the values are in memory. Raises BackendUnavailable."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def _load(self) -> None:
        await _all(self._load_one(*each) for each in self._numbers)

    async def _load_one(self, number: int, block: Any) -> None:
        states, place = self.states, self.place(number)
        known = states.value(self.state, number)
        async with known.lock:
            if known.unsaved:
                await self._save_locked(number, block, known)
            read = await run_waiting(states.read, self.key, place, known.reference)
            if read is None and known.reference is None:
                return  # the store has none, and never had
            if read is not None and read.reference is known.reference:
                return
            # Without a value it was dropped, its time to live is over, or it was refused.
            compat.forget_value(self.state, block)
            known.reference = None if read is None else read.reference
            known.digest, known.since, known.mine = None, None, False
            if read is not None and read.has_value:
                age = max(states.store.now() - read.reference.created, timedelta(0))
                if age.total_seconds() <= block.time_to_live:
                    known.digest, known.since = read.digest, datetime.now() - age  # noqa: DTZ005 - as Gradio
                    compat.set_value(self.state, block, read.value, known.since)

    def place(self, number: int) -> Place:
        return Place(self.key.sid, self.states.app_of(self.demo), number)

    def note(self) -> None:
        """Note that a generator goes on, whose values are saved when it ends."""
        for number, _ in self._numbers:
            self.states.value(self.state, number).unsaved = True

    def save(self) -> list[asyncio.Task[None]]:
        """Begin to save what the event changed; return the tasks, which raise as ``put``."""
        loading = self._loading
        began = loading is None or (loading.done() and not loading.cancelled())
        if not began or (loading is not None and loading.exception() is not None):
            return []
        return [asyncio.create_task(self._save(*each)) for each in self._numbers]

    async def _save(self, number: int, block: Any) -> None:
        known = self.states.value(self.state, number)
        async with known.lock:
            await self._save_locked(number, block, known)

    async def _save_locked(self, number: int, block: Any, known: _Value) -> None:
        known.unsaved = False
        if not compat.has_value(self.state, block):
            return
        states, place = self.states, self.place(number)
        value, since = compat.value_of(self.state, block), compat.set_since(self.state, block)
        if since is None and compat.has_callback(block) and not callable(block.value):
            return  # nobody has set it, so the callback does not get it
        pickled = await run_waiting(states.pickled, block, self.demo, value, place.sid)
        if pickled is None:
            if known.reference is not None:
                await run_waiting(states.remove, place)
                known.reference, known.digest = None, None
            return
        digest = hashlib.sha256(pickled).digest()
        before = known.digest if known.reference else states.initial(block, place.sid)
        again = since != known.since and block.time_to_live != float("inf")  # its time begins again
        if digest != before or again:
            known.reference = await run_waiting(states.write, self.key, place, pickled)
            known.digest, known.since, known.mine = digest, since, True
            self._touch()


async def _all(works: Iterator[Any]) -> None:
    """Wait for all, also after an error, and raise the first."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _call(block: Any, value: Any) -> None:
    try:
        block.delete_callback(value)
    except Exception:
        log.exception("A delete_callback of gr.State failed; nothing else waits for it.")


def name_of(place: Place) -> str:
    """Return the name of a value's file in its session."""
    return f"{HIDDEN}{FOLDER}{place.app}/{place.number}"


def place_of(sid: str, name: str) -> Place | None:
    """Return the place of a file that ``name_of`` named, None for any other."""
    app, _, number = name.removeprefix(HIDDEN + FOLDER).partition("/")
    if not name.startswith(HIDDEN + FOLDER) or not number.isdecimal():
        return None
    return Place(sid, app, int(number))
