"""A backend under test, with the short methods that the contract and the machine use."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar, cast

from sessionstore import names
from sessionstore.backend import Backend
from sessionstore.content import CHUNK, Content, Ingest, ingest
from sessionstore.errors import FileNotStored
from sessionstore.model import Reference, Saved, SessionKey, SessionRecord
from sessionstore.testing.clock import FakeClock

T = TypeVar("T")

OpenBackend = Callable[[FakeClock], Backend]
"""Opens the place under test; each call returns a new backend on the same place."""

ALICE: Final = names.session_key("alice")
BOB: Final = names.session_key("bob", owner="bob@example.org")
NOBODY: Final = names.session_key("nobody").sid
"""The stored name of a session that no test makes."""

SPOOLED: Final = 3 * CHUNK + 1
"""A size in bytes that is spooled when it is saved and is no multiple of any buffer."""

PATIENCE: Final = 120.0
"""The timeout in real seconds of a job that hangs. No test measures time by it."""


class Subject:
    """One backend on the place under test, and the clock that drives it.

    ``name`` is a file's name; ``key`` is the session, by default ALICE's.
    """

    def __init__(
        self, open_backend: OpenBackend, clock: FakeClock, reclaims_after: timedelta = timedelta(0)
    ) -> None:
        self.clock = clock
        self.backend: Backend = open_backend(clock)
        self._open_backend = open_backend
        self._reclaims_after = reclaims_after
        self._others: list[Subject] = []

    def another(self) -> Subject:
        """Open one more backend on the same place, as another process would."""
        other = Subject(self._open_backend, self.clock, self._reclaims_after)
        self._others.append(other)
        return other

    @property
    def able(self) -> Any:
        """Return the backend, for calls of its optional methods."""
        return self.backend

    def reopen(self) -> None:
        self.backend.close()
        self.backend = self._open_backend(self.clock)

    def close(self) -> None:
        for subject in (*self._others, self):
            subject.backend.close()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def settle(self) -> None:
        """Garbage-collect all unreferenced content, also the content that is reclaimed late."""
        for _ in range(2):
            self.clock.advance(self._reclaims_after)
            self.backend.collect()

    def take(self, source: object, admit: Callable[[int], None] = lambda _: None) -> Content:
        """Read a source into a content, as the store does."""
        return ingest(source, Ingest(self.backend.digest, self.backend.spool, admit))

    def put(
        self, name: str, source: object, key: SessionKey = ALICE, *, ttl: float | None = None,
        fresh: bool = False,
    ) -> Saved:  # fmt: skip
        """Save a file with a time to live of ``ttl`` seconds."""
        expires = None if ttl is None else self.backend.now() + timedelta(seconds=ttl)
        with self.take(source) as content:
            return self.backend.put(key, name, content, expires=expires, fresh=fresh)

    def remove(self, verb: str, name: str, key: SessionKey = ALICE) -> None:
        """Delete the file, or drop its whole session: ``verb`` is "delete" or "drop"."""
        if verb == "delete":
            self.backend.delete(key.sid, [name])
        else:
            self.backend.drop(key.sid)

    def read(
        self, name: str, key: SessionKey = ALICE, start: int = 0, length: int | None = None
    ) -> bytes:
        """Return the bytes of the file of that name. Raises FileNotStored."""
        return self.read_version(self.backend.get(key.sid, name), key, start, length)

    def read_version(
        self,
        reference: Reference,
        key: SessionKey = ALICE,
        start: int = 0,
        length: int | None = None,
    ) -> bytes:
        with closing(self.backend.open(key.sid, reference, start, length)) as stream:
            return stream.read()

    def version_or_none(self, reference: Reference, key: SessionKey = ALICE) -> bytes | None:
        """Return the bytes of a version, or None if it is not the current file any more."""
        try:
            return self.read_version(reference, key)
        except FileNotStored:
            return None

    def has(self, name: str, key: SessionKey = ALICE) -> bool:
        try:
            self.backend.get(key.sid, name)
        except FileNotStored:
            return False
        return True

    def names(self, key: SessionKey = ALICE) -> list[str]:
        return sorted(reference.name for reference in self.backend.files(key.sid))

    def contents(self, key: SessionKey = ALICE) -> dict[str, bytes]:
        return {name: self.read(name, key) for name in self.names(key)}

    def record(self, key: SessionKey = ALICE) -> SessionRecord:
        record = self.backend.session(key.sid)
        assert record is not None, f"There is no session {key.sid}."
        return record

    def sids(self) -> list[str]:
        return sorted(record.sid for record in self.backend.sessions())


def some_bytes(seed: object, size: int) -> bytes:
    """Return ``size`` bytes that are different for each seed."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def race(*jobs: Callable[[], T]) -> list[T]:
    """Start every job at the same moment, each in a thread; return their results in order.

    Raises the first job's error, in the order of ``jobs``, after all have ended.
    """
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], T]) -> T:
        start.wait(PATIENCE)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(run, job) for job in jobs]
    return [future.result() for future in futures]


def race_beside(work: Callable[[], T], *others: Callable[[], object]) -> T:
    """Return the result of ``work``, while each of ``others`` is called repeatedly in a thread.

    Each is called at least once. Raises the error of the first that failed, ``work`` before
    ``others``, after all have ended.
    """
    done = threading.Event()

    def run() -> T:
        try:
            return work()
        finally:
            done.set()

    def repeat(job: Callable[[], object]) -> None:
        job()
        while not done.is_set():
            job()

    result, *_ = race(run, *(partial(repeat, job) for job in others))
    return cast("T", result)
