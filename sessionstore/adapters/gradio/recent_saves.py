"""The adapter's kinds of sessions, and the bytes of the files just saved.

An event often returns a file that its handler saved: the page gets it without a request to the
store.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from sessionstore import content, images
from sessionstore.local_copies import RECHECK
from sessionstore.model import Reference, SessionKey
from sessionstore.names import HIDDEN, file_name
from sessionstore.session import Session, Source

if TYPE_CHECKING:
    from sessionstore.store import SessionStore
    from sessionstore.storedfile import StoredFile

_SOURCES: Final = 32 << 20
"""The most bytes of files just saved that are remembered for events that return them."""


class KeptSession(Session):
    """A session with paths in Gradio's cache as file names."""

    __slots__ = ()

    def _named(self, name: str) -> str:
        return file_name(HIDDEN + name)

    def put(
        self, name: str, content: Source, ttl: timedelta | None = None, *, fresh: bool = False
    ) -> StoredFile:
        """``Session.put``; ``fresh`` if no file of that name has other bytes."""
        return self._save(self._named(name), content, ttl, fresh=fresh)

    def refer(self, name: str, known: Reference, ttl: timedelta | None = None) -> Reference:
        """Save a file with the bytes that the store has of ``known``; raise Needed without them."""
        with self.pending_save(self._named(name), ttl, fresh=False) as saving:
            if saving.reservation is not None:
                saving.reservation.admit(known.size)
            return saving.keep(_KnownContent(known.digest, known.size, spool=_Absent())).reference


class TakingSession(KeptSession):
    """A session that gets the files of another one under the names that they have there."""

    __slots__ = ()

    def _named(self, name: str) -> str:
        return file_name(name)


class Needed(Exception):
    """The bytes of a content are needed that were not given."""


class _KnownContent(content.Content):
    """Content without the bytes, which a backend may have."""

    __slots__ = ()

    def chunks(self) -> Iterator[content.Buffer]:
        raise Needed


class _Absent(content.TempSpool):
    """A spool without the bytes, for a backend that adopts those it has, by their digest."""

    def __init__(self) -> None:
        """Make no file."""

    @property
    def file(self) -> Any:  # type: ignore[override]  # nothing sets it
        raise Needed

    def chunks(self) -> Iterator[bytes]:
        raise Needed

    def close(self) -> None:
        """Close nothing."""


class VisitorSession(Session):
    """The session of a visitor, whose new files the page gets without a request."""

    __slots__ = ("_recent",)

    def __init__(self, store: SessionStore, key: SessionKey, recent: RecentSaves) -> None:
        super().__init__(store, key)
        self._recent = recent

    def __reduce__(self) -> tuple[Any, ...]:
        return Session(self.store, self.key).__reduce__()

    def _save(
        self, name: str, content: Source, ttl: timedelta | None, *, fresh: bool
    ) -> StoredFile:
        if images.is_image(content):
            content = images.encode(content, PurePath(name).suffix)
        file = super()._save(name, content, ttl, fresh=fresh)
        if type(content) is bytes or isinstance(content, os.PathLike):
            self._recent.add(self.sid, file.reference, content)
        return file


class _Source(NamedTuple):
    """The bytes of a file that was saved here ``at`` that time, or a local file with them."""

    reference: Reference
    content: bytes | os.PathLike[str]
    at: float

    @property
    def bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else 0


class RecentSaves:
    """The content of the files that this process saved within the last ``RECHECK`` seconds."""

    def __init__(self, seconds: Callable[[], float], digest: str) -> None:
        self.seconds = seconds
        self._digest = digest
        self._lock = threading.Lock()
        self._sources: OrderedDict[tuple[str, str], _Source] = OrderedDict()

    def add(self, sid: str, reference: Reference, content: bytes | os.PathLike[str]) -> None:
        """Note that this content was saved, and forget older ones."""
        now = self.seconds()
        with self._lock:
            self._sources.pop((sid, reference.name), None)
            self._sources[sid, reference.name] = _Source(reference, content, now)
            held = sum(source.bytes for source in self._sources.values())
            for key, oldest in list(self._sources.items()):
                if now - oldest.at < RECHECK and held <= _SOURCES:
                    break
                held -= oldest.bytes
                del self._sources[key]

    def opener(self, sid: str, reference: Reference) -> Callable[[], BinaryIO] | None:
        """Return a function that opens the content of this version, None if it is not here."""
        with self._lock:
            source = self._sources.get((sid, reference.name))
        if source is None or source.reference != reference or self.seconds() - source.at >= RECHECK:
            return None

        def opened() -> BinaryIO:
            data = source.content
            stream: Any = io.BytesIO(data) if isinstance(data, bytes) else open(data, "rb")  # noqa: SIM115 - closed with the stream around it
            return content.verified(stream, reference, self._digest)

        return opened

    def forget(self, sid: str, name: str | None = None) -> None:
        """Forget a file, or all files of a session."""
        with self._lock:
            for key in list(self._sources):
                if key[0] == sid and name in {None, key[1]}:
                    del self._sources[key]
