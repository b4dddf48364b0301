"""The writer of an upload in pieces: it keeps each piece, and yields to a rival."""

from __future__ import annotations

import logging
import secrets
from typing import Final, Self

from sessionstore.content import Buffer
from sessionstore.errors import LimitExceeded, SessionStoreError, UploadConflict
from sessionstore.names import UPLOADS
from sessionstore.upload_running import RunningContent
from sessionstore.upload_state import Piece, PieceSave, UploadState

log: Final = logging.getLogger("sessionstore")

_MOST_PIECES: Final = 10_000  # of one upload: each is listed at every request


class UploadWriter:
    """Writes bytes of an upload in order; the end of its ``with`` block acknowledges them.

    After an error of the store the piece in progress is discarded. After any other exception it is
    kept: a client whose connection was cut need not send it again.
    """

    def __init__(self, upload: UploadState, offset: int, piece: int) -> None:
        if upload.finished or offset != upload.offset:
            raise UploadConflict(
                f"The upload is at offset {upload.offset}, not {offset}: continue from there."
            )
        self._upload = upload
        self._session = upload.session
        self._store = self._session.store
        self._most = piece
        self._number = secrets.token_hex(8)
        self._parent = upload.tail
        self._pieces = len(upload.chain)
        self._position = offset
        self._saving: PieceSave | None = None
        self._mine: list[Piece] = []
        self._key = upload.key
        self._store.writers[self._key] = self
        self._running: RunningContent | None = None
        self._has_begun = False

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
            if self._running is not None:
                self._running.write(part)
            left = left[len(part) :]
            if self._taken == self._most:
                self._keep()

    @property
    def _taken(self) -> int:
        return 0 if self._saving is None else self._saving.ingest.size

    def _begin(self) -> PieceSave:
        if not self._has_begun:
            self._has_begun = True
            self._running = self._content()
        limited = self._store.ledger.limited
        title = self._upload.name if limited else None
        if self._pieces >= _MOST_PIECES:
            raise LimitExceeded(
                f"The upload has {_MOST_PIECES} pieces: begin again, and send more bytes at once.",
                limit="max_file",
            )
        self._pieces += 1
        name = f"{UPLOADS}{self._upload.id}/{self._position:012x}.{self._number}.{self._parent}"
        saving = PieceSave(self._session, name, title)
        if saving.reservation is not None:
            saving.reservation.title, saving.reservation.before = title, self._position
        return saving

    def _content(self) -> RunningContent | None:
        contents = self._store.running
        if self._position:
            return contents.take(self._key, self._position, self._parent)
        return contents.begin(self._key, self._upload.size, self._parent)

    def _keep(self) -> None:
        saving, self._saving = self._saving, None
        if saving is None:
            return
        with saving:
            if self._store.writers.get(self._key) is not self:
                raise UploadConflict("Another request has continued this upload meanwhile.")
            content = saving.ingest.finish()
            if self._running is not None:
                self._running.kept(content)
            kept = saving.keep(content, self._upload.expires).reference
        self._mine.append(Piece(self._position, self._number, self._parent, kept))
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
            try:
                self._end(kind, error, trace)
            finally:  # also after an error some pieces were kept
                self._upload.add(self._mine)
                self._settle()
            running, self._running = self._running, None
            if running is not None:
                self._store.running.give_back(
                    self._key, running, self._position, self._parent, self._upload
                )
        except SessionStoreError as problem:
            if error is None:
                raise
            log.info("The last bytes of an upload that broke off were not kept: %s", problem)
        finally:
            if self._running is not None:
                self._running.close()
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

    def _settle(self) -> None:
        """Raise UploadConflict unless these pieces count for good; remove those that do not."""
        if not self._mine:
            return
        disputed = self._upload.disputed(self._mine)
        if self._mine[-1] not in self._upload.chain:
            # Another may have continued some of them while they counted.
            others = (each for each in self._upload.pieces if each.writer != self._number)
            first = max((each.start for each in others if each.parent == self._number), default=0)
        elif disputed:
            ours = (piece.start for piece in disputed if piece in self._mine)
            first = min(ours, default=self._position)
        else:
            return
        lost = [piece.reference for piece in self._mine if piece.start >= first]
        if lost:
            self._upload.remove(lost, "another request was faster")
        self._upload.refresh()
        raise UploadConflict("Another request has continued this upload meanwhile.")
