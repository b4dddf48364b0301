"""A store in the memory of this process: dictionaries under one lock.

It serves apps that must leave nothing on disk, and it is the reference model that
``sessionstore.testing`` compares other backends with. Its files end with the process, and other
processes do not see them. A forked child continues with its own copy.
"""

from __future__ import annotations

import io
import secrets
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import BinaryIO, ClassVar, Final, Self, cast

from sessionstore import parsers
from sessionstore.clock import Clock
from sessionstore.content import DIGESTS, Buffer, Content, limited
from sessionstore.errors import FileNotStored, LimitExceeded, SettingsError
from sessionstore.model import (
    Collected,
    Dropped,
    Location,
    Reference,
    Saved,
    SessionKey,
    SessionRecord,
    Stored,
)
from sessionstore.parsers import Parser

__all__ = ["MemoryBackend", "MemorySpool", "Place"]

DEFAULT_CAP = 1 << 30
"""Bytes of content that a place takes by default: 1 GiB, half of a small (2 GiB) host."""


class MemoryBackend:
    """Files in memory, deduplicated. A save beyond the cap is refused; no file is evicted for it.

    ``memory://`` opens a new, unshared store. ``memory://name`` opens the store of that name, which
    the whole process shares and which lives until the process ends.

    Options:

    * ``cap``: the most bytes of content, unfinished writes included. The default is 1 GiB. When a
      named store is opened again with a cap, the new cap holds. The cap does not count the overhead
      of a file, some 500 bytes: ``Limits.max_session_files`` bounds that.
    * ``digest``: ``sha256``, the default, or ``blake3``; fixed when the store is made.

    Any thread may call any method; the calls wait for each other and do no I/O. Content is stored
    as Python's ``bytes``, which cannot change, so a read does not verify the digest again.
    """

    options: ClassVar[Mapping[str, Parser]] = {
        "cap": parsers.size,
        "digest": parsers.choice(*DIGESTS),
    }

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self.digest: str = place.digest

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        return cls(find_place((location.netloc + location.path).strip("/"), options), clock)

    def now(self) -> datetime:
        return self._clock.now()

    def spool(self) -> MemorySpool:
        return self._place.spool()

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
    ) -> Saved:
        return self._put(key, name, content, expires)

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
        created: datetime | None = None,
    ) -> Saved:
        place, now = self._place, self.now()
        with place.lock:
            new = place.keep(content)
            session = place.sessions.setdefault(key.sid, Session(key, now))
            token = str(next(place.versions))
            reference = Reference(
                name, content.size, content.digest, created or now, expires, token
            )
            replaced = session.files.get(name)
            session.files[name] = reference
            session.active, session.bounds = now, None
            if replaced is not None:
                place.release(replaced)
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
            if self._place.files(sid).get(reference.name) != reference:
                raise FileNotStored(reference.name)
            data = self._place.blobs[reference.digest].data
        stream = io.BytesIO(data)  # shares the bytes
        stream.seek(start)
        left = max(len(data) - start, 0)
        return stream if length is None else limited(stream, min(length, left), reference)

    def files(self, sid: str) -> Iterator[Reference]:
        with self._place.lock:
            return iter(list(self._place.files(sid).values()))

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        wanted = dict.fromkeys(names)  # a name that is passed twice is deleted once
        with self._place.lock:
            files = self._place.files(sid)
            return self._forget(sid, [files[name] for name in wanted if name in files])

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        wanted = dict.fromkeys(references)
        with self._place.lock:
            files = self._place.files(sid)
            return self._forget(sid, [ref for ref in wanted if files.get(ref.name) == ref])

    def _forget(self, sid: str, references: list[Reference]) -> list[Reference]:
        for reference in references:
            del self._place.files(sid)[reference.name]
            self._place.release(reference)
        if references:
            self._place.sessions[sid].bounds = None
        return references

    def sessions(self) -> Iterator[SessionRecord]:
        with self._place.lock:
            return iter([session.record() for session in self._place.sessions.values()])

    def session(self, sid: str) -> SessionRecord | None:
        with self._place.lock:
            session = self._place.sessions.get(sid)
            return session.record() if session else None

    def identify(self, sid: str) -> SessionKey | None:
        with self._place.lock:
            session = self._place.sessions.get(sid)
            return session.key if session else None

    def touch(self, sid: str) -> None:
        with self._place.lock:
            if (session := self._place.sessions.get(sid)) is not None:
                session.active = self.now()

    def end(self, sid: str) -> SessionRecord | None:
        with self._place.lock:
            if (session := self._place.sessions.get(sid)) is not None:
                session.active = session.ended = self.now()
            return self.session(sid)

    def resume(self, sid: str) -> bool:
        with self._place.lock:
            if (session := self._place.sessions.get(sid)) is None:
                return False
            session.active, session.ended = self.now(), None
            return True

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        with self._place.lock:
            session = self._place.sessions.get(sid)
            if (
                session is None
                or (unless_active_after is not None and session.active > unless_active_after)
                or (only_ended and session.ended is None)
            ):
                return None
            dropped = self._forget(sid, list(session.files.values()))
            del self._place.sessions[sid]
        return Dropped(len(dropped), sum(reference.size for reference in dropped))

    def collect(self, *, force: bool = False) -> Collected:
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
        """Do nothing: Python frees the place after its last user, a named one lives on."""


class Place:
    """The sessions and blobs of one store, shared by all backends that are made with it.

    Hold ``lock`` when you call a method; only ``spool`` takes the lock itself.
    """

    def __init__(self, cap: int = DEFAULT_CAP, digest: str = DIGESTS[0]) -> None:
        self.lock: Final = threading.RLock()
        self.cap = cap
        self.digest = digest
        self.sessions: dict[str, Session] = {}
        self.blobs: dict[str, Blob] = {}
        self.secret: Final = secrets.token_bytes(32)
        self._kept = 0
        self.versions: Final = count(1)
        """Tokens: unique in this place."""
        # A spool that was never closed gives its bytes back when it is freed.
        self._spools: weakref.WeakSet[MemorySpool] = weakref.WeakSet()

    def used(self) -> int:
        """Return the bytes of content and of unfinished writes."""
        if not self._spools:  # the usual case; to iterate over an empty weak set is slow
            return self._kept
        return self._kept + sum(spool.unkept for spool in self._spools)

    def spool(self) -> MemorySpool:
        spool = MemorySpool(self)
        with self.lock:
            self._spools.add(spool)
        return spool

    def require(self, size: int) -> None:
        """Raise LimitExceeded if ``size`` more bytes do not fit."""
        if self.used() + size > self.cap:
            raise LimitExceeded(
                f"The memory store is full: {size} more bytes would exceed its cap of "
                f"{self.cap} bytes; delete files, drop sessions or set a larger cap."
            )

    def keep(self, content: Content) -> bool:
        """Add a reference to ``content``. Return True if its bytes were not stored yet."""
        if (blob := self.blobs.get(content.digest)) is not None:
            blob.references += 1
            return False
        if isinstance(content.spool, MemorySpool):
            data = content.spool.keep()
        else:
            self.require(content.size)
            whole = content.data.obj if content.data is not None else b""
            is_all = type(whole) is bytes and len(whole) == content.size
            data = bytes(whole) if is_all else b"".join(content.chunks())
        self.blobs[content.digest] = Blob(data, content.size, 1)
        self._kept += content.size
        return True

    def release(self, reference: Reference) -> None:
        """Remove ``reference``; content is deleted together with its last reference."""
        blob = self.blobs[reference.digest]
        blob.references -= 1
        if not blob.references:
            del self.blobs[reference.digest]
            self._kept -= blob.size

    def files(self, sid: str) -> dict[str, Reference]:
        return self.sessions[sid].files if sid in self.sessions else {}


class MemorySpool:
    """The bytes of an unfinished save. Each write is refused if the place is full."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bytes = io.BytesIO()
        self.unkept: int = 0
        """Bytes that were written here and are neither saved nor discarded yet."""

    def write(self, data: Buffer, /) -> int:
        size = len(memoryview(data))
        with self._place.lock:
            self._place.require(size)
            self.unkept += size
        return self._bytes.write(data)

    def chunks(self) -> Iterator[bytes]:
        return iter([self._bytes.getvalue()])

    def keep(self) -> bytes:
        """Return the bytes, not copied, for the caller to count."""
        self.unkept = 0
        return self._bytes.getvalue()

    def close(self) -> None:
        self._bytes, self.unkept = io.BytesIO(), 0


@dataclass(slots=True)
class Blob:
    data: bytes
    size: int
    references: int


@dataclass(slots=True)
class Session:
    key: SessionKey
    active: datetime
    ended: datetime | None = None
    files: dict[str, Reference] = field(default_factory=dict)
    bounds: tuple[datetime, datetime | None] | None = None
    """``oldest`` and ``expiring`` of the record, cached; None after the files changed."""

    def record(self) -> SessionRecord:
        if self.bounds is None:
            files = self.files.values()
            self.bounds = (
                min((ref.created for ref in files), default=self.active),
                min((ref.expires for ref in files if ref.expires is not None), default=None),
            )
        return SessionRecord(self.key.sid, self.active, self.ended, *self.bounds)


_places: dict[str, Place] = {}
_places_lock = threading.Lock()


def find_place(name: str, options: Mapping[str, object]) -> Place:
    """Return the place called ``name``, made at its first use; an empty ``name`` is always new."""
    cap = cast("int | None", options.get("cap"))
    digest = cast("str | None", options.get("digest"))
    with _places_lock:
        place = _places.get(name)
        if place is None:
            place = Place(DEFAULT_CAP if cap is None else cap, digest or DIGESTS[0])
            if name:
                _places[name] = place
    if digest not in {None, place.digest}:
        raise SettingsError(
            f"invalid digest={digest!r}: memory://{name} was made with {place.digest!r}; leave "
            "digest out or use another name."
        )
    if cap is not None:
        place.cap = cap
    return place
