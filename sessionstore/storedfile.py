"""A file in a session, and the save that makes it."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from sessionstore._threads import in_thread
from sessionstore.base import SessionHandle
from sessionstore.content import CHUNK, Content, Ingest, read_all
from sessionstore.errors import FileNotStored, LimitExceeded
from sessionstore.limits import Reservation
from sessionstore.media import media_type
from sessionstore.model import Reference, Saved
from sessionstore.parsers import check_duration

if TYPE_CHECKING:
    from typing_extensions import Buffer  # type checkers know it without the package

FIVE_MINUTES = timedelta(minutes=5)


class StoredFile:
    """One version of one file of a session.

    It refers to the saved bytes, not to the name: reading raises FileNotStored after the file was
    deleted, replaced by other bytes, or has expired. ``session.get(name)`` returns the current
    version. It can be pickled, without its bytes.
    """

    __slots__ = ("_reference", "_session")

    def __init__(self, session: SessionHandle, reference: Reference) -> None:
        self._session = session
        self._reference = reference

    @property
    def session(self) -> SessionHandle:
        """Return the session of the file."""
        return self._session

    @property
    def reference(self) -> Reference:
        """Return the backend's reference of this version."""
        return self._reference

    @property
    def name(self) -> str:
        """Return the name in the session, with ``/`` between sub-directories."""
        return self._reference.name

    @property
    def size(self) -> int:
        """Return the length in bytes."""
        return self._reference.size

    @property
    def digest(self) -> str:
        """Return the digest of the bytes in lower-case hex (SHA-256 unless set otherwise)."""
        return self._reference.digest

    @property
    def media_type(self) -> str:
        """Return the media type of the name's extension. It is equal on every machine."""
        return media_type(self._reference.name)

    @property
    def created(self) -> datetime:
        """Return the time of the save, aware UTC."""
        return self._reference.created

    @property
    def expires(self) -> datetime | None:
        """Return the end of the time to live, aware UTC; None without one."""
        return self._reference.expires

    @property
    def session_id(self) -> str:
        """Return the id of the session."""
        return self._session.id

    def __repr__(self) -> str:
        return f"<StoredFile {self.name!r} {self.size} bytes>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StoredFile):
            return NotImplemented
        return (self._session, self._reference) == (other._session, other._reference)

    def __hash__(self) -> int:
        return hash((self._session, self._reference))

    def __deepcopy__(self, memo: object) -> StoredFile:
        """Return the object itself: it is immutable."""
        return self

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from ``start``, or all bytes from there. Fewer at the end.

        Raises FileNotStored; Corrupted when the whole file is read and differs from the saved
        bytes; ValueError for a negative bound.
        """
        if start < 0 or (length is not None and length < 0):
            raise ValueError(
                f"start and length must not be negative (got start={start}, length={length})."
            )
        return read_all(self.stream(start, length))

    def open(self) -> io.BufferedReader:
        """Open the file for reading, binary and seekable. Close it, or use it in a ``with``.

        Raises FileNotStored, here or when the file is deleted while it is read.
        """
        self._check()
        return io.BufferedReader(_Reader(self), CHUNK)

    def local_path(self) -> Path:
        """Return a private read-only copy on the local disk, under the file's name or one like it.

        The copy exists until the store closes or the file is deleted. With the setting
        ``cache_size`` it exists as long as the returned ``Path`` object; then the least recently
        used copies make room for others. A ``str`` of the path keeps nothing. Changes to the copy
        do not reach the stored file. Raises FileNotStored (a deletion by another process is noticed
        within two seconds), LimitExceeded (also if the copies in use fill ``cache_size``),
        BackendUnavailable.
        """
        self._refuse_expired()
        copies = self._session.store.local_copies
        path = copies.path(
            self._session.sid, self._reference, lambda: self.stream(0, None), self._check
        )
        copies.returned(path, self._session.key, self._reference)
        return path

    def url(self, expires: timedelta = FIVE_MINUTES) -> str:
        """Return a URL that serves this file to anyone who has the URL, until ``expires`` is over.

        It is made from the settings ``base_url`` (where the app serves files) and ``secret``. With
        ``redirect`` it is a presigned URL of the backend, which cannot be revoked before
        ``expires``. Raises SettingsError without ``base_url``; FileNotStored; ValueError when
        ``expires`` is not longer than zero, is longer than a hundred years, or is longer than the
        backend allows.
        """
        check_duration("expires", expires)
        self._check()
        return self._session.store.url(self._session.sid, self._reference, expires)

    def _check(self) -> None:
        """Raise FileNotStored if this version is not the current one, or has expired."""
        self._session.check(self._reference)

    def is_there(self) -> bool:
        """Return whether this version is still the current one and has not expired."""
        try:
            self._check()
        except FileNotStored:
            return False
        return True

    def stream(self, start: int, length: int | None) -> BinaryIO:
        """Return the backend's stream of the bytes from ``start``. It is not seekable."""
        self._refuse_expired()
        backend = self._session.store.backend
        return backend.open(self._session.sid, self._reference, start, length)

    def _refuse_expired(self) -> None:
        if self.expires is not None and self.expires <= self._session.store.now():
            raise FileNotStored(self.name)

    @property
    def _is_far(self) -> bool:
        return getattr(self._session.store.backend, "at_once", 1) > 1

    read_async: Final = in_thread(read)
    open_async: Final = in_thread(open)  # noqa: A003 - our own method is meant
    local_path_async: Final = in_thread(local_path)
    url_async: Final = in_thread(url)


Copying = Callable[[Reference, Content], object]
"""Is given a file that was just saved, and its bytes."""


class PendingSave:
    """A save in progress. Enforces the limits, and emits the events of the save or its refusal."""

    __slots__ = ("_fresh", "_ingest", "_name", "_saved", "_session", "_ttl", "reservation")

    def __init__(
        self, session: SessionHandle, name: str, ttl: timedelta | None, *, fresh: bool
    ) -> None:
        self._session = session
        self._name = name
        self._ttl = ttl
        self._fresh = fresh
        self._ingest: Ingest | None = None
        self._saved: Saved | None = None
        self.reservation: Reservation | None = None
        """The share of this save in the limits, None if no limit is set."""
        ledger = session.store.ledger
        if ledger.limited:
            self.reservation = ledger.reservation(session.key, name, fresh=fresh)
            try:
                self.reservation.__enter__()
            except LimitExceeded as error:
                self._emit_refused(error)
                raise

    @property
    def session(self) -> SessionHandle:
        """Return the session of the file."""
        return self._session

    @property
    def ingest(self) -> Ingest:
        """Return the collector of the bytes, made at first use."""
        if self._ingest is None:
            backend, reservation = self._session.store.backend, self.reservation
            admit = None if reservation is None else reservation.admit
            self._ingest = Ingest(backend.digest, backend.spool, admit)
        return self._ingest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        store = self._session.store
        try:
            if self._ingest is not None:
                self._ingest.abort()
        finally:
            if self.reservation is not None:
                self.reservation.__exit__()
        if isinstance(error, LimitExceeded):
            self._emit_refused(error)
        elif error is None and self._saved is not None and (store.audit or store.events.callbacks):
            self._emit_saved(self._saved)

    def _emit_refused(self, error: LimitExceeded) -> None:
        session, reason = self._session, str(error)
        session.store.emit(
            "limit_exceeded", session.key, self._name, reason=reason, limit=error.limit
        )

    def _emit_saved(self, saved: Saved) -> None:
        store, key = self._session.store, self._session.key
        new, old, audit = saved.reference, saved.replaced, store.audit
        if audit is not None and old is not None and old.digest != new.digest:
            audit.replaced(key, old, store.now())
        store.emit("saved", key, new.name, new.size, "saved")
        if saved.deduplicated:
            store.emit("deduplicated", key, new.name, new.size, "the bytes were there already")

    def keep(
        self, content: Content, expires: datetime | None = None, then: Copying | None = None
    ) -> StoredFile:
        """Save ``content``, and close it in any case. ``expires`` replaces the time to live.

        ``then`` is called with the content after it is saved.
        """
        session, backend = self._session, self._session.store.backend
        try:
            # The time to live begins when the file is saved, not when its first byte arrived.
            if self._ttl is not None:
                expires = backend.now() + self._ttl
            put = partial(
                backend.put, session.key, self._name, content, expires=expires, fresh=self._fresh
            )
            if session.store.owners.complete:
                put = partial(session.store.owners.listing, session.key, put)
            share = self.reservation
            self._saved = put() if share is None else share.ledger.keep(share, put)
            if then is not None:
                then(self._saved.reference, content)
        finally:
            if content.spool is not None:
                content.close()
        return StoredFile(session, self._saved.reference)


class _Reader(io.RawIOBase):
    """Reads a stored file in order. After a seek it opens a new stream at the new position."""

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self._position = 0
        self._stream: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if base + offset < 0:
            raise ValueError(f"Cannot seek to {base + offset}: a position must be at least 0.")
        if base + offset != self._position:
            self._let_go()
            self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._stream is None:
            self._stream = self._file.stream(self._position, None)
        if isinstance(self._stream, io.BufferedIOBase):  # without a copy
            count = self._stream.readinto(view)
        else:
            chunk = self._stream.read(len(view))
            count = len(chunk)
            view[:count] = chunk
        self._position += count
        return count

    def _let_go(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        self._let_go()
        super().close()
