"""A wrapper that injects faults into any backend.

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
    backend.plan = either(on("drop", Fault(unavailable)), on("collect", Fault(unavailable)))
    backend.plan = no_faults

A plan can also be your own function, here for "the put of b.png"::

    def plan(call: Call) -> Fault | None:
        wanted = call.verb == "put" and call.arguments["name"] == "b.png"
        return Fault(unavailable) if wanted else None
"""

from __future__ import annotations

import io
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import BinaryIO, ClassVar, NoReturn, TypeVar

from sessionstore._streams import ReadStream
from sessionstore.backend import Backend
from sessionstore.content import Buffer, Content, Spool
from sessionstore.model import (
    Collected,
    Dropped,
    Reference,
    Saved,
    SessionKey,
    SessionRecord,
    Stored,
)
from sessionstore.parsers import Parser
from sessionstore.testing.faults import Call, Fault, Plan, no_faults

T = TypeVar("T")


class FaultyBackend:
    """A wrapper of ``backend`` that injects the faults of ``plan``.

    ``plan`` may be replaced at any time. All other calls go to the wrapped backend, and its
    optional abilities are available. ``calls`` counts the calls of each verb. The module's
    docstring has examples.
    """

    options: ClassVar[Mapping[str, Parser]] = {}

    def __init__(self, backend: Backend, plan: Plan = no_faults) -> None:
        self.backend = backend
        self.plan = plan
        self.digest = backend.digest
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        for verb in ("alone", "free", "referred", "secret"):
            if hasattr(backend, verb):
                setattr(self, verb, self._ability(verb))

    @classmethod
    def connect(cls, *_: object) -> NoReturn:
        """Raise TypeError: a faulty backend has no location of its own."""
        raise TypeError("Open another backend and wrap it: FaultyBackend(backend, plan).")

    def now(self) -> datetime:
        return self.backend.now()

    def spool(self) -> Spool:
        fault = self._fault("spool")
        if fault is not None and fault.at == "before":
            raise fault.error()
        spool = self.backend.spool()
        return spool if fault is None else _FaultySpool(spool, fault)

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
    ) -> Saved:
        if isinstance(content.spool, _FaultySpool):
            content.spool = content.spool.given()  # a backend accepts only a spool that it made
        return self._run(
            self._fault("put", key=key, name=name, content=content, expires=expires, fresh=fresh),
            lambda: self.backend.put(key, name, content, expires=expires, fresh=fresh),
        )

    def get(self, sid: str, name: str) -> Reference:
        fault = self._fault("get", sid=sid, name=name)
        return self._run(fault, lambda: self.backend.get(sid, name))

    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        fault = self._fault("open", sid=sid, reference=reference, start=start, length=length)
        if fault is not None and fault.at == "before":
            raise fault.error()
        stream = self.backend.open(sid, reference, start, length)
        return stream if fault is None else io.BufferedReader(_FaultyStream(stream, fault))

    def files(self, sid: str) -> Iterator[Reference]:
        return _cut(self._fault("files", sid=sid), lambda: self.backend.files(sid))

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        wanted = list(names)
        fault = self._fault("delete", sid=sid, names=wanted)
        return self._run(fault, lambda: self.backend.delete(sid, wanted))

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        wanted = list(references)
        fault = self._fault("discard", sid=sid, references=wanted)
        return self._run(fault, lambda: self.backend.discard(sid, wanted))

    def sessions(self) -> Iterator[SessionRecord]:
        return _cut(self._fault("sessions"), self.backend.sessions)

    def session(self, sid: str) -> SessionRecord | None:
        return self._run(self._fault("session", sid=sid), lambda: self.backend.session(sid))

    def identify(self, sid: str) -> SessionKey | None:
        return self._run(self._fault("identify", sid=sid), lambda: self.backend.identify(sid))

    def touch(self, sid: str) -> None:
        self._run(self._fault("touch", sid=sid), lambda: self.backend.touch(sid))

    def end(self, sid: str) -> None:
        self._run(self._fault("end", sid=sid), lambda: self.backend.end(sid))

    def resume(self, sid: str) -> None:
        self._run(self._fault("resume", sid=sid), lambda: self.backend.resume(sid))

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        return self._run(
            self._fault(
                "drop", sid=sid, unless_active_after=unless_active_after, only_ended=only_ended
            ),
            lambda: self.backend.drop(
                sid, unless_active_after=unless_active_after, only_ended=only_ended
            ),
        )

    def collect(self, *, force: bool = False) -> Collected:
        fault = self._fault("collect", force=force)
        return self._run(fault, lambda: self.backend.collect(force=force))

    def stored(self) -> Stored:
        return self._run(self._fault("stored"), self.backend.stored)

    def close(self) -> None:
        self._run(self._fault("close"), self.backend.close)

    # Failing

    def _fault(self, verb: str, **arguments: object) -> Fault | None:
        with self._lock:
            self.calls[verb] += 1
            number = self.calls[verb]
        return self.plan(Call(verb, number, arguments))

    def _run(self, fault: Fault | None, act: Callable[[], T]) -> T:
        if fault is None:
            return act()
        if fault.at not in {"before", "after"}:
            raise ValueError(
                f'Only files, sessions, open and spool can fail part of the way: use "before" or '
                f'"after" (got {fault.at!r}).'
            )
        if fault.at == "after":
            act()
        raise fault.error()

    def _ability(self, verb: str) -> Callable[[], object]:
        return lambda: self._run(self._fault(verb), getattr(self.backend, verb))


class _FaultySpool:
    """A spool that fails after a number of bytes, or when its content is put."""

    def __init__(self, within: Spool, fault: Fault) -> None:
        self._within = within
        self._fault = fault
        self._written = 0

    def write(self, data: Buffer, /) -> object:
        self._written += len(data)
        if isinstance(self._fault.at, int) and self._written > self._fault.at:
            raise self._fault.error()
        return self._within.write(data)

    def chunks(self) -> Iterator[Buffer]:
        return self._within.chunks()

    def given(self) -> Spool:
        if self._fault.at == "after":
            raise self._fault.error()
        return self._within

    def close(self) -> None:
        self._within.close()


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


def _cut(fault: Fault | None, listing: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Return the entries of a listing up to its fault, then raise the error."""
    if fault is None:
        yield from listing()
        return
    entries = listing() if fault.at != "before" else iter(())
    for position, entry in enumerate(entries):
        if position == fault.at:
            break
        yield entry
    raise fault.error()
