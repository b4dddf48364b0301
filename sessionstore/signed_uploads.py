"""Uploads straight to the backend: by presigned URLs, so that no byte passes through the app.

    upload = session.begin_signed_upload("film.mp4", size)
    upload.urls([1, 2])        # the client sends part 1 and part 2 there, by PUT
    upload.finish()            # the file exists

What is known of an upload is in a hidden file of the session, as for uploads in pieces. Its bytes
are at a key of the bucket that no file refers to. ``finish`` joins them, reads them once, as a
stream, and saves them like any content: a client's own word for the digest of its bytes proves
nothing, and a store's checksum of several parts is not the digest of the whole.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import ClassVar, Final

from sessionstore._threads import in_thread
from sessionstore.backend import SignsUploads
from sessionstore.base import BaseStore, SessionHandle
from sessionstore.content import pump
from sessionstore.errors import (
    BackendUnavailable,
    FileNotStored,
    SessionStoreError,
    SettingsError,
    UploadConflict,
)
from sessionstore.names import SIGNED, UPLOADS
from sessionstore.storedfile import PendingSave, StoredFile
from sessionstore.upload_state import PieceSave, UploadRecord, check_begin, keep_note

PART: Final = 16 << 20
"""The least bytes of a part; only the last one may have fewer."""

MOST_PARTS: Final = 10_000
"""The most parts of one upload, as S3 has it. Parts of larger files are larger."""

VALID: Final = timedelta(minutes=15)
"""The time in which a client must begin to send a part after it got the URL."""

_LARGEST: Final = 5 << 40  # bytes: the largest object of S3
_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch


def signer(store: BaseStore) -> SignsUploads:
    """Return the backend as one that signs uploads. Raises SettingsError if it cannot."""
    if not isinstance(store.backend, SignsUploads):
        raise SettingsError(
            "This store's backend takes no uploads by presigned URLs: use begin_upload(), over "
            "HTTP tus, or a store in a bucket of S3."
        )
    return store.backend


def begin_signed(
    session: SessionHandle,
    name: str,
    size: int,
    *,
    digest: str | None,
    metadata: str,
    ttl: timedelta | None,
    within: timedelta,
) -> SignedUpload:
    """Do the work of ``Session.begin_signed_upload``, with a checked ``name``."""
    backend = signer(session.store)
    if type(size) is not int or not 0 <= size <= _LARGEST:
        raise ValueError(f"invalid size={size!r}: give a whole number from 0 to {_LARGEST}.")
    if digest is not None and _is_digest(digest) is None:
        raise ValueError(f"invalid digest={digest!r}: give 64 digits of lower-case hex.")
    check_begin(session, name, size, metadata=metadata, ttl=ttl, within=within)
    id_, expires = secrets.token_hex(16), session.store.backend.now() + within
    with PieceSave(session, f"{UPLOADS}{id_}{SIGNED}{size}", name) as saving:
        if saving.reservation is not None:
            saving.reservation.title = name
            saving.reservation.admit(size)
        parts = backend.begin_parts(session.sid, expires)
        info = {
            "name": name, "metadata": metadata, "ttl": None if ttl is None else ttl.total_seconds(),
            "digest": digest, "part_size": max(PART, -(-size // MOST_PARTS)), "parts": parts,
        }  # fmt: skip
        try:
            keep_note(saving, info, expires)
        except SessionStoreError:
            with suppress(SessionStoreError):  # else a sweep removes it
                backend.discard_parts(parts)
            raise
    return SignedUpload(session, id_)


class SignedUpload(UploadRecord):
    """An upload straight to the backend, as it was when this object was made or last used.

    ``Session.begin_signed_upload`` makes it, and in any process ``Session.signed_upload``. It is
    for one thread at a time.
    """

    _kind: ClassVar[str] = "signed"

    @property
    def size(self) -> int:
        """Return the number of bytes of the whole file."""
        return self._size or 0

    @property
    def part_size(self) -> int:
        """Return the number of bytes of each part; the last one may have fewer."""
        return int(self._read("part_size") or PART)

    @property
    def parts(self) -> int:
        """Return the number of parts; an empty file has one of no bytes. Numbers begin with 1."""
        return max(-(-self.size // self.part_size), 1)

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not there, or have another size.

        Raises FileNotStored if the upload is gone; BackendUnavailable.
        """
        self.refresh()
        if self.finished:
            return []
        try:
            there = signer(self.session.store).part_sizes(self._parts)
        except FileNotStored:
            return []  # the parts are joined, and ``finish`` was interrupted
        return [number for number, size in self._sizes() if there.get(number) != size]

    def urls(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return for each of these parts a URL that takes its bytes by PUT, for 15 minutes.

        The part ``n`` has the bytes from ``(n - 1) * part_size`` on. Raises ValueError for a number
        that no part has; UploadConflict if the upload is finished; BackendUnavailable.
        """
        backend, sizes = signer(self.session.store), dict(self._sizes())
        wanted = list(numbers)
        for number in wanted:
            if number not in sizes:
                raise ValueError(f"There is no part {number!r}: numbers are 1 to {self.parts}.")
        if self.finished:
            raise UploadConflict("The upload is finished: begin another one.")
        return {each: backend.part_url(self._parts, each, sizes[each], VALID) for each in wanted}

    def finish(self) -> StoredFile:
        """Check and save the file. A second call returns the file again.

        Raises UploadConflict if a part is missing or has another size; UploadConflict, and deletes
        the upload, if the bytes do not have the ``digest`` with which it was begun; FileNotStored
        if the upload, or the finished file, is gone; LimitExceeded; BackendUnavailable.
        """
        return super().finish()

    def _save(self) -> None:
        try:
            self._keep()
        except (FileNotStored, BackendUnavailable):
            self.refresh()  # another process may have finished it, and removed the parts
            if self.finished:
                return
            raise
        parts = self._parts
        self._done(self.size)
        signer(self.session.store).discard_parts(parts)

    def _keep(self) -> None:
        expected, ledger = self._read("digest"), self.session.store.ledger
        with PendingSave(self.session, self.name, self._ttl, fresh=False) as saving:
            if saving.reservation is not None:
                ledger.room.reserve(saving.reservation, self.size)
                saving.reservation.credit = self.size
            sizes = [size for _, size in self._sizes()]
            with closing(signer(self.session.store).join_parts(self._parts, sizes)) as stream:
                pump(stream, saving.ingest)
            if saving.ingest.size != self.size:
                raise BackendUnavailable(
                    f"The backend returned {saving.ingest.size} of {self.size} bytes: finish again."
                )
            content = saving.ingest.finish()
            if expected in {None, content.digest}:
                saving.keep(content)
                return
            content.close()
        self.abort()
        raise UploadConflict(
            f"The bytes have the digest {content.digest}, not {expected}: the upload is deleted, "
            "begin another one."
        )

    def abort(self) -> None:
        """Delete the upload and its parts; a file that it was finished into stays."""
        self.refresh()
        if not self.finished:
            signer(self.session.store).discard_parts(self._parts)
        self.remove(self.kept, "the upload was aborted")

    @property
    def _parts(self) -> str:
        """The backend's name of the upload."""
        return str(self._read("parts"))

    def _sizes(self) -> Iterator[tuple[int, int]]:
        """Yield the number and the size of each part."""
        each = self.part_size
        for number in range(1, self.parts + 1):
            yield number, min(each, self.size - (number - 1) * each)

    refresh_async: Final = in_thread(UploadRecord.refresh)
    missing_async: Final = in_thread(missing)
    urls_async: Final = in_thread(urls)
    finish_async: Final = in_thread(finish)
    abort_async: Final = in_thread(abort)
