"""Uploads in pieces: the bytes of one file, kept as they arrive, from any replica.

All that is known of an upload is in the store, as hidden files of the session that uploads. So its
limits count the pieces, its drop removes them, another session cannot name them, and every backend
and every replica can go on:

    @/upload/<id>/info.<size>                  the name of the file, and the caller's metadata
    @/upload/<id>/<offset>.<writer>.<parent>   a piece
    @/upload/<id>/signed.<size>                as info, of an upload straight to the backend
    @/upload/<id>/done.<size>                  in place of the others, when the file is saved

All have the time to live of the upload, so the sweep removes what is abandoned.

A *writer* writes pieces one after the other. Its number is in their names, and in the first of them
the number of the ``parent``, the writer that it continues. A replica may still write what it
received while the client goes on at another one; with these numbers the bytes of two writers are
never mixed: where two pieces, *rivals*, continue the same one, the older counts. A writer lists the
pieces after its last one and before its bytes are acknowledged:

* If its own do not count, it removes them and raises UploadConflict, but leaves what another writer
  continues: that one may have been acknowledged before the older piece was there.
* If they count and no piece up to their end has a rival, they are acknowledged.
* Else it looks again for two seconds, since a writer that lost removes its piece at once. A rival
  that is still there was acknowledged before this writer's piece was there, although that is the
  older one by a clock that counts whole seconds, or its process died. The writer then removes its
  own piece; if only an earlier one has the rival, it removes nothing. It raises UploadConflict.

So two writers may both be refused, but never both accepted. What was acknowledged is never removed:
nobody is acknowledged on a piece with a rival, and of two rivals only one is removed at once. Two
gaps are left, for rivals only. A process that stops for two seconds between its list and its
removal could remove too much. In a bucket, whose times are whole seconds, one that dies before its
removal could leave a piece that counts as older than one that was acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import BinaryIO, ClassVar, Final, NamedTuple

from sessionstore.backend import ListsSince
from sessionstore.base import SessionHandle
from sessionstore.content import Ingest, ingest
from sessionstore.errors import FileNotStored, LimitExceeded
from sessionstore.model import Reference
from sessionstore.names import SIGNED, UPLOADS
from sessionstore.parsers import check_duration
from sessionstore.storedfile import Copying, PendingSave, StoredFile

ROOT: Final = "0" * 16
"""The parent of the first piece."""

_is_id = re.compile(r"[0-9a-f]{32}").fullmatch
_piece_of = re.compile(r"([0-9a-f]{12})\.([0-9a-f]{16})\.([0-9a-f]{16})").fullmatch
_info_of = re.compile(r"(info|signed|done)\.([0-9]*)").fullmatch

_LOOKS: Final = (0.1, 0.2, 0.4, 0.6, 0.8)  # seconds between two
_RECENT: Final = timedelta(seconds=6)
"""The age from which on a rival of another writer's piece is what a process left that died."""

_MOST_OPEN: Final = 1000  # uploads of one session
_LONGEST: Final = 8192  # characters of metadata


class _Lock:
    """A lock that can be referred to weakly."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


_finishing: Final[weakref.WeakValueDictionary[str, _Lock]] = weakref.WeakValueDictionary()


class Piece(NamedTuple):
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


def _chain(pieces: Iterable[Piece]) -> list[Piece]:
    """Return the pieces that count, in order: where two continue the same one, the older."""
    following: dict[tuple[str, int], list[Piece]] = {}
    for piece in pieces:
        following.setdefault(piece.continues, []).append(piece)
    chain: list[Piece] = []
    last = (ROOT, 0)
    while last in following:
        each = min(following[last], key=lambda it: (it.reference.created, it.reference.name))
        chain.append(each)
        last = each.writer, each.end
    return chain


class PieceSave(PendingSave):
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


def check_begin(
    session: SessionHandle,
    name: str,
    size: int | None,
    *,
    metadata: str,
    ttl: timedelta | None,
    within: timedelta,
) -> None:
    """Raise an error if an upload of ``size`` bytes may not begin: ValueError or LimitExceeded."""
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError(f"invalid size={size!r}: give a whole number from 0, or None.")
    if len(metadata) > _LONGEST:
        raise ValueError(f"The metadata has {len(metadata)} characters: give at most {_LONGEST}.")
    check_duration("within", within)
    if ttl is not None:
        check_duration("ttl", ttl)
    files = (each.name for each in session.store.backend.files(session.sid))
    mine = (name.removeprefix(UPLOADS) for name in files if name.startswith(UPLOADS))
    if sum("/info." in each or SIGNED in each for each in mine) >= _MOST_OPEN:
        raise LimitExceeded(
            f"The session has {_MOST_OPEN} unfinished uploads: finish or abort some first.",
            limit="max_session_files",
        )
    with PendingSave(session, name, None, fresh=False) as saving:
        if saving.reservation is not None and size is not None:
            saving.reservation.admit(size)


def keep_note(saving: PieceSave, info: object, expires: datetime) -> None:
    """Save a hidden file about an upload. No limit refuses so few bytes."""
    backend = saving.session.store.backend
    unlimited = Ingest(backend.digest, backend.spool)
    saving.keep(ingest(json.dumps(info).encode(), unlimited), expires)


def note(session: SessionHandle, name: str, info: object, expires: datetime) -> None:
    """Save a hidden file about an upload in a save of its own."""
    with PieceSave(session, name, None) as saving:
        keep_note(saving, info, expires)


class UploadRecord(ABC):
    """What the store has of an upload of one kind, as it was when it was last read."""

    _kind: ClassVar[str]
    """The first word in the name of its note, until it is finished."""

    def __init__(self, session: SessionHandle, id: str) -> None:  # noqa: A002 - the public word
        self.session = session
        self._id = id if isinstance(id, str) else ""
        self._prefix: Final = f"{UPLOADS}{self._id}/"
        self._about: dict[str, str | float | None] | None = None
        self._mark: object = None  # of the store's ``ListsSince``, from before the last listing
        self.copying: Copying | None = None
        """Called by ``finish`` with the bytes that it has saved. It raises nothing."""
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
        """Return the ``metadata`` with which the upload was begun."""
        return str(self._read("metadata"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id[:8]}... of {self._size} bytes>"

    def _read(self, field: str) -> str | float | None:
        if self._about is None:
            with closing(self._open(self._info)) as stream:
                self._about = json.loads(stream.read())
        return self._about[field]

    def refresh(self) -> None:
        """Read its state again. Raises FileNotStored if the upload is gone."""
        prefix, store = self._prefix, self.session.store
        if isinstance(store.backend, ListsSince):
            self._mark, _ = store.backend.since(self.session.sid, None)
        infos: dict[str, tuple[Reference, int | None]] = {}
        self.kept: list[Reference] = []
        if _is_id(self._id):
            now = store.now()
            for reference in store.backend.files(self.session.sid):
                expired = reference.expires is not None and reference.expires <= now
                if expired or not reference.name.startswith(prefix):
                    continue
                self.kept.append(reference)
                if info := _info_of(reference.name.removeprefix(prefix)):
                    infos[info[1]] = (reference, int(info[2]) if info[2] else None)
        found = infos.get("done") or infos.get(self._kind)
        if found is None:
            raise FileNotStored(f"upload {self._id[:8]}...")
        self._info, self._size = found
        self._done_at = self._size if "done" in infos else None

    def is_there(self) -> bool:
        """Return whether it is neither finished nor gone, by a look at its note alone."""
        expires, now = self._info.expires, self.session.store.now()
        if self.finished or (expires is not None and expires <= now):
            return False
        return self._is_kept(self._info)

    def _is_kept(self, reference: Reference) -> bool:
        with contextlib.suppress(FileNotStored):
            return self.session.store.backend.get(self.session.sid, reference.name) == reference
        return False

    def finish(self) -> StoredFile:
        """Save the file, and remove what was kept of the upload. See the classes for the errors."""
        one = _finishing.setdefault(self.key, _Lock())
        with one.lock:
            self.refresh()
            if not self.finished:
                self._save()
        reference = self.session.store.backend.get(self.session.sid, self.name)
        return StoredFile(self.session, reference)

    @abstractmethod
    def _save(self) -> None:
        """Save the file, if another process has not done so."""

    @property
    def _ttl(self) -> timedelta | None:
        seconds = self._read("ttl")
        return None if seconds is None else timedelta(seconds=float(seconds))

    def _done(self, size: int) -> None:
        """Note that the file of ``size`` bytes is saved, and remove all else."""
        note(self.session, f"{UPLOADS}{self._id}/done.{size}", self._about, self.expires)
        self.remove(self.kept, "the upload is finished")
        self.refresh()

    def _open(self, reference: Reference) -> BinaryIO:
        return self.session.store.backend.open(self.session.sid, reference)

    def remove(self, references: Iterable[Reference], reason: str) -> None:
        """Remove pieces or notes of the upload. ``reason`` is for the audit log."""
        session, gone = self.session, list(references)
        with session.store.ledger.removing(session.sid, [each.name for each in gone]) as change:
            change.gone = session.store.backend.discard(session.sid, gone)
        session.store.on_removed(session.key, change.gone, "deleted", reason)

    @property
    def key(self) -> str:
        """Return the name of the upload among all of the store."""
        return f"{self.session.sid}/{self._id}"

    @property
    def _is_far(self) -> bool:
        return getattr(self.session.store.backend, "at_once", 1) > 1


class UploadState(UploadRecord):
    """What the store has of an upload in pieces."""

    _kind: ClassVar[str] = "info"

    @property
    def offset(self) -> int:
        """Return the number of bytes that are kept: the upload continues there."""
        return self.chain[-1].end if self.chain else self._done_at or 0

    @property
    def tail(self) -> str:
        """Return the writer of the last piece that counts, which the next one continues."""
        return self.chain[-1].writer if self.chain else ROOT

    def refresh(self) -> None:
        """Read ``offset`` and ``finished`` again. Raises FileNotStored if the upload is gone."""
        super().refresh()
        self.pieces: list[Piece] = []
        for reference in self.kept:
            if piece := _piece_of(reference.name.removeprefix(self._prefix)):
                self.pieces.append(Piece(int(piece[1], 16), piece[2], piece[3], reference))
        self.chain: list[Piece] = [] if self.finished else _chain(self.pieces)

    def add(self, mine: list[Piece]) -> None:
        """Add pieces that continue the chain; list all if any other may have been kept meanwhile.

        Raises FileNotStored if the upload is gone.
        """
        if not self._has_only(mine):
            self.refresh()
            return
        # Copies of this object have the old lists.
        self.kept = [*self.kept, *(piece.reference for piece in mine)]
        self.pieces, self.chain = [*self.pieces, *mine], [*self.chain, *mine]

    def disputed(self, mine: Sequence[Piece] = ()) -> list[Piece]:
        """Return the pieces that count and have a rival, after some looks if there are any.

        Any rival of ``mine`` matters, and a recent one of another piece.
        """
        for seconds in (*_LOOKS, 0.0):
            found = self._disputed(mine)
            if not found or not seconds or (mine and mine[-1] not in self.chain):
                break
            threading.Event().wait(seconds)  # another process is waited for, and it tells nobody
            self.refresh()
        return found

    def _disputed(self, mine: Sequence[Piece]) -> list[Piece]:
        if len(self.chain) == len(self.pieces):
            return []
        recent = self.session.store.now() - _RECENT
        rivals: dict[tuple[str, int], list[Piece]] = {}
        for piece in self.pieces:
            rivals.setdefault(piece.continues, []).append(piece)
        return [
            piece
            for piece in self.chain
            for rival in rivals[piece.continues]
            if rival != piece and (piece in mine or rival.reference.created >= recent)
        ]

    def _has_only(self, mine: list[Piece]) -> bool:
        """Return whether the store says that ``mine`` are the only news of this upload."""
        backend = self.session.store.backend
        if not isinstance(backend, ListsSince):
            return False
        if mine and mine[0].continues != (self.tail, self.offset):
            return False  # some of them were listed already
        if self.chain and not self._is_kept(self.chain[-1].reference):
            return False
        mark, saved = backend.since(self.session.sid, self._mark)
        known = {piece.reference for piece in mine}
        news = [each for each in saved or () if each.name.startswith(self._prefix)]
        if saved is None or not all(each in known or each in self.kept for each in news):
            return False
        self._mark = mark
        return self.is_there()
