"""An event of a demo: the owner of its inputs and outputs, and the local copies that it pins.

Gradio runs an event in one call of ``Blocks.process_api``, which processes the samples of a batch
one after the other. For a generator it calls it again for each value.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.concurrency import run_in_threadpool

from sessionstore._threads import run_on
from sessionstore.adapters.gradio import compat, values
from sessionstore.adapters.gradio.cache_files import FoundFile
from sessionstore.adapters.gradio.paths import links_in, with_links
from sessionstore.adapters.gradio.presence import ARRIVED, CALLER, Visitor, mcp_visitor
from sessionstore.adapters.gradio.state import Page, page
from sessionstore.errors import SessionStoreError

if TYPE_CHECKING:
    from gradio import Request

    from sessionstore.adapters.gradio.attached_store import Service
    from sessionstore.adapters.gradio.cache import CacheDir
    from sessionstore.adapters.gradio.event_states import EventStates
    from sessionstore.model import Reference
    from sessionstore.storedfile import StoredFile

log: Final = logging.getLogger("sessionstore")


MCP_HOLD: Final = 60.0
"""Seconds for which the copies of an MCP call stay: Gradio reads pictures of its result later."""


LINK: Final = "sessionstore_link"
"""The key of the path of an inline picture, in an output for Gradio's MCP server."""


def now_of_files() -> int:
    """Return the time that a file written now gets as its modification time, in nanoseconds."""
    # The kernel stamps files with a clock that is up to 10 ms behind.
    clock = getattr(time, "CLOCK_REALTIME_COARSE", None)
    return time.time_ns() - 20_000_000 if clock is None else time.clock_gettime_ns(clock)


class Sender(NamedTuple):
    """The sender of an event. ``visitor`` is None for a client that sent no session id."""

    owner: str | None
    visitor: Visitor | None
    arrived: int
    program: bool = False
    """True for a client that is no page: its results are links that everyone with them can open."""
    mcp: bool = False


class Pins:
    """The local copies that are pinned for an event."""

    def __init__(self, local: CacheDir) -> None:
        self._local = local
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._made: set[str] = set()

    def add(self, name: str, *, wait: bool = True) -> bool:
        """Pin a copy, once, and return whether it exists."""
        if name in self._names:
            return True
        if not self._local.pin(name, wait=wait):
            return False
        with self._lock:
            again = name in self._names
            self._names.add(name)
        if again:  # another thread pinned it at the same time
            self._local.unpin(name)
        return True

    def made(self, name: str) -> None:
        """Note a file that Gradio made from an input, such as a picture in another format."""
        # It is not a copy of a stored file, so nothing else would remove it.
        if not self._local.has(name):
            self._made.add(name)

    def release(self) -> None:
        """Unpin all copies, and have the files that Gradio made removed in an hour."""
        while self._names:
            self._local.unpin(self._names.pop())
        while self._made:
            self._local.abandon(self._made.pop())


@dataclass(slots=True)
class Event:
    """One call of ``process_api``. ``sender`` sent the sample that is processed now."""

    service: Service
    senders: list[Sender]
    pins: Pins
    sender: Sender = field(init=False)
    inputs: bool = False
    """True while inputs are processed, which come from the client; False for outputs."""
    place: str = ""
    """The name of the event in the app."""
    lost: set[str] = field(default_factory=set)
    """The paths in Gradio's cache that the event used, and that lead to no file."""
    cached: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    """New entries of the app's caches, each with its cache."""
    copied: dict[str, str | None] = field(default_factory=dict)
    """The outputs of the current sample from outside the cache, each with its path in the cache."""
    later: list[str] = field(default_factory=list)
    """Files moved by synchronous code, which cannot wait; they are saved before the response."""
    nested: bool = False
    """True for a call within another event, such as for a lazy example. Both share their pins."""
    generator: Any = None
    """The generator that the handler continues as, if any."""
    over: bool = False
    demo: Any = None
    memory: Any = None
    """The memory of the session in Gradio."""
    states: EventStates | None = None
    """The values of ``gr.State`` that it uses, if the store has them."""
    began: int = field(default_factory=now_of_files)
    _samples: dict[bool, int] = field(default_factory=dict)
    _moves: dict[str, asyncio.Task[str | None]] = field(default_factory=dict)
    """The moves of the current sample that were begun, by name."""
    _saves: list[asyncio.Task[Any]] = field(default_factory=list)
    """The outputs that are being saved while Gradio goes on; ``saved`` waits for them."""
    _pending: set[asyncio.Task[Any]] = field(default_factory=set)
    _failures: dict[bool, BaseException] = field(default_factory=dict)
    """The first error of the inputs and of the outputs; no further move starts after it."""
    _turns: asyncio.Semaphore | None = None

    def __post_init__(self) -> None:
        self.sender = self.senders[0]

    def next_sample(self, *, inputs: bool) -> None:
        index = self._samples.get(inputs, 0)
        self._samples[inputs] = index + 1
        self.inputs = inputs
        self.sender = self.senders[min(index, len(self.senders) - 1)]
        self._moves = {}
        self.copied = {}

    async def move(self, path: str) -> str:
        """Save an output, or claim and fetch an input, and return its path in the cache.

        An output with its own path is saved while Gradio goes on, until ``saved``. Raises Gradio's
        InvalidPathError for an input that is not the visitor's; and as ``Session.put``.
        """
        files = self.service.files
        name = files.paths.relative(path)
        if name is None:
            return path
        found = files.settled(self.sender.visitor, self.sender.owner, name)
        if found is not None and not self._is_linked(found) and self.pins.add(name, wait=False):
            self.touch()
            return path
        stored = self.service.copies.whose(path)
        if stored is not None and not self.inputs:
            return await run_in_threadpool(self.give, stored, Path(path))
        # The path of a file that is not on the disk may be one that the app remembers.
        is_here = files.paths.kept(name) is not None and files.local.stamp(name) is not None
        if not self.inputs and not self.links and is_here:
            self._saves.append(self._begun(name, path))
            return path
        moved = await asyncio.shield(self._begun(name, path))
        return (
            moved
            if moved is not None
            else await run_on(self.service.store.backend, self._move, name, path)
        )

    def expect(self, files_in: Any) -> None:
        """Begin to move the files in these inputs or outputs, all at the same time."""
        files, sender = self.service.files, self.sender
        paths = {path: files.paths.relative(path) for path in values.file_paths(files_in)}
        for path, name in paths.items():
            if name and files.settled(sender.visitor, sender.owner, name) is None:
                self._begun(name, path)

    def _begun(self, name: str, path: str) -> asyncio.Task[str | None]:
        """Return the task that moves the file for the current sample; begin it if it is new."""
        task = self._moves.get(name)
        if task is None or (task.done() and not self.inputs):  # the file may have changed since
            if self._turns is None:
                backend = self.service.store.backend
                self._turns = asyncio.Semaphore(getattr(backend, "at_once", 1))
            # The copy keeps the sender of this sample of a batch.
            move = partial(Event._move, copy.copy(self), name, path)
            task = asyncio.create_task(self._in_turn(self._turns, move, inputs=self.inputs))
            self._moves[name] = task
            self._pending.add(task)
        return task

    async def _in_turn(
        self, turns: asyncio.Semaphore, move: Callable[[], str], *, inputs: bool
    ) -> str | None:
        """Call ``move`` in its turn. After an error of another, raise it, or return None."""
        async with turns:
            failure = self._failures.get(inputs)
            if failure is not None and inputs:  # Gradio names the first wrong input in its error
                return None
            if failure is not None:
                raise failure
            try:
                return await run_on(self.service.store.backend, move)
            except BaseException as error:
                self._failures[inputs] = error
                raise

    def _move(self, name: str, path: str) -> str:
        files, sender = self.service.files, self.sender
        if self.inputs:
            found = files.claim(sender.visitor, sender.owner, name)
            if found is None:
                raise compat.invalid_path(
                    f"Cannot move {path} to the gradio cache dir because it was not uploaded by a "
                    "user."
                )
        else:
            found = files.keep(sender.visitor, sender.owner, name)
        if found is None:
            recalled = self._recall(name)
            if recalled is None:
                return path
            found = files.keep(sender.visitor, sender.owner, name)
            if found is None:  # the path is that of a copy by ``local_path()``
                return self._give(recalled.sid, recalled.reference, files.paths.absolute(name))
        return self._placed(found, path)

    def _placed(self, found: FoundFile, path: str) -> str:
        """Return the path that the client gets for a file of the cache."""
        if self._is_linked(found):
            return self._give(
                found.sid, found.reference, self.service.files.paths.absolute(found.name)
            )
        self._use(found)
        return path

    def _recall(self, name: str) -> FoundFile | None:
        """Fetch a file by a path that the app remembers, or log once for each place it is gone."""
        if name in self.lost:  # a handler may try again and again: it looks for a file of its own
            return None
        files = self.service.files
        found = files.obtain(self.sender.owner, name) or self.service.cached.restore(name)
        if found is None:
            self.lost.add(name)
            if name in files.dropped and self.place not in self.service.places:
                self.service.places.add(self.place)
                log.warning(
                    "The event %r used %s, which was deleted with the session %s: keep a "
                    "StoredFile instead of a path, as session(request).put(...) returns.",
                    self.place, files.paths.absolute(name), files.dropped[name],
                )  # fmt: skip
        return found

    async def recall(self, outputs: Any) -> None:
        """Fetch the missing files among a handler's outputs: components look at them at once."""
        files = self.service.files
        for path, name in files.paths.within(outputs):
            if files.local.stamp(name) is None:
                await run_in_threadpool(self.opens, path, os.O_RDONLY)

    def opens(self, path: str, flags: int) -> None:
        """Fetch a file that the handler is about to read, if it is missing in Gradio's cache."""
        paths = self.service.files.paths
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if writes or not path.startswith(f"{paths.root}{os.sep}") or os.path.lexists(path):
            return
        name = paths.relative(path)
        if name is None or not (
            paths.kept(name) or paths.pointer(name) or name in self.service.cached
        ):
            return
        token = current.set(None)  # the files that this opens are its own
        try:
            if self._recall(name) is not None:
                self.pins.add(name)
        except SessionStoreError as error:
            log.warning("A file could not be fetched: %s", error)
        finally:
            current.reset(token)

    def _is_linked(self, found: FoundFile) -> bool:
        return not self.inputs and self.links and self.service.files.is_of_session(found)

    @property
    def links(self) -> bool:
        """True if the client gets links in place of paths."""
        return self.sender.program or self.service.share

    def give(self, file: StoredFile, copy: Path | None = None) -> str:
        """Fetch a stored file for this visitor, or link its local ``copy``; return the path."""
        if file.session.store is not self.service.store:
            return str(file.local_path())  # a file of another store is like any file of the handler
        return self._give(file.session.sid, file.reference, copy)

    def _give(self, sid: str, reference: Reference, copy: Path | None) -> str:
        files = self.service.files
        found = files.give(sid, reference, self.sender.owner, link=self.links)
        self._use(found, copy)
        return str(files.paths.absolute(found.name))

    def _use(self, found: FoundFile, equal: Path | None = None) -> None:
        files = self.service.files
        if not (self.pins.add(found.name) and files.ready(found)):
            files.fetch(found, equal)
            while not self.pins.add(found.name):  # another file's fetch evicted it at once
                files.fetch(found, equal)
        self.touch()

    def load_states(self) -> None:
        """Begin to read the values of ``gr.State``."""
        if self.states is not None:
            self._pending.add(self.states.load())

    def save_states(self, *, goes_on: bool = False) -> None:
        """Begin to save the values of ``gr.State``, unless a generator ``goes_on``."""
        if self.states is not None and goes_on:
            self.states.note()
        elif self.states is not None:
            tasks = self.states.save()
            self._saves += tasks
            self._pending.update(tasks)

    def touch(self) -> None:
        """Note that the event uses its visitor's session."""
        if self.sender.visitor is not None:
            self.service.presences.used(self.sender.visitor, self.sender.arrived, wait=False)

    def given(self, arguments: Any) -> None:
        """Note the files among the handler's arguments that did not go through ``move``."""
        for _, name in self.service.files.paths.within(arguments):
            self.pins.made(name)

    async def adopt(self, values: Any) -> Any:
        """Save the files that texts among ``values`` link to; return the values with new paths.

        An app may write a file into the cache itself, and return HTML with a link to it.
        """
        paths = {path: path for path in links_in(values)}
        for path in paths:
            name = self.service.files.paths.relative(path)
            is_moved = name in self._moves and not self.links  # it is being saved, or was
            if name is not None and not is_moved:
                paths[path] = await run_in_threadpool(self._adopt, name, path)
        return with_links(values, paths)

    def _adopt(self, name: str, path: str) -> str:
        files, sender = self.service.files, self.sender
        found = files.adopt(sender.visitor, sender.owner, name, self.began)
        return path if found is None else self._placed(found, path)

    async def link_pictures(self, outputs: Any) -> Any:
        """Save each inline SVG picture of an MCP call, and note its link in the output.

        Gradio's MCP server writes such a picture into its cache later, and passes that path on.
        """
        if not self.sender.mcp:
            return outputs
        linked = []
        for output in outputs:
            name, svg = compat.svg_of(output)
            if name:
                path = await run_in_threadpool(self._save_picture, name, svg)
                output = {**output, LINK: path}  # noqa: PLW2901 - the same output with its link
            linked.append(output)
        return linked

    def _save_picture(self, name: str, content: bytes) -> str:
        path = compat.write_to_cache(content, name, self.service.files.paths.root)
        inside = self.service.files.paths.relative(path)
        if inside is None:
            return path
        moved = self._move(inside, path)
        self.pins.add(inside)  # until the MCP server has written it again
        return moved

    def save_later(self) -> None:
        """Begin to save the outputs of ``later``."""
        names, self.later = self.later, []
        self._saves += [self._begun(name, "") for name in names]

    async def leave_saves(self) -> list[asyncio.Task[Any]]:
        """Return the saves of the outputs, for which the caller waits from now on."""
        self.save_later()
        saves, self._saves = list(dict.fromkeys(self._saves)), []
        self._pending.difference_update(saves)
        await self.settle()
        return saves

    async def saved(self) -> None:
        """Wait until all outputs are saved, with those of ``later``; raise the first's error."""
        self.save_later()
        await self.settle()
        saves, self._saves = self._saves, []
        for task in saves:
            task.result()

    async def settle(self) -> None:
        """Wait until no file of the event is being moved, also when the event is cancelled."""
        cancelled: asyncio.CancelledError | None = None
        while self._pending:
            try:
                done, self._pending = await asyncio.wait(self._pending)
            except asyncio.CancelledError as error:
                cancelled = error
            else:
                for task in done:
                    if not task.cancelled():
                        task.exception()  # asyncio would log one that it believes to be lost
        if cancelled is not None:
            raise cancelled

    async def keep_cached(self) -> None:
        """Save the files of ``cached``, so that they outlive the visitor."""
        entries, self.cached = self.cached, []
        for cache, entry in entries:
            try:
                await run_in_threadpool(self.service.cached.keep, cache, entry)
            except SessionStoreError as error:
                log.warning("A file in a cache of the app could not be saved: %s", error)


current: Final[ContextVar[Event | None]] = ContextVar("sessionstore_event", default=None)
queued: Final[ContextVar[list[Any] | None]] = ContextVar("sessionstore_queued", default=None)
"""The queue's own events that are processed now. Each names its sender as a request does."""

_generators: weakref.WeakKeyDictionary[Any, Pins] = weakref.WeakKeyDictionary()
"""The pins of generators that have not ended."""


def senders(requests: Request | list[Request] | None) -> list[Sender]:
    """Return the senders of an event's samples; none when one is no visitor or unknown."""
    result = [sender_of(each) for each in (requests if isinstance(requests, list) else [requests])]
    known = [each for each in result if each is not None and each.arrived]
    return known if len(known) == len(result) else []


def sender_of(request: Any) -> Sender | None:
    """Return the sender of an event; None if it is no visitor."""
    connection = compat.connection_of(request)
    if connection is None:
        return None
    arrived = connection.scope.get(ARRIVED, 0)
    owner = compat.owner_of(getattr(request, "username", None), connection)
    mcp = connection.headers.get(compat.MCP_SESSION)
    if mcp is not None:
        return Sender(owner, mcp_visitor(mcp), arrived, program=True, mcp=True)
    session_id = getattr(request, "session_hash", None)
    visitor = Visitor(session_id, owner) if session_id else connection.scope.get(CALLER)
    return Sender(owner, visitor, arrived, compat.is_program(owner, connection))


@contextmanager
def running(event: Event, iterator: Any) -> Iterator[None]:
    """Context manager for one call of ``process_api``; the pins last as long as its generator."""
    if not event.nested and iterator is not None:
        event.pins = _generators.pop(iterator, event.pins)
    shown = None if event.demo is None else Page(event.demo, event.memory)
    token, its_page = current.set(event), page.set(shown)
    visitors = [] if event.nested else [each.visitor for each in event.senders if each.visitor]
    for visitor in visitors:
        event.service.presences.began(visitor)
    try:
        yield
    finally:
        page.reset(its_page)
        current.reset(token)
        event.over = True
        for visitor in visitors:
            event.service.presences.finished(visitor)
        if event.nested:
            pass  # the pins are those of the outer event, which uses the results
        elif event.generator is not None:
            _generators[event.generator] = event.pins
            if event.generator is not iterator:  # one finalizer a generator, not one a value
                weakref.finalize(event.generator, _on_event_loop(event.pins.release))
        elif event.sender.mcp:
            asyncio.get_running_loop().call_later(MCP_HOLD, event.pins.release)
        else:
            event.pins.release()


def _on_event_loop(work: Callable[[], None]) -> Callable[[], None]:
    """Return a function that schedules ``work`` on the event loop, from any thread.

    A finalizer must not run ``work`` itself: Python collects garbage also in a thread that holds
    the lock that ``work`` takes.
    """
    loop = asyncio.get_running_loop()

    def soon() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the app has stopped
            loop.call_soon_threadsafe(work)

    return soon
