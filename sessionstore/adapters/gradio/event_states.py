"""The values of ``gr.State`` that one event uses: read before its function, and saved after it."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sessionstore._threads import run_on
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.signed_pickles import Place
from sessionstore.names import session_key

if TYPE_CHECKING:
    from gradio import Blocks

    from sessionstore.adapters.gradio.presence import Visitor
    from sessionstore.adapters.gradio.state import States, Value
    from sessionstore.model import SessionKey


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
        self.states.used(self.state)
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
            read = await run_on(states.store.backend, states.read, self.key, place, known.reference)
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

    async def _save_locked(self, number: int, block: Any, known: Value) -> None:
        known.unsaved = False
        if not compat.has_value(self.state, block):
            return
        states, place = self.states, self.place(number)
        value, since = compat.value_of(self.state, block), compat.set_since(self.state, block)
        if since is None and compat.has_callback(block) and not callable(block.value):
            return  # nobody has set it, so the callback does not get it
        pickled = await run_on(
            states.store.backend, states.pickled, block, self.demo, value, place.sid
        )
        if pickled is None:
            if known.reference is not None:
                await run_on(states.store.backend, states.remove, place)
                known.reference, known.digest = None, None
            return
        digest = hashlib.sha256(pickled).digest()
        before = known.digest if known.reference else states.initial(block, place.sid)
        again = since != known.since and block.time_to_live != math.inf  # its time begins again
        if digest != before or again:
            known.reference = await run_on(
                states.store.backend, states.write, self.key, place, pickled
            )
            known.digest, known.since, known.mine = digest, since, True
            self._touch()


async def _all(works: Iterator[Any]) -> None:
    """Wait for all, also after an error, and raise the first."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def of_event(
    states: States,
    demo: Blocks,
    block_fn: Any,
    state: Any,
    visitor: Visitor,
    *,
    touch: Callable[[], None],
) -> EventStates | None:
    """Return the values that an event of this visitor uses, None if it uses none.

    ``state`` is the memory that Gradio gives the event. ``touch`` is called when one was saved.
    """
    numbers = states.numbers(demo, block_fn)
    if not numbers:
        return None
    memory, key = states.memory(demo, state, visitor), session_key(*visitor)
    return EventStates(states, demo, memory, key=key, numbers=numbers, touch=touch)
