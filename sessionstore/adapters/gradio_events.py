"""An event of a demo: whose files it is given and makes, and what it keeps from being removed.

Gradio runs an event in one call of ``Blocks.process_api``: inputs are moved to the cache and
preprocessed, the handler runs, outputs are postprocessed and moved to the cache. A batch does so
for several visitors, one after the other; a generator calls it again for each value.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.concurrency import run_in_threadpool

from sessionstore.adapters import gradio_login as compat
from sessionstore.adapters.gradio_files import Found
from sessionstore.adapters.gradio_middleware import ARRIVED
from sessionstore.adapters.gradio_presence import Visitor
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from gradio import Request

    from sessionstore.adapters.gradio_local import LocalCopies
    from sessionstore.adapters.gradio_service import Service


class Sender(NamedTuple):
    """Who sent an event; ``visitor`` is None for a client that named no session."""

    owner: str | None
    visitor: Visitor | None
    arrived: int


class Pins:
    """Local copies that stay as long as an event needs them."""

    def __init__(self, local: LocalCopies) -> None:
        self._local = local
        self._names: set[str] = set()
        self._made: set[str] = set()

    def add(self, name: str, *, wait: bool = True) -> bool:
        """Pin a copy, once; False if there is none. For ``wait`` see ``LocalCopies.pin``."""
        if name not in self._names and not self._local.pin(name, wait=wait):
            return False
        self._names.add(name)
        return True

    def made(self, name: str) -> None:
        """Gradio made a file of an input, such as a picture in another format, for the handler.

        It is no copy of anything, so nobody else would ever remove it.
        """
        if not self._local.has(name):
            self._made.add(name)

    def release(self) -> None:
        """Let go of them all."""
        while self._names:
            self._local.unpin(self._names.pop())
        while self._made:
            self._local.abandon(self._made.pop())


@dataclass(slots=True)
class Event:
    """One call of ``process_api``. ``sender`` is whose sample is being worked on."""

    service: Service
    senders: list[Sender]
    pins: Pins
    sender: Sender = field(init=False)
    inputs: bool = False
    """Whether it is at the inputs, which come from outside, and not yet at the outputs."""
    later: list[str] = field(default_factory=list)
    """Files that were moved where nothing could be waited for; they are kept before the answer."""
    over: bool = False
    _samples: dict[bool, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sender = self.senders[0]

    def next_sample(self, *, inputs: bool) -> None:
        """Go on to the inputs, or the outputs, of the next sender."""
        index = self._samples.get(inputs, 0)
        self._samples[inputs] = index + 1
        self.inputs = inputs
        self.sender = self.senders[min(index, len(self.senders) - 1)]

    async def move(self, path: str) -> str:
        """See that a file below the cache is there and kept; returns its path, which may differ.

        Raises InvalidPathError for an input that the visitor has no claim to, in the words that
        Gradio has for it; and as ``Session.put``.
        """
        files = self.service.files
        name = files.paths.relative(path)
        if name is None:
            return path
        found = files.settled(self.sender.visitor, self.sender.owner, name)
        if found is not None and self.pins.add(name, wait=False):
            self._touch()
            return path
        given = self.service.copies.whose(path)
        if given is not None and not self.inputs:
            return await run_in_threadpool(self.give, given, Path(path))
        return await run_in_threadpool(self._move, name, path)

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
        if found is not None:
            self._use(found)
        return path

    def give(self, file: StoredFile, copy: Path | None = None) -> str:
        """The path of a stored file for this visitor; its bytes are there, perhaps by a copy."""
        if file.session.store is not self.service.store:
            return str(file.local_path())  # then it is a file like any other that a handler made
        found = self.service.files.give(file, self.sender.owner)
        self._use(found, copy)
        return str(self.service.files.paths.absolute(found.name))

    def _use(self, found: Found, twin: Path | None = None) -> None:
        files = self.service.files
        if not (self.pins.add(found.name) and files.ready(found)):
            files.fetch(found, twin)
            while not self.pins.add(found.name):  # it had to make room for another right away
                files.fetch(found, twin)
        self._touch()

    def _touch(self) -> None:
        """An event whose files are used is a sign of life of its visitor."""
        if self.sender.visitor is not None:
            self.service.presences.used(self.sender.visitor, self.sender.arrived, wait=False)

    def given(self, values: Any) -> None:
        """Note what the handler is given beside the files that went through ``move``."""
        prefix = str(self.service.files.paths.root)
        for path in _paths(values, prefix):
            name = self.service.files.paths.relative(path)
            if name is not None:
                self.pins.made(name)

    async def keep_later(self) -> None:
        """Keep the files of ``later``."""
        names, self.later = self.later, []
        for name in names:
            await run_in_threadpool(self._move, name, "")


current: Final[ContextVar[Event | None]] = ContextVar("sessionstore_event", default=None)
queued: Final[ContextVar[list[Any] | None]] = ContextVar("sessionstore_queued", default=None)
"""The queue's own events that are being worked on; they say who sent them as a request does."""

_generators: weakref.WeakKeyDictionary[Any, Pins] = weakref.WeakKeyDictionary()
"""What the handlers of generators that have not ended keep from being removed."""


def senders(requests: Request | list[Request] | None) -> list[Sender]:
    """Who sent an event, in the order of its samples; empty when nobody did, or it is unknown."""
    found = []
    for request in requests if isinstance(requests, list) else [requests]:
        connection = None if request is None else getattr(request, "request", None)
        arrived = None if connection is None else connection.scope.get(ARRIVED)
        if request is None or connection is None or arrived is None:
            return []
        owner = compat.owner_of(request.username, connection)
        session_id = request.session_hash
        visitor = Visitor(session_id, owner) if session_id else None
        found.append(Sender(owner, visitor, arrived))
    return found


@contextmanager
def running(event: Event, iterator: Any) -> Iterator[Callable[[Any], None]]:
    """Around one call of ``process_api``; gives a function that takes the generator it goes on as.

    What the event uses stays for as long as its generator may go on.
    """
    pins = None if iterator is None else _generators.pop(iterator, None)
    event.pins = pins or event.pins
    goes_on: list[Any] = []
    token = current.set(event)
    try:
        yield goes_on.append
    finally:
        current.reset(token)
        event.over = True
        if goes_on and goes_on[-1] is not None:
            _generators[goes_on[-1]] = event.pins
            if goes_on[-1] is not iterator:  # once for each, however often it goes on
                weakref.finalize(goes_on[-1], _soon(event.pins.release))
        else:
            event.pins.release()


def _soon(work: Callable[[], None]) -> Callable[[], None]:
    """Has the event loop do it. May be called at any moment, in any thread.

    Garbage is collected wherever something is made: also by a thread that has the very lock which
    the work takes.
    """
    loop = asyncio.get_running_loop()

    def soon() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the app is served no more
            loop.call_soon_threadsafe(work)

    return soon


@contextmanager
def within(outer: Event, senders: list[Sender]) -> Iterator[Event]:
    """Around a call of ``process_api`` that an event itself makes, such as for a lazy example.

    What that call makes is used after it has returned, so it stays for as long as the outer event.
    """
    event = Event(outer.service, senders or outer.senders, outer.pins)
    token = current.set(event)
    try:
        yield event
    finally:
        current.reset(token)


def _paths(values: Any, prefix: str) -> Iterator[str]:
    """The paths below ``prefix`` among a handler's arguments."""
    if isinstance(values, str):
        if values.startswith(prefix):
            yield str(values)
    elif isinstance(values, dict | list | tuple):
        for each in values.values() if isinstance(values, dict) else values:
            yield from _paths(each, prefix)


def has_stored(value: Any) -> bool:
    """Whether there is a stored file anywhere in what a handler returned."""
    if value is None or isinstance(value, str | bytes | int | float):
        return False
    return isinstance(value, StoredFile) or any(has_stored(each) for each in _parts(value))


def with_paths(value: Any, path: Callable[[StoredFile], str]) -> Any:
    """The same with paths in place of stored files. What is changed is changed in a copy."""
    if isinstance(value, StoredFile):
        return path(value)
    if isinstance(value, dict):
        return {key: _entry(value, key, each, path) for key, each in value.items()}
    if isinstance(value, list):
        return [with_paths(each, path) for each in value]
    if isinstance(value, tuple):
        items = [with_paths(each, path) for each in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if not has_stored(value):
        return value
    changed = copy.copy(value)
    if _is_message(value):
        changed.content = _content(value.content, path)
    else:
        arguments = [with_paths(each, path) for each in compat.arguments_of(value)]
        compat.set_arguments(changed, arguments)
    return changed


def _entry(whole: dict[Any, Any], key: Any, value: Any, path: Callable[[StoredFile], str]) -> Any:
    """What a key has. The content of a chat message is text unless it says that it is a file."""
    return (
        _content(value, path) if key == "content" and "role" in whole else with_paths(value, path)
    )


def _content(value: Any, path: Callable[[StoredFile], str]) -> Any:
    if isinstance(value, StoredFile):
        return {"path": path(value)}
    if isinstance(value, list):
        return [_content(each, path) for each in value]
    return with_paths(value, path)


def _parts(value: Any) -> Iterable[Any]:
    """What may hold a stored file inside."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return [value.content] if _is_message(value) else compat.arguments_of(value)


def _is_message(value: Any) -> bool:
    """``gr.ChatMessage``, and whatever else is built like it."""
    return hasattr(value, "role") and hasattr(value, "content")
