"""Uploads in pieces: begun, written, finished, from any process."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import BinaryIO, Final

from sessionstore._threads import in_thread
from sessionstore.base import SessionHandle
from sessionstore.content import CHUNK, Buffer, Content, pump, refuse_text
from sessionstore.errors import FileNotStored, UploadConflict
from sessionstore.names import UPLOADS
from sessionstore.storedfile import PendingSave, StoredFile
from sessionstore.upload_state import UploadState, check_begin, note
from sessionstore.upload_writer import UploadWriter

WITHIN: Final = timedelta(hours=24)
"""The default time to live of an upload that is not finished."""

PIECE: Final = 8 << 20
"""Bytes of a piece: as many are lost at most when a replica dies."""


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
    check_begin(session, name, size, metadata=metadata, ttl=ttl, within=within)
    info = {
        "name": name, "metadata": metadata, "ttl": None if ttl is None else ttl.total_seconds()
    }  # fmt: skip
    id_ = secrets.token_hex(16)
    about = f"{UPLOADS}{id_}/info.{'' if size is None else size}"
    note(session, about, info, session.store.backend.now() + within)
    return Upload(session, id_)


def continued(session: SessionHandle, id: str, offset: int) -> Upload:  # noqa: A002 - the public word
    """Return an upload for a writer at ``offset``, without a listing if this process knows it.

    What others wrote meanwhile is seen before the bytes are acknowledged. Raises FileNotStored.
    """
    known = session.store.running.known(f"{session.sid}/{id}", offset)
    return known if isinstance(known, Upload) and known.is_there() else Upload(session, id)


class Upload(UploadState):
    """An upload in pieces, as it was when this object was made or last used.

    ``Session.begin_upload`` makes it, and in any process ``Session.upload``. It is for one thread
    at a time.
    """

    def write(self, offset: int, content: Buffer | BinaryIO | Iterable[bytes]) -> int:
        """Keep more bytes, from ``offset`` on; return the offset after them.

        ``content`` is bytes-like, a binary file or an iterable of bytes. What it gave before it
        raised an exception is kept; the exception passes through. Raises UploadConflict if the
        upload is at another offset, or another writer was faster: continue from ``offset`` then.
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

        A process that did not receive all of them from the beginning reads the bytes again, and
        compares them with the digest of each piece. Raises UploadConflict
        if ``size`` bytes have not arrived yet; FileNotStored if the upload, or the finished file,
        is gone; Corrupted; LimitExceeded; BackendUnavailable.
        """
        return super().finish()

    def _save(self) -> None:
        for _ in range(2):  # twice as long as a writer looks that removes its piece then
            if not self.disputed():
                break
        if self._size not in {None, self.offset}:
            raise UploadConflict(
                f"The upload has {self.offset} of {self._size} bytes: send the rest first."
            )
        try:
            with PendingSave(self.session, self.name, self._ttl, fresh=False) as saving:
                if saving.reservation is not None:
                    saving.reservation.credit = self.offset
                saving.keep(self._content(saving), then=self.copying)
        except FileNotStored:
            self.refresh()  # another process may have finished it
            if self.finished:
                return
            raise
        self._done(self.offset)

    def _content(self, saving: PendingSave) -> Content:
        """Return the content of the file: the one that was made while it arrived, or read again."""
        running = self.session.store.running.take(self.key, self.offset, self.tail)
        if running is not None:
            with running:
                if saving.reservation is not None:
                    saving.reservation.admit(self.offset)
                return running.finish()
        for piece in self.chain:
            with closing(self._open(piece.reference)) as stream:
                pump(stream, saving.ingest)
        return saving.ingest.finish()

    def abort(self) -> None:
        """Delete the upload and its pieces; a file that it was finished into stays."""
        self.session.store.running.discard(self.key)
        self.refresh()
        self.remove(self.kept, "the upload was aborted")

    refresh_async: Final = in_thread(UploadState.refresh)
    write_async: Final = in_thread(write)
    finish_async: Final = in_thread(finish)
    abort_async: Final = in_thread(abort)
