"""A store in this process's memory: dictionaries under one lock.

For apps that may leave nothing on disk, and the reference model that ``sessionstore.testing``
compares other backends with. What it keeps ends with the process and is not shared with others;
a forked child goes on with a copy of its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import BinaryIO, ClassVar, Self

from sessionstore import values
from sessionstore.backend import (
    Collected,
    Dropped,
    Location,
    Reference,
    Saved,
    SessionKey,
    SessionRecord,
    Stored,
)
from sessionstore.backends._memory_place import MemorySpool, Place, Session, find_place
from sessionstore.backends._memory_stream import Pieces, window
from sessionstore.clock import Clock
from sessionstore.content import DIGESTS, Content
from sessionstore.errors import FileNotStored
from sessionstore.values import Parser

__all__ = ["MemoryBackend", "MemorySpool", "Place"]


class MemoryBackend:
    """Files in memory, each content once, refused rather than evicted when the cap is reached.

    ``memory://`` is a fresh store of its own. ``memory://name`` is one store for everybody in the
    process who asks for that name, and is kept until the process ends.

    Options: ``cap``, the bytes of content it takes, what is still being written included (1 GiB
    by default; the last that opens a named store with a cap sets it), and ``digest``
    (``sha256``, the default, or ``blake3``; fixed when the store is made). The cap does not count
    what a file takes besides its bytes, some 500 bytes: ``Limits.max_session_files`` bounds those.

    Calls from any thread wait for each other; no call does any I/O. Content never changes after
    it was saved, as Python's ``bytes`` cannot, so reads are not verified again.
    """

    options: ClassVar[Mapping[str, Parser]] = {
        "cap": values.size,
        "digest": values.choice(*DIGESTS),
    }

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self.digest = place.digest

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        return cls(find_place((location.netloc + location.path).strip("/"), options), clock)

    def now(self) -> datetime:
        return self._clock.now()

    def spool(self) -> MemorySpool:
        return self._place.spool()

    # Saving and reading

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
    ) -> Saved:
        return self._put(key, name, content, expires, None)

    def restore(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        created: datetime,
        expires: datetime | None = None,
    ) -> Saved:
        return self._put(key, name, content, expires, created)

    def _put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        expires: datetime | None,
        created: datetime | None,
    ) -> Saved:
        with self._place.lock:
            new = self._place.keep(content)
            now = self.now()
            session = self._place.sessions.get(key.sid)
            if session is None:
                session = self._place.sessions[key.sid] = Session(key, now)
            reference = Reference(
                name, content.size, content.digest, created or now, expires,
                self._place.new_token(),
            )  # fmt: skip
            replaced = session.files.get(name)
            session.files[name] = reference
            session.changed(now)
            if replaced is not None:
                self._place.release(replaced)
        return Saved(reference, deduplicated=not new, replaced=replaced)

    def get(self, sid: str, name: str) -> Reference:
        with self._place.lock:
            reference = self._place.files(sid).get(name)
        if reference is None:
            raise FileNotStored(name)
        return reference

    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        with self._place.lock:
            if not _is_current(self._place.files(sid), reference):
                raise FileNotStored(reference.name)
            pieces = self._place.blobs[reference.digest].pieces
        stop = None if length is None else start + length
        return io.BufferedReader(Pieces(window(pieces, start, stop)))

    def files(self, sid: str) -> Iterator[Reference]:
        with self._place.lock:
            return iter(list(self._place.files(sid).values()))

    # Forgetting

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        wanted = list(names)
        with self._place.lock:
            files = self._place.files(sid)
            # Asked for twice, a name is there once.
            there = [files[name] for name in dict.fromkeys(wanted) if name in files]
            return self._forget(sid, there)

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        wanted = list(references)
        with self._place.lock:
            files = self._place.files(sid)
            there = {it.name: it for it in wanted if _is_current(files, it)}
            return self._forget(sid, list(there.values()))

    def _forget(self, sid: str, there: list[Reference]) -> list[Reference]:
        for reference in there:
            del self._place.files(sid)[reference.name]
            self._place.release(reference)
        if there:
            self._place.sessions[sid].bounds = None
        return there

    # Sessions

    def sessions(self) -> Iterator[SessionRecord]:
        with self._place.lock:
            return iter([session.record() for session in self._place.sessions.values()])

    def session(self, sid: str) -> SessionRecord | None:
        with self._place.lock:
            session = self._place.sessions.get(sid)
            return None if session is None else session.record()

    def identify(self, sid: str) -> SessionKey | None:
        with self._place.lock:
            session = self._place.sessions.get(sid)
            return None if session is None else session.key

    def touch(self, sid: str) -> None:
        with self._place.lock:
            if (session := self._place.sessions.get(sid)) is not None:
                session.active = self.now()

    def end(self, sid: str) -> None:
        with self._place.lock:
            if (session := self._place.sessions.get(sid)) is not None:
                session.active = session.ended = self.now()

    def resume(self, sid: str) -> None:
        with self._place.lock:
            if (session := self._place.sessions.get(sid)) is not None:
                session.active, session.ended = self.now(), None

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        with self._place.lock:
            session = self._place.sessions.get(sid)
            if session is None:
                return None
            if unless_active_after is not None and session.active > unless_active_after:
                return None
            if only_ended and session.ended is None:
                return None
            gone = self._forget(sid, list(session.files.values()))
            del self._place.sessions[sid]
        return Dropped(len(gone), sum(reference.size for reference in gone))

    # The rest

    def collect(self, *, force: bool = False) -> Collected:
        """Nothing to do: content goes with its last reference."""
        return Collected(0, 0, 0)

    def stored(self) -> Stored:
        with self._place.lock:
            sizes = [blob.size for blob in self._place.blobs.values()]
        return Stored(len(sizes), sum(sizes))

    def free(self) -> int:
        with self._place.lock:
            return max(self._place.cap - self._place.used(), 0)

    def secret(self) -> bytes:
        return self._place.secret

    def close(self) -> None:
        """Nothing to give back: the place goes with its last user, a named one with the process."""


def _is_current(files: Mapping[str, Reference], reference: Reference) -> bool:
    there = files.get(reference.name)
    return there is not None and there.token == reference.token
