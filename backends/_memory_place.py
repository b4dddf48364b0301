"""What the memory backend keeps, where all backends on one place find it."""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import cast

from sessionstore.backend import Reference, SessionKey, SessionRecord
from sessionstore.backends._memory_stream import frozen
from sessionstore.content import CHUNK, DIGESTS, Buffer, Content
from sessionstore.errors import LimitExceeded, SettingsError

DEFAULT_CAP = 1 << 30
"""Bytes of content a place takes unless told otherwise: 1 GiB, half of a small (2 GiB) host."""


class Place:
    """What is kept, shared by all backends that were given it.

    Callers of its methods hold its lock; those of ``spool`` need not.
    """

    def __init__(self, cap: int = DEFAULT_CAP, digest: str = DIGESTS[0]) -> None:
        self.lock = threading.RLock()
        self.cap = cap
        self.digest = digest
        self.sessions: dict[str, Session] = {}
        self.blobs: dict[str, Blob] = {}
        self.secret = secrets.token_bytes(32)
        self._kept = 0
        self._versions = count(1)
        # Weak, so that a spool that nobody closed gives its room back all the same.
        self._spools: weakref.WeakSet[MemorySpool] = weakref.WeakSet()

    def used(self) -> int:
        """Bytes of content, kept and on their way in."""
        if not self._spools:  # as a rule, and to go through a weak set of none takes a while
            return self._kept
        return self._kept + sum(spool.unkept for spool in self._spools)

    def spool(self) -> MemorySpool:
        spool = MemorySpool(self)
        with self.lock:
            self._spools.add(spool)
        return spool

    def require(self, size: int) -> None:
        """Raises LimitExceeded when ``size`` bytes more do not fit."""
        if self.used() + size > self.cap:
            raise LimitExceeded(
                f"The memory store is full: {size} bytes more would go over its cap of "
                f"{self.cap}; delete files or drop sessions, or set a larger cap."
            )

    def keep(self, content: Content) -> bool:
        """Count one reference more to a content; whether its bytes are new here."""
        blob = self.blobs.get(content.digest)
        if blob is None:
            self.blobs[content.digest] = Blob(self._take(content), content.size, 1)
            self._kept += content.size
            return True
        blob.references += 1
        return False

    def _take(self, content: Content) -> Sequence[bytes]:
        """The bytes of a content, as pieces that nobody can change; a spool's are not copied."""
        if isinstance(content.spool, MemorySpool):
            return content.spool.keep()
        self.require(content.size)
        return [frozen(chunk) for chunk in content.chunks()]

    def release(self, reference: Reference) -> None:
        """Count one reference less; content goes with its last."""
        blob = self.blobs[reference.digest]
        blob.references -= 1
        if not blob.references:
            del self.blobs[reference.digest]
            self._kept -= blob.size

    def files(self, sid: str) -> dict[str, Reference]:
        """The files of a session by name, none when there is no such session."""
        session = self.sessions.get(sid)
        return {} if session is None else session.files

    def new_token(self) -> str:
        return str(next(self._versions))


class MemorySpool:
    """Bytes on their way in, refused as they come when the place is full."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._pieces: list[bytes] = []
        self._tail = bytearray()
        self.unkept = 0
        """Bytes that are neither kept nor let go of yet."""

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        with self._place.lock:
            self._place.require(len(view))
            self.unkept += len(view)
        if len(view) >= CHUNK:
            self._seal()
            self._pieces.append(frozen(view))
        else:
            self._tail += view
            if len(self._tail) >= CHUNK:  # large pieces: a short one costs more than its bytes
                self._seal()
        return len(view)

    def chunks(self) -> Iterator[bytes]:
        self._seal()
        return iter(self._pieces)

    def keep(self) -> Sequence[bytes]:
        """The pieces, which somebody else answers for from now on."""
        self._seal()
        self.unkept = 0
        return self._pieces

    def close(self) -> None:
        self._pieces, self._tail, self.unkept = [], bytearray(), 0

    def _seal(self) -> None:
        if self._tail:
            self._pieces.append(bytes(self._tail))
            self._tail = bytearray()


@dataclass(slots=True)
class Blob:
    pieces: Sequence[bytes]
    size: int
    references: int


@dataclass(slots=True)
class Session:
    key: SessionKey
    active: datetime
    ended: datetime | None = None
    files: dict[str, Reference] = field(default_factory=dict)
    bounds: tuple[datetime, datetime | None] | None = None
    """``oldest`` and ``expiring``, None when the files have changed since."""

    def changed(self, now: datetime) -> None:
        """Note a save."""
        self.active, self.bounds = now, None

    def record(self) -> SessionRecord:
        if self.bounds is None:
            files = self.files.values()
            self.bounds = (
                min((it.created for it in files), default=self.active),
                min((it.expires for it in files if it.expires is not None), default=None),
            )
        return SessionRecord(self.key.sid, self.active, self.ended, *self.bounds)


_places: dict[str, Place] = {}
_places_lock = threading.Lock()


def find_place(name: str, options: Mapping[str, object]) -> Place:
    """The place of that name, made when there is none; always a new one for the empty name."""
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
            f"digest={digest!r} is not right: memory://{name} was made with {place.digest!r}; "
            "leave the setting out, or use another name."
        )
    if cap is not None:
        place.cap = cap
    return place
