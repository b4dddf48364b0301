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
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from typing import BinaryIO, Final, NamedTuple

from sessionstore.base import SessionHandle
from sessionstore.content import Ingest, ingest
from sessionstore.errors import FileNotStored, LimitExceeded
from sessionstore.model import Reference
from sessionstore.names import UPLOADS
from sessionstore.storedfile import PendingSave

ROOT: Final = "0" * 16
"""The parent of the first piece."""

_is_id = re.compile(r"[0-9a-f]{32}").fullmatch
_piece_of = re.compile(r"([0-9a-f]{12})\.([0-9a-f]{16})\.([0-9a-f]{16})").fullmatch
_info_of = re.compile(r"(info|done)\.([0-9]*)").fullmatch


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


def note(session: SessionHandle, name: str, info: object, expires: datetime) -> None:
    """Save a hidden file about an upload. No limit refuses so few bytes."""
    backend = session.store.backend
    with PieceSave(session, name, None) as saving:
        unlimited = Ingest(backend.digest, backend.spool)
        saving.keep(ingest(json.dumps(info).encode(), unlimited), expires)


class UploadState:
    """What the store has of an upload, as it was when it was last read."""

    def __init__(self, session: SessionHandle, id: str) -> None:  # noqa: A002 - the public word
        self.session = session
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
        return self.chain[-1].end if self.chain else self._done_at or 0

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
        prefix, store = f"{UPLOADS}{self._id}/", self.session.store
        infos: dict[str, tuple[Reference, int | None]] = {}
        self.kept: list[Reference] = []
        self.pieces: list[Piece] = []
        if _is_id(self._id):
            now = store.now()
            for reference in store.backend.files(self.session.sid):
                expired = reference.expires is not None and reference.expires <= now
                if expired or not reference.name.startswith(prefix):
                    continue
                self.kept.append(reference)
                rest = reference.name.removeprefix(prefix)
                if piece := _piece_of(rest):
                    self.pieces.append(Piece(int(piece[1], 16), piece[2], piece[3], reference))
                elif info := _info_of(rest):
                    infos[info[1]] = (reference, int(info[2]) if info[2] else None)
        found = infos.get("done") or infos.get("info")
        if found is None:
            raise FileNotStored(f"upload {self._id[:8]}...")
        self._info, self._size = found
        self._done_at = self._size if "done" in infos else None
        self.chain: list[Piece] = [] if self.finished else _chain(self.pieces)

    def _open(self, reference: Reference) -> BinaryIO:
        return self.session.store.backend.open(self.session.sid, reference)

    def remove(self, references: Iterable[Reference], reason: str) -> None:
        """Remove pieces or notes of the upload. ``reason`` is for the audit log."""
        session, gone = self.session, list(references)
        with session.store.ledger.removing(session.sid, [each.name for each in gone]) as change:
            change.gone = session.store.backend.discard(session.sid, gone)
        session.store.on_removed(session.key, change.gone, "deleted", reason)
