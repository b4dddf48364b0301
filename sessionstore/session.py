"""A session: one visitor's own directory of files."""

from __future__ import annotations

import contextlib
import contextvars
import io
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, overload

from sessionstore import images
from sessionstore._os.errors import translated
from sessionstore._threads import in_thread, run_in_thread, run_together
from sessionstore.base import SessionHandle
from sessionstore.content import HASHERS, Buffer, Content, ingest, refuse_text
from sessionstore.errors import FileNotStored
from sessionstore.names import HIDDEN, fresh_name, own_name
from sessionstore.parsers import check_duration
from sessionstore.signed_uploads import SignedUpload, begin_signed
from sessionstore.storedfile import PendingSave, StoredFile
from sessionstore.uploads import WITHIN, Upload, begin

if TYPE_CHECKING:
    from typing_extensions import Buffer as AnyBuffer  # type checkers know it without the package


ASKED_FOR: Final = "asked for"  # the reason of ``Session.drop`` in its event

Source = Buffer | os.PathLike[str] | BinaryIO | Iterable[bytes] | Any
"""Content for ``put``. ``Any`` is for PIL images and numpy arrays, which may not be installed."""


class Usage(NamedTuple):
    """Numbers of files, of their bytes, of stored bytes (equal bytes once), and of sessions."""

    files: int
    bytes: int
    stored_bytes: int
    sessions: int


class Session(SessionHandle):
    """A handle on one session. ``store.session()`` makes it, without I/O.

    The first save creates the session. The same id under another owner is another session.
    """

    __slots__ = ()

    def _named(self, name: str) -> str:
        """Return the name under which a caller's ``name`` is stored. Raises InvalidName."""
        return own_name(name)

    # Saving

    def put(self, name: str, content: Source, ttl: timedelta | None = None) -> StoredFile:
        """Save ``content`` under ``name``. Replaces a file of that name atomically.

        ``content`` is bytes-like, a path (``os.PathLike``, not a str), a binary file (read from its
        position, left open), an iterable of bytes, a PIL image, or a numpy image of shape
        (H, W[, 3|4]) and dtype uint8. Images take the format of the name's suffix, or PNG without a
        suffix. After ``ttl`` the file is no longer served.

        Raises InvalidName before anything is read; TypeError for other content; ValueError for a
        ``ttl`` that is not positive or longer than a hundred years; LimitExceeded;
        BackendUnavailable. An exception of the source passes through. After any exception nothing
        is saved and an older file stays.
        """
        return self._save(self._named(name), content, ttl, fresh=False)

    def add(
        self, content: Source, suffix: str | None = None, ttl: timedelta | None = None
    ) -> StoredFile:
        """Save ``content`` under a new unique name that ends in ``suffix``.

        The default suffix is a path's own, and ``.png`` for an image. See ``put`` for ``ttl`` and
        for the errors.
        """
        if suffix is None and type(content) is bytes:  # the usual case
            suffix = ""
        elif suffix is None:
            suffix = ".png" if images.is_image(content) else ""
            if isinstance(content, os.PathLike):
                suffix = PurePath(content).suffix
        return self._save(fresh_name(suffix), content, ttl, fresh=True)

    def _save(
        self, name: str, content: Source, ttl: timedelta | None, *, fresh: bool
    ) -> StoredFile:
        if ttl is not None:
            check_duration("ttl", ttl)
        if type(content) is not bytes:
            refuse_text(content)
            if images.is_image(content):
                content = images.encode(content, PurePath(name).suffix)
        with PendingSave(self, name, ttl, fresh=fresh) as saving:
            if type(content) is bytes:  # the usual case, with nothing to collect
                if saving.reservation is not None:
                    saving.reservation.admit(len(content))
                digest = HASHERS[self.store.backend.digest](content).hexdigest()
                return saving.keep(Content(digest, len(content), memoryview(content)))
            return saving.keep(ingest(content, saving.ingest))

    def pending_save(self, name: str, ttl: timedelta | None, *, fresh: bool) -> PendingSave:
        """Begin a save: a context manager, which enforces the limits and emits the events.

        Its methods may be called from several threads, one after the other. Raises LimitExceeded.
        """
        return PendingSave(self, name, ttl, fresh=fresh)

    @overload
    def open(self, name: str, mode: Literal["rb"] = "rb") -> io.BufferedReader: ...
    @overload
    def open(self, name: str, mode: Literal["wb"]) -> io.BufferedWriter: ...
    def open(
        self, name: str, mode: Literal["rb", "wb"] = "rb"
    ) -> io.BufferedReader | io.BufferedWriter:
        """Open a binary file for reading (``"rb"``, seekable) or for writing (``"wb"``).

        A file for writing is saved when it is closed. It is not saved at all when the block of its
        ``with`` raises, when a write failed, or when the program loses it without a close. Raises
        InvalidName; FileNotStored when reading; ValueError for another mode.
        """
        name = self._named(name)
        if mode == "rb":
            return self.get(name).open()
        if mode != "wb":
            raise ValueError(f"invalid mode={mode!r}: use 'rb' or 'wb'.")
        return _Writer(_RawWriter(self.pending_save(name, None, fresh=False)))

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Provide a private empty local directory, and save the files in it after the block.

        File names are relative to the directory. A saved file replaces one of the same name; no
        other file is removed. Symbolic links and special files are skipped. If the block raises,
        nothing is saved. If a save raises, other files may be saved. The directory is removed in
        any case; if the process was killed, by the next sweep. A bucket saves many files at once.
        """
        with self.store.local_copies.scratch() as root:
            yield root
            with translated("read a directory that is to be saved", str(root)):
                files = list(regular_files(root, []))
            by_name = {own_name(file.relative_to(root).as_posix()): file for file in files}
            saves = [
                partial(contextvars.copy_context().run, self.put, name, by_name[name])
                for name in sorted(by_name)
            ]
            run_together(saves, getattr(self.store.backend, "at_once", 1))

    # Uploads in pieces, and straight to the backend

    def begin_upload(
        self,
        name: str,
        size: int | None = None,
        *,
        metadata: str = "",
        ttl: timedelta | None = None,
        within: timedelta = WITHIN,
    ) -> Upload:
        """Begin an upload in pieces of the file ``name``, which exists once it is finished.

        ``size`` is the number of its bytes, None if it is not known. ``metadata`` is a text for the
        caller, of up to 8 KiB. ``ttl`` is the file's time to live. An upload that is not finished
        ``within`` that time is deleted. Its pieces count in the session's limits.

        Raises InvalidName; ValueError for a negative ``size``, longer ``metadata``, and a ``ttl``
        or ``within`` that is not positive or longer than a hundred years; LimitExceeded if ``size``
        does not fit; BackendUnavailable.
        """
        return begin(self, self._named(name), size, metadata=metadata, ttl=ttl, within=within)

    def upload(self, id: str) -> Upload:  # noqa: A002 - the field's name
        """Return the upload with this ``Upload.id``, begun by any process.

        Raises FileNotStored if this session has none: it is another session's, over, or malformed.
        """
        return Upload(self, id)

    def begin_signed_upload(
        self,
        name: str,
        size: int,
        *,
        digest: str | None = None,
        metadata: str = "",
        ttl: timedelta | None = None,
        within: timedelta = WITHIN,
    ) -> SignedUpload:
        """Begin an upload of the file ``name`` whose bytes a client sends straight to the backend.

        With a ``digest`` (of the store's algorithm, lower-case hex) the file is saved only if its
        bytes have it. The rest is as in ``begin_upload``: all ``size`` bytes count in the session's
        limits from now on.

        Raises SettingsError if the backend does not take such uploads; and the errors of
        ``begin_upload``.
        """
        return begin_signed(
            self, self._named(name), size, digest=digest, metadata=metadata, ttl=ttl, within=within
        )

    def signed_upload(self, id: str) -> SignedUpload:  # noqa: A002 - the field's name
        """Return the signed upload with this ``SignedUpload.id``, begun by any process.

        Raises FileNotStored if this session has none: it is another session's, over, or malformed.
        """
        return SignedUpload(self, id)

    # Reading

    def get(self, name: str) -> StoredFile:
        """Return the file of that name. Raises FileNotStored, InvalidName."""
        return StoredFile(self, self._alive(self._named(name)))

    def read(self, name: str) -> bytes:
        """Return the bytes of that file. Raises FileNotStored, InvalidName, Corrupted."""
        missing: StoredFile | None = None
        while True:
            file = self.get(name)
            try:
                return file.read()
            except FileNotStored:
                # Another save replaced the file after get(): read the new version. If that save
                # was too late, it was taken back, and this is the same version: read it again.
                if file == missing:
                    raise
                missing = file

    def __contains__(self, name: object) -> bool:
        """Return whether the session has a file of that name."""
        try:
            self.get(name)  # type: ignore[arg-type]  # get() refuses what is not a name
        except (FileNotStored, ValueError, TypeError):
            return False
        return True

    def files(self) -> list[StoredFile]:
        """Return the session's files, ordered by name, without an adapter's own files."""
        return [file for file in self._files() if not file.name.startswith(HIDDEN)]

    def _files(self) -> list[StoredFile]:
        now = self.store.now()
        alive = (
            StoredFile(self, reference)
            for reference in self.store.backend.files(self.sid)
            if reference.expires is None or reference.expires > now
        )
        return sorted(alive, key=lambda file: file.name)

    def usage(self) -> Usage:
        """Return the size of the session, including an adapter's own files.

        ``stored_bytes`` counts equal bytes once.
        """
        files = self._files()
        unique = {file.digest: file.size for file in files}
        total = sum(file.size for file in files)
        return Usage(len(files), total, sum(unique.values()), int(bool(files)))

    # Deleting

    def delete(self, *names: str) -> None:
        """Delete the files of these names. A missing file is no error. Raises InvalidName."""
        named = [self._named(name) for name in names]
        with self.store.ledger.removing(self.sid, named) as change:
            change.gone = self.store.backend.delete(self.sid, named)
        self.store.on_removed(self.key, change.gone, "deleted", "asked for")

    def drop(self) -> None:
        """Delete the session and all its files, now."""
        self.store.drop(self.key, ASKED_FOR)

    # The visitor

    def touch(self) -> None:
        """Mark the session as active now, so that it stays live for a while."""
        self.store.backend.touch(self.sid)

    def end(self) -> None:
        """Mark the session as ended: the visitor left, and it is dropped after ``linger``.

        Each later save or touch postpones the drop; only ``resume`` cancels it. A timer of this
        process drops the session. If the process has died by then, the sweep of any replica does.
        """
        self.store.end(self.key)

    def resume(self) -> bool:
        """Cancel ``end``: the visitor is back. Return whether the session exists."""
        return self.store.resume(self.key)

    # Async versions

    @property
    def _is_far(self) -> bool:
        return getattr(self.store.backend, "at_once", 1) > 1

    begin_upload_async: Final = in_thread(begin_upload)
    upload_async: Final = in_thread(upload)
    begin_signed_upload_async: Final = in_thread(begin_signed_upload)
    signed_upload_async: Final = in_thread(signed_upload)
    put_async: Final = in_thread(put)
    add_async: Final = in_thread(add)
    get_async: Final = in_thread(get)
    read_async: Final = in_thread(read)
    files_async: Final = in_thread(files)
    usage_async: Final = in_thread(usage)
    delete_async: Final = in_thread(delete)
    drop_async: Final = in_thread(drop)
    touch_async: Final = in_thread(touch)
    end_async: Final = in_thread(end)
    resume_async: Final = in_thread(resume)

    @overload
    async def open_async(self, name: str, mode: Literal["rb"] = "rb") -> io.BufferedReader: ...
    @overload
    async def open_async(self, name: str, mode: Literal["wb"]) -> io.BufferedWriter: ...
    async def open_async(
        self, name: str, mode: Literal["rb", "wb"] = "rb"
    ) -> io.BufferedReader | io.BufferedWriter:
        """``open`` in a worker thread; the file itself still blocks."""
        if mode == "rb":
            return await run_in_thread(self.open, name, mode)
        return await run_in_thread(self.open, name, mode)

    @contextlib.asynccontextmanager
    async def directory_async(self) -> AsyncIterator[Path]:
        """``directory``, made and saved in worker threads."""
        manager = self.directory()
        path = await run_in_thread(manager.__enter__)
        try:
            yield path
        except BaseException as error:
            if not await run_in_thread(manager.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await run_in_thread(manager.__exit__, None, None, None)


class _RawWriter(io.RawIOBase):
    """Collects bytes and saves them as a file on close, unless ``forget`` was called."""

    def __init__(self, saving: PendingSave) -> None:
        self._saving = saving
        self._error: BaseException | None = None
        self._forgotten = False

    def writable(self) -> bool:
        return True

    def write(self, data: AnyBuffer, /) -> int:
        view = memoryview(data)
        if self._forgotten:
            return len(view)
        if self._error is not None:
            raise self._error
        try:
            return self._saving.ingest.write(view)
        except BaseException as error:
            self._error = error
            self._saving.__exit__(None, error, None)
            raise

    def forget(self) -> None:
        """Save nothing, and ignore further writes without an error."""
        self._forgotten = True

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._error is None:
                with self._saving:
                    if not self._forgotten:
                        self._saving.keep(self._saving.ingest.finish())
            elif not self._forgotten:  # a program that ignored it must not believe in the save
                raise self._error
        finally:
            super().close()

    def __del__(self) -> None:
        # In a garbage cycle this object may be finalized before the writer around it.
        self.forget()
        self.close()


class _Writer(io.BufferedWriter):
    """A buffered writer that saves nothing when its ``with`` block raises."""

    def __init__(self, raw: _RawWriter) -> None:
        super().__init__(raw)
        self._target = raw

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._target.forget()
        self.close()

    def __del__(self) -> None:
        # Garbage-collected without a close: the file may be incomplete, so it is not saved.
        with contextlib.suppress(ValueError):  # detached: the program has the raw writer
            if not self.closed:
                self._target.forget()
                self.close()


def regular_files(root: Path, skipped: list[Path]) -> Iterator[Path]:
    """Iterate over the regular files below ``root``. Follows no link. Raises OSError.

    Adds the links and special files to ``skipped``.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # of a folder that is gone
            raise error

    for parent, folders, names in os.walk(root, onerror=refuse):
        paths = [Path(parent, name) for name in (*folders, *sorted(names))]
        skipped += [path for path in paths[: len(folders)] if path.is_symlink()]
        for path in paths[len(folders) :]:
            if path.is_file() and not path.is_symlink():
                yield path
            else:
                skipped.append(path)
