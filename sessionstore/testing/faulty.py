"""Faults of a backend: a wrapper that injects them, and plans that choose the calls.

A *plan* gets each call and returns the fault to inject, or None::

    backend = FaultyBackend(MemoryBackend(Place(), clock))
    store = SessionStore(backend, clock=clock)

    backend.plan = on("put", Fault(disk_full))                  # every put
    backend.plan = on("put", Fault(disk_full), number=3)        # the third put from the beginning
    backend.plan = on("put", Fault(unavailable, at="after"))    # done, but the response is lost
    backend.plan = on("files", Fault(unavailable, at=2))        # a listing ends after 2 files
    backend.plan = on("open", Fault(unavailable, at=1000))      # a stream breaks after 1000 bytes
    backend.plan = on("spool", Fault(disk_full, at=1 << 20))    # the disk is full after 1 MiB
    backend.plan = sometimes(0.05, Fault(unavailable), seed=7)  # one call in twenty

A plan can also be your own function. It may look at the arguments of a call, as in
``call.verb == "put" and call.arguments["name"] == "b.png"``.
"""

from __future__ import annotations

import errno
import inspect
import io
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, NoReturn

from sessionstore._streams import ReadStream
from sessionstore.backend import Backend
from sessionstore.content import Buffer, Spool
from sessionstore.errors import BackendUnavailable, LimitExceeded
from sessionstore.parsers import Parser

if TYPE_CHECKING:
    from sessionstore.backends.memory import MemoryBackend as _Verbs  # any class with the methods
else:
    _Verbs = object


def unavailable() -> BackendUnavailable:
    """Return the error of a connection that was reset."""
    error = BackendUnavailable("The backend did not answer.")
    error.__cause__ = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return error


def disk_full() -> LimitExceeded:
    """Return the error of a full disk."""
    error = LimitExceeded(errno.ENOSPC, "Could not save: the disk is full.")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``error`` returns the exception, ``at`` is the moment to raise it.

    * ``"before"``: the call has no effect.
    * ``"after"``: the call takes effect, and only the response is lost. A listing or stream fails
      at its end, a spool when its content is put.
    * A number, only for ``files``, ``sessions``, ``open`` and ``spool``: after that many entries,
      bytes read or bytes written.
    """

    error: Callable[[], BaseException]
    at: Literal["before", "after"] | int = "before"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a backend: its verb, its number among the calls of this verb, its arguments.

    ``number`` counts from 1. ``arguments`` has the names of ``Backend``, with the defaults.
    """

    verb: str
    number: int
    arguments: Mapping[str, Any]


Plan = Callable[[Call], Fault | None]
"""Returns the fault of a call, or None. May be called from several threads at once."""


def no_faults(_: Call) -> None:
    """Return None: the plan without faults."""


def on(verb: str, fault: Fault, *, number: int | None = None) -> Plan:
    """Return a plan for every call of ``verb``, or only for call ``number``, counted from 1."""
    return lambda call: fault if call.verb == verb and number in {None, call.number} else None


def sometimes(rate: float, fault: Fault, *, seed: int, verbs: Iterable[str] | None = None) -> Plan:
    """Return a plan for a random share of all calls, or of the calls of ``verbs``.

    ``rate`` is a probability from 0 to 1. The same ``seed`` gives the same choices.
    """
    generator = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    wanted = None if verbs is None else frozenset(verbs)

    def plan(call: Call) -> Fault | None:
        if wanted is not None and call.verb not in wanted:
            return None
        return fault if generator.random() < rate else None

    return plan


def either(*plans: Plan) -> Plan:
    """Return a plan that takes the first fault that one of ``plans`` has for a call."""
    return lambda call: next(filter(None, (plan(call) for plan in plans)), None)


_SIGNATURES = {
    name: inspect.signature(method)
    for name, method in vars(Backend).items()
    if inspect.isfunction(method) and not name.startswith("_") and name != "now"
}
_ABILITIES = ("alone", "free", "referred", "secret")


class FaultyBackend(_Verbs):
    """A wrapper of ``backend`` that injects the faults of ``plan``.

    ``plan`` may be replaced at any time. All other calls go to the wrapped backend, and its
    optional abilities ``alone``, ``free``, ``referred`` and ``secret`` are available. ``calls``
    counts the calls of each verb. The module's docstring has examples.
    """

    options: ClassVar[Mapping[str, Parser]] = {}

    def __init__(self, backend: Backend, plan: Plan = no_faults) -> None:
        self.backend = backend
        self.plan = plan
        self.digest: str = backend.digest
        self.calls: Counter[str] = Counter()
        self._counting = threading.Lock()
        # As own attributes: a runtime-checkable protocol does not use __getattr__.
        setattr(self, "now", backend.now)  # noqa: B010 - mypy refuses to assign to a method
        for verb in (*_SIGNATURES, *(name for name in _ABILITIES if hasattr(backend, name))):
            setattr(self, verb, partial(self._call, verb))

    @classmethod
    def connect(cls, *_: object) -> NoReturn:
        """Raise TypeError: a faulty backend has no location of its own."""
        raise TypeError("Open another backend and wrap it: FaultyBackend(backend, plan).")

    def _call(self, verb: str, *values: Any, **options: Any) -> Any:
        arguments: dict[str, Any] = {}
        if verb in _SIGNATURES:
            bound = _SIGNATURES[verb].bind(self, *values, **options)
            bound.apply_defaults()
            arguments = bound.arguments
            del arguments["self"]
        for name in arguments.keys() & {"names", "references"}:
            arguments[name] = list(arguments[name])  # an iterator can be read only once
        with self._counting:
            self.calls[verb] += 1
            number = self.calls[verb]
        fault = self.plan(Call(verb, number, arguments))
        if verb == "put" and isinstance(spool := arguments["content"].spool, _FaultySpool):
            arguments["content"].spool = spool.given()  # a backend accepts only its own spool
        act = partial(getattr(self.backend, verb), **arguments)
        if fault is None:
            return act()
        if verb in {"files", "sessions"}:
            return _cut(fault, act)
        if fault.at == "before":
            raise fault.error()
        if verb == "spool":
            return _FaultySpool(act(), fault)
        if verb == "open":
            return io.BufferedReader(_FaultyStream(act(), fault))
        if fault.at != "after":
            raise ValueError(
                f'Only files, sessions, open and spool can fail part of the way: use "before" or '
                f'"after" (got {fault.at!r}).'
            )
        act()
        raise fault.error()


class _FaultySpool:
    """A spool that fails after a number of bytes, or when its content is put."""

    def __init__(self, within: Spool, fault: Fault) -> None:
        self._within = within
        self._fault = fault
        self._written = 0
        self.chunks = within.chunks
        self.close = within.close

    def write(self, data: Buffer, /) -> object:
        self._written += len(data)
        if isinstance(self._fault.at, int) and self._written > self._fault.at:
            raise self._fault.error()
        return self._within.write(data)

    def given(self) -> Spool:
        if self._fault.at == "after":
            raise self._fault.error()
        return self._within


class _FaultyStream(ReadStream):
    """A stream that fails at its end, or earlier."""

    def __init__(self, stream: BinaryIO, fault: Fault) -> None:
        self._stream = stream
        self._error = fault.error
        self._left = fault.at if isinstance(fault.at, int) else sys.maxsize

    def _take(self, size: int) -> bytes:
        chunk: bytes = self._stream.read(min(size, self._left))
        if not chunk:
            raise self._error()
        self._left -= len(chunk)
        return chunk


def _cut(fault: Fault, listing: Callable[[], Iterable[object]]) -> Iterator[object]:
    """Return the entries of a listing up to its fault, then raise the error."""
    for position, entry in enumerate(listing() if fault.at != "before" else ()):
        if position == fault.at:
            break
        yield entry
    raise fault.error()
