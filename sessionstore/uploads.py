"""Uploads in pieces: the bytes of one file, kept as they arrive, from any replica.

All that is known of an upload is in the store, as hidden files of the session that uploads. So its
limits count the pieces, its drop removes them, another session cannot name them, and every backend
and every replica can go on:

    @/upload/<id>/info.<size>                  the name of the file, and the caller's metadata
    @/upload/<id>/<offset>.<writer>.<parent>   a piece
    @/upload/<id>/done.<size>                  in place of the others, when the file is saved

All have the time to live of the upload, so the sweep removes what is abandoned.

A *writer* writes pieces one after the other. Its number is in their names, and in the first of them
the number of the ``parent``, the writer that it continues. A replica may still write what it
received while the client goes on at another one; with these numbers the bytes of two writers are
never mixed: where two pieces continue the same one, the older counts. A writer lists the pieces
after its last one and before its bytes are acknowledged. If its own do not count, or others are
about as old, it removes them and raises UploadConflict. So two writers may both be refused, but
never both accepted.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import weakref
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from typing import BinaryIO, Final, NamedTuple, Self

from sessionstore._threads import in_thread
from sessionstore.base import SessionHandle
from sessionstore.content import CHUNK, Buffer, Ingest, ingest, pump, refuse_text
from sessionstore.errors import FileNotStored, LimitExceeded, SessionStoreError, UploadConflict
from sessionstore.model import Reference
from sessionstore.names import UPLOADS
from sessionstore.parsers import check_duration
from sessionstore.storedfile import PendingSave, StoredFile

WITHIN: Final = timedelta(hours=24)
"""The default time to live of an upload that is not finished."""

PIECE: Final = 8 << 20
"""Bytes of a piece: as many are lost at most when a replica dies."""

_SETTLED: Final = timedelta(seconds=2)  # some stores count in whole seconds
_MOST_PIECES: Final = 10_000  # of one upload: each is listed at every request
_MOST_OPEN: Final = 1000  # uploads of one session
_LONGEST: Final = 8192  # characters of metadata
_ROOT: Final = "0" * 16  # the parent of the first piece

_is_id = re.compile(r"[0-9a-f]{32}").fullmatch
_piece_of = re.compile(r"([0-9a-f]{12})\.([0-9a-f]{16})\.([0-9a-f]{16})").fullmatch
_info_of = re.compile(r"(info|done)\.([0-9]*)").fullmatch


def _chunks(content: object) -> Iterable[Buffer]:
    """Return the bytes of a bytes-like object, a binary file or an iterable of bytes."""
    if isinstance(content, bytes | bytearray | memoryview):
        return (content,)
    read = getattr(content, "read", None)
    if callable(read):
        return iter(partial(read, CHUNK), b"")
    if isinstance(content, Iterable):
        return content
    raise TypeError(
        f"Cannot upload a {type(content).__name__}: give bytes, a binary file or an iterable of "
        "bytes."
    )


class _Lock:
    """A lock that can be referred to weakly."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


_finishing: Final[weakref.WeakValueDictionary[str, _Lock]] = weakref.WeakValueDictionary()


class _Piece(NamedTuple):
    """A piece: it ``continues`` the writer ``parent`` at ``start``."""

    start: int
    writer: str
    parent: str
    reference: Reference

    @property
    def end(self) -> int:
        return self.start + self.reference.size

    @property
    def continues(self) -> tuple[str, int]:
        return self.parent, self.start


def _chain(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Return the pieces that count, in order: where two continue the same one, the older."""
    following: dict[tuple[str, int], list[_Piece]] = {}
    for piece in pieces:
        following.setdefault(piece.continues, []).append(piece)
    chain: list[_Piece] = []
    last = (_ROOT, 0)
    while last in following:
        each = min(following[last], key=lambda it: (it.reference.created, it.reference.name))
        chain.append(each)
        last = each.writer, each.end
    return chain


def begin(
    session: SessionHandle,
    name: str,
    size: int | None,
    *,
    metadata: str,
    ttl: timedelta | None,
    within: timedelta,
) -> Upload:
    """Do the work of ``Session.begin_upload``, with a checked ``name``."""
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError(f"invalid size={size!r}: give a whole number from 0, or None.")
    if len(metadata) > _LONGEST:
        raise ValueError(f"The metadata has {len(metadata)} characters: give at most {_LONGEST}.")
    check_duration("within", within)
    if ttl is not None:
        check_duration("ttl", ttl)
    store = session.store
    files = (each.name for each in store.backend.files(session.sid))
    if sum(each.startswith(UPLOADS) and "/info." in each for each in files) >= _MOST_OPEN:
        raise LimitExceeded(
            f"The session has {_MOST_OPEN} unfinished uploads: finish or abort some first.",
            limit="max_session_files",
        )
    with PendingSave(session, name, None, fresh=False) as saving:
        if saving.reservation is not None and size is not None:
            saving.reservation.admit(size)
    info = {
        "name": name, "metadata": metadata, "ttl": None if ttl is None else ttl.total_seconds()
    }  # fmt: skip
    id_ = secrets.token_hex(16)
    about = f"{UPLOADS}{id_}/info.{'' if size is None else size}"
    _note(session, about, info, store.backend.now() + within)
    return Upload(session, id_)


def _note(session: SessionHandle, name: str, info: object, expires: datetime) -> None:
    """Save a hidden file about an upload. No limit refuses so few bytes."""
    backend = session.store.backend
    with _PieceSave(session, name, None) as saving:
        unlimited = Ingest(backend.digest, backend.spool)
        saving.keep(ingest(json.dumps(info).encode(), unlimited), expires)


class Upload:
    """An upload in pieces, as it was when this object was made or last used.

    ``Session.begin_upload`` makes it, and in any process ``Session.upload``. It is for one thread
    at a time.
    """

    def __init__(self, session: SessionHandle, id: str) -> None:  # noqa: A002 - the public word
        self._session = session
        self._id = id if isinstance(id, str) else ""
        self._about: dict[str, str | float | None] | None = None
        self.refresh()

    @property
    def id(self) -> str:
        """Return the id: 32 random hex digits. Only its own session can use it."""
        return self._id

    @property
    def size(self) -> int | None:
        """Return the number of bytes of the whole file, None if it was not given."""
        return self._size

    @property
    def offset(self) -> int:
        """Return the number of bytes that are kept: the upload continues there."""
        return self._chain[-1].end if self._chain else self._done_at or 0

    @property
    def finished(self) -> bool:
        """Return whether the file is saved."""
        return self._done_at is not None

    @property
    def expires(self) -> datetime:
        """Return the time at which the upload is deleted, finished or not, aware UTC."""
        return self._info.expires or datetime.max.replace(tzinfo=self._info.created.tzinfo)

    @property
    def name(self) -> str:
        """Return the name that the file gets."""
        return str(self._read("name"))

    @property
    def metadata(self) -> str:
        """Return the ``metadata`` of ``Session.begin_upload``."""
        return str(self._read("metadata"))

    def __repr__(self) -> str:
        return f"<Upload {self._id[:8]}... {self.offset} bytes>"

    def _read(self, field: str) -> str | float | None:
        if self._about is None:
            with closing(self._open(self._info)) as stream:
                self._about = json.loads(stream.read())
        return self._about[field]

    def refresh(self) -> None:
        """Read ``offset`` and ``finished`` again. Raises FileNotStored if the upload is gone."""
        prefix, store = f"{UPLOADS}{self._id}/", self._session.store
        infos: dict[str, tuple[Reference, int | None]] = {}
        self._all: list[Reference] = []
        self._pieces: list[_Piece] = []
        if _is_id(self._id):
            now = store.now()
            for reference in store.backend.files(self._session.sid):
                expired = reference.expires is not None and reference.expires <= now
                if expired or not reference.name.startswith(prefix):
                    continue
                self._all.append(reference)
                rest = reference.name.removeprefix(prefix)
                if piece := _piece_of(rest):
                    self._pieces.append(_Piece(int(piece[1], 16), piece[2], piece[3], reference))
                elif info := _info_of(rest):
                    infos[info[1]] = (reference, int(info[2]) if info[2] else None)
        found = infos.get("done") or infos.get("info")
        if found is None:
            raise FileNotStored(f"upload {self._id[:8]}...")
        self._info, self._size = found
        self._done_at = self._size if "done" in infos else None
        self._chain = [] if self.finished else _chain(self._pieces)

    def write(self, offset: int, content: Buffer | BinaryIO | Iterable[bytes]) -> int:
        """Keep more bytes, from ``offset`` on; return the offset after them.

        ``content`` is bytes-like, a binary file or an iterable of bytes. What it gave before it
        raised an exception is kept; the exception passes through. Raises UploadConflict if the
        upload is at another offset, or another writer was faster: none of these bytes count then.
        Raises LimitExceeded and BackendUnavailable; whole pieces before the error are kept.
        """
        refuse_text(content)
        with self.writing(offset) as writer:
            for chunk in _chunks(content):
                writer.write(chunk)
        return self.offset

    def writing(self, offset: int, piece: int = PIECE) -> UploadWriter:
        """Return a writer of the bytes from ``offset`` on, for a ``with`` block.

        It keeps them in pieces of ``piece`` bytes.
        """
        return UploadWriter(self, offset, piece)

    def finish(self) -> StoredFile:
        """Save the file, and remove its pieces. A second call returns the file again.

        Its bytes are read again, and compared with the digest of each piece. Raises UploadConflict
        if ``size`` bytes have not arrived yet; FileNotStored if the upload, or the finished file,
        is gone; Corrupted; LimitExceeded; BackendUnavailable.
        """
        one = _finishing.setdefault(f"{self._session.sid}/{self._id}", _Lock())
        with one.lock:
            self.refresh()
            if not self.finished:
                self._save()
        reference = self._session.store.backend.get(self._session.sid, self.name)
        return StoredFile(self._session, reference)

    def _save(self) -> None:
        if self._size not in {None, self.offset}:
            raise UploadConflict(
                f"The upload has {self.offset} of {self._size} bytes: send the rest first."
            )
        seconds = self._read("ttl")
        ttl = None if seconds is None else timedelta(seconds=float(seconds))
        try:
            with PendingSave(self._session, self.name, ttl, fresh=False) as saving:
                if saving.reservation is not None:
                    saving.reservation.credit = self.offset
                for piece in self._chain:
                    with closing(self._open(piece.reference)) as stream:
                        pump(stream, saving.ingest)
                saving.keep(saving.ingest.finish())
        except FileNotStored:
            self.refresh()  # another process may have finished it
            if self.finished:
                return
            raise
        about = f"{UPLOADS}{self._id}/done.{self.offset}"
        _note(self._session, about, self._about, self.expires)
        self._remove(self._all, "the upload is finished")
        self.refresh()

    def abort(self) -> None:
        """Delete the upload and its pieces; a file that it was finished into stays."""
        self.refresh()
        self._remove(self._all, "the upload was aborted")

    def _open(self, reference: Reference) -> BinaryIO:
        return self._session.store.backend.open(self._session.sid, reference)

    def _remove(self, references: Iterable[Reference], reason: str) -> None:
        session, gone = self._session, list(references)
        with session.store.ledger.removing(session.sid, [each.name for each in gone]) as change:
            change.gone = session.store.backend.discard(session.sid, gone)
        session.store.on_removed(session.key, change.gone, "deleted", reason)

    @property
    def _is_far(self) -> bool:
        return getattr(self._session.store.backend, "at_once", 1) > 1

    refresh_async: Final = in_thread(refresh)
    write_async: Final = in_thread(write)
    finish_async: Final = in_thread(finish)
    abort_async: Final = in_thread(abort)


class _PieceSave(PendingSave):
    """A save of a piece: its events are those of the upload, named by the file."""

    __slots__ = ("title",)
    title: str | None

    def __init__(self, session: SessionHandle, name: str, title: str | None) -> None:
        self.title = title
        super().__init__(session, name, None, fresh=True)

    def _emit_saved(self, saved: object) -> None:
        """Emit nothing: the file does not exist yet."""

    def _emit_refused(self, error: LimitExceeded) -> None:
        session, reason = self._session, str(error)
        session.store.emit(
            "limit_exceeded", session.key, self.title, reason=reason, limit=error.limit
        )


class UploadWriter:
    """Writes bytes of an upload in order; the end of its ``with`` block acknowledges them.

    After an error of the store the piece in progress is discarded. After any other exception it is
    kept: a client whose connection was cut need not send it again.
    """

    def __init__(self, upload: Upload, offset: int, piece: int) -> None:
        if upload.finished or offset != upload.offset:
            raise UploadConflict(
                f"The upload is at offset {upload.offset}, not {offset}: continue from there."
            )
        self._upload = upload
        self._session = upload._session  # noqa: SLF001 - the two are one
        self._store = self._session.store
        self._most = piece
        self._number = secrets.token_hex(8)
        chain = upload._chain  # noqa: SLF001 - the two are one
        self._parent = chain[-1].writer if chain else _ROOT
        self._pieces = len(chain)
        self._position = offset
        self._saving: _PieceSave | None = None
        self._mine: list[_Piece] = []
        self._key = f"{self._session.sid}/{upload.id}"
        self._store.writers[self._key] = self

    def write(self, data: Buffer) -> None:
        """Take the next bytes. Raises UploadConflict, LimitExceeded, BackendUnavailable."""
        left = memoryview(data).cast("B")
        size = self._upload.size
        if size is not None and self._position + self._taken + len(left) > size:
            raise UploadConflict(f"There are more bytes than the {size} of the upload: send fewer.")
        while left:
            if self._saving is None:
                self._saving = self._begin()
            part = left[: self._most - self._taken]
            self._saving.ingest.write(part)
            left = left[len(part) :]
            if self._taken == self._most:
                self._keep()

    @property
    def _taken(self) -> int:
        return 0 if self._saving is None else self._saving.ingest.size

    def _begin(self) -> _PieceSave:
        limited = self._store.ledger.limited
        title = self._upload.name if limited else None
        if self._pieces >= _MOST_PIECES:
            raise LimitExceeded(
                f"The upload has {_MOST_PIECES} pieces: begin again, and send more bytes at once.",
                limit="max_file",
            )
        self._pieces += 1
        name = f"{UPLOADS}{self._upload.id}/{self._position:012x}.{self._number}.{self._parent}"
        saving = _PieceSave(self._session, name, title)
        if saving.reservation is not None:
            saving.reservation.title, saving.reservation.before = title, self._position
        return saving

    def _keep(self) -> None:
        saving, self._saving = self._saving, None
        if saving is None:
            return
        with saving:
            if self._store.writers.get(self._key) is not self:
                raise UploadConflict("Another request has continued this upload meanwhile.")
            kept = saving.keep(saving.ingest.finish(), self._upload.expires).reference
        self._mine.append(_Piece(self._position, self._number, self._parent, kept))
        self._position += kept.size
        self._parent = self._number

    def discard(self) -> None:
        """Discard the piece in progress."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._end(kind, error, trace)
            self._upload.refresh()
            self._yield()
        except Exception:
            if error is None:
                raise
        finally:
            if self._store.writers.get(self._key) is self:
                del self._store.writers[self._key]

    def _end(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Keep or discard the piece in progress."""
        if self._saving is not None and isinstance(error, SessionStoreError):
            self._saving.__exit__(kind, error, trace)
            self._saving = None
        elif self._saving is not None and error is not None:
            # The connection was cut, maybe long ago: the client may have gone on elsewhere.
            self._upload.refresh()
            if self._upload.offset != self._position:
                self.discard()
        self._keep()

    def _yield(self) -> None:
        """Remove the pieces of this writer if they have a rival, and raise UploadConflict."""
        if not self._mine:
            return
        mine = {piece.continues: piece.reference.created for piece in self._mine}
        others = [each for each in self._upload._pieces if each.writer != self._number]  # noqa: SLF001 - the two are one
        rivals = [each for each in others if each.continues in mine]
        close = [
            each
            for each in rivals
            if abs(each.reference.created - mine[each.continues]) <= _SETTLED
        ]
        if self._mine[-1] in self._upload._chain and not close:  # noqa: SLF001 - the two are one
            return
        # What another writer continues is not only this one's any more.
        kept = max((each.start for each in others if each.parent == self._number), default=0)
        lost = [piece.reference for piece in self._mine if piece.end > kept]
        self._upload._remove(lost, "another request was faster")  # noqa: SLF001 - the two are one
        self._upload.refresh()
        raise UploadConflict("Another request has continued this upload meanwhile.")
