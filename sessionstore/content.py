"""Reading and writing of content: read once, hashed in the same pass, never whole in memory.

``Ingest`` reads any source that ``Session.put`` accepts and makes a ``Content`` of it. Small
content stays in memory; longer content goes to the backend's ``Spool`` while it is hashed.
``verified`` is the reading side: a stream that raises Corrupted instead of ending with bytes that
differ from the saved ones.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol, Self, runtime_checkable

from sessionstore._os.errors import translated
from sessionstore._streams import ReadStream
from sessionstore.errors import Corrupted, SettingsError
from sessionstore.model import Reference

Buffer = bytes | bytearray | memoryview
"""Bytes-like, for annotations; at run time anything that ``memoryview`` accepts."""

CHUNK = 1 << 20  # bytes read at a time, and the most that a save keeps in memory before it spools


class Hasher(Protocol):
    """The common interface of ``hashlib`` and ``blake3`` objects."""

    def update(self, data: Buffer, /) -> object: ...
    def hexdigest(self) -> str: ...


def _blake3(data: Buffer = b"") -> Hasher:
    try:
        from blake3 import blake3
    except ImportError as error:
        raise SettingsError(
            "digest='blake3' needs the blake3 package: pip install 'sessionstore[blake3]'."
        ) from error
    return blake3(data)  # type: ignore[no-any-return, unused-ignore]  # the extra may be absent


# By algorithm: returns the hash object of some bytes.
HASHERS: dict[str, Callable[[Buffer], Hasher]] = {"sha256": hashlib.sha256, "blake3": _blake3}
DIGESTS = tuple(HASHERS)  # the digest algorithms that a store can be created with


def hasher(algorithm: str) -> Hasher:
    """Return a new hash object. Raises SettingsError for ``blake3`` without its extra."""
    if algorithm not in HASHERS:
        raise SettingsError(f"invalid digest={algorithm!r}: choose one of {', '.join(DIGESTS)}.")
    return HASHERS[algorithm](b"")


class Spool(Protocol):
    """A buffer for bytes that are being saved. Closing it discards the bytes that were not kept."""

    def write(self, data: Buffer, /) -> object: ...
    def chunks(self) -> Iterator[Buffer]: ...
    def close(self) -> None: ...


@runtime_checkable
class LeavesMemory(Protocol):
    """A spool in a file of the local disk."""

    def leave_memory(self) -> Callable[[], None]:
        """Have the kernel begin to write the bytes to the disk: no one will read them soon.

        The function that is returned lets it forget what is written by then. Call it once, also
        after ``close``.
        """


class TempSpool:
    """A spool in an anonymous temporary file, for backends without a better place.

    ``file`` is open for reading and writing, in binary and unbuffered: bytes that do not fit on the
    disk are refused when they are written, and not later. The default of ``directory`` is the
    system's folder for temporary files. Raises LimitExceeded if its disk is full, and
    BackendUnavailable for other errors of the disk.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, *, of: str = "the bytes of a save"
    ) -> None:
        """Make the file. ``of`` is what the messages of errors call the bytes."""
        self._directory = directory
        self._of = of
        with self._translated("make a temporary file"):
            self.file: io.FileIO = tempfile.TemporaryFile(buffering=0, dir=directory)  # noqa: SIM115 - close() closes

    def _translated(self, action: str) -> translated:
        folder = self._directory or tempfile.tempdir or "the temporary folder"
        return translated(action, os.fspath(folder), "TMPDIR")

    def write(self, data: Buffer, /) -> int:
        left = memoryview(data)
        with self._translated(f"buffer {self._of}"):
            while left:
                left = left[self.file.write(left) :]
        return len(data)

    def read(self, start: int, size: int) -> bytes:
        """Return the bytes from ``start`` on, at most ``size``; ``write`` continues at the end."""
        with self._translated(f"read {self._of}"):
            self.file.seek(start)
            data = bytearray()
            while len(data) < size and (chunk := self.file.read(size - len(data))):
                data += chunk
            self.file.seek(0, os.SEEK_END)
        return bytes(data)

    def chunks(self) -> Iterator[bytes]:
        with self._translated("read the buffered bytes of a save"):
            self.file.seek(0)
            while chunk := self.file.read(CHUNK):
                yield chunk

    def close(self) -> None:
        self.file.close()


@dataclass(slots=True)
class Content:
    """Bytes that have been read and hashed once.

    Exactly one of ``data`` (the bytes themselves) and ``spool`` (the backend's own) is set.
    """

    digest: str
    size: int
    data: memoryview | None = None
    spool: Spool | None = None

    def chunks(self) -> Iterator[Buffer]:
        """Iterate over the bytes in order; may be called more than once."""
        if self.data is not None:
            return iter((self.data,)) if self.size else iter(())
        if self.spool is None:
            raise ValueError("The content is closed.")
        return self.spool.chunks()

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()
            self.spool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ingest:
    """Bytes of a save: hashed as they arrive, kept in memory up to ``CHUNK``, then spooled.

    ``admit(n)`` is called before each ``n`` bytes are accepted, and may raise to stop the save.
    """

    __slots__ = ("_hasher", "_head", "_spool", "admit", "algorithm", "new_spool", "size")

    def __init__(
        self,
        algorithm: str,
        new_spool: Callable[[], Spool],
        admit: Callable[[int], None] | None = None,
    ) -> None:
        self.algorithm: Final = algorithm
        self.new_spool: Final = new_spool
        self.admit: Final = admit
        self.size: int = 0
        self._hasher = hasher(algorithm)
        self._head = bytearray()
        self._spool: Spool | None = None

    def whole(self, data: Buffer) -> Content:
        """Return the content of a complete flat buffer: hashed in place, not copied."""
        view = self._accept(data)
        return Content(self._hasher.hexdigest(), len(view), view)

    def _accept(self, data: Buffer) -> memoryview:
        view = memoryview(data)
        if self.admit is not None:
            self.admit(len(view))
        self._hasher.update(view)
        return view

    def write(self, data: Buffer) -> int:
        view = self._accept(data)
        if self._spool is None and self.size + len(view) <= CHUNK:
            self._head += view
        else:
            if self._spool is None:
                self._spool = self.new_spool()
                if self._head:
                    self._spool.write(self._head)
                self._head = bytearray()
            self._spool.write(view)
        self.size += len(view)
        return len(view)

    def finish(self) -> Content:
        """Return the bytes so far, as a content that now owns the spool."""
        spool, self._spool = self._spool, None
        digest = self._hasher.hexdigest()
        if spool is not None:
            return Content(digest, self.size, spool=spool)
        return Content(digest, self.size, data=memoryview(self._head))

    def abort(self) -> None:
        """Discard the bytes so far. Does nothing after ``finish``."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None


def ingest(source: object, into: Ingest) -> Content:
    """Return the content of a bytes-like object, a path, a binary file or an iterable of bytes.

    Raises TypeError for other types. An exception of the source passes through. A failure leaves
    nothing behind.
    """
    refuse_text(source)
    if (view := _view(source)) is not None:
        return into.whole(view)
    try:
        if isinstance(source, os.PathLike):
            with open(source, "rb", buffering=0) as file:
                pump(file, into)
        elif callable(getattr(source, "read", None)):
            pump(source, into)
        elif isinstance(source, Iterable):
            for chunk in source:
                _take(chunk, into, "The iterable gave")
        else:
            raise TypeError(
                f"Cannot save a {type(source).__name__}: give bytes, a path, a binary file, an "
                "iterable of bytes, or an image."
            )
        return into.finish()
    finally:
        into.abort()


def refuse_text(source: object) -> None:
    """Raise TypeError for a str: it could be meant as the text or as a path."""
    if isinstance(source, str):
        raise TypeError(
            "A str is not content: encode it (text.encode()) to save the text, or wrap it in "
            "pathlib.Path to save the file of that name."
        )


def pump(file: object, into: Ingest) -> None:
    """Write the rest of a binary file to ``into``."""
    readinto = getattr(file, "readinto", None)
    if isinstance(file, io.RawIOBase | io.BufferedIOBase) and callable(readinto):
        size = CHUNK
        with suppress(OSError):  # a stream without a descriptor
            size = os.fstat(file.fileno()).st_size + 1  # a small buffer is made in less time
        buffer = memoryview(bytearray(min(CHUNK, size)))
        while count := readinto(buffer):
            into.write(buffer[:count])
        return
    read = file.read  # type: ignore[attr-defined]  # the caller checked that it exists
    while chunk := read(CHUNK):
        _take(chunk, into, "The file's read() gave")


def _take(chunk: object, into: Ingest, giver: str) -> None:
    if (view := _view(chunk)) is None:
        raise TypeError(f"{giver} a {type(chunk).__name__}, not bytes; open files in binary mode.")
    into.write(view)


def _view(data: object) -> memoryview | None:
    """Return the bytes of a bytes-like object (mmap and array too), None for other types."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # the call itself is the question
    except TypeError:
        return None
    return view.cast("B") if view.contiguous else memoryview(bytes(view))


class _Checked(ReadStream):
    """Passes on the next ``left`` bytes of a stream; fewer raise Corrupted.

    With a ``hasher`` they are the whole content: more bytes, or another digest, raise it too.
    """

    def __init__(
        self, stream: BinaryIO, reference: Reference, left: int, hasher: Hasher | None = None
    ) -> None:
        self._stream = stream
        self._reference = reference
        self._left = left
        self._hasher = hasher

    def _take(self, size: int) -> bytes:
        most = self._left if self._hasher is None else max(self._left, 1)
        chunk: bytes = self._stream.read(min(size, most))
        if not chunk and self._left and size:
            raise self._damaged(f"they end {self._left} bytes early")
        self._left -= len(chunk)
        if self._hasher is not None:
            self._hasher.update(chunk)
            if self._left < 0:
                raise self._damaged("its length is not the one saved")
            if self._left == 0 and self._hasher.hexdigest() != self._reference.digest:
                # Checked when the last byte is read, not at the end of the stream: the caller never
                # gets a damaged file as a whole.
                raise self._damaged("its digest is not the one saved")
        return chunk

    def _damaged(self, problem: str) -> Corrupted:
        file = self._reference
        return Corrupted(
            f"The stored bytes of {file.name!r} are damaged: {problem} "
            f"({file.size} bytes, {file.digest}). Save the file again."
        )


def verified(stream: BinaryIO, reference: Reference, algorithm: str) -> BinaryIO:
    """Return a stream of a reference's whole content that checks its size and digest.

    If they differ, the read that would return the last byte raises Corrupted.
    """
    checked = _Checked(stream, reference, reference.size, hasher(algorithm))
    return io.BufferedReader(checked, CHUNK)


def limited(stream: BinaryIO, length: int, reference: Reference) -> BinaryIO:
    """Return the first ``length`` bytes of a stream of a part; closing it closes the stream.

    The digest is of the whole content, so a part can only be counted: too few bytes raise
    Corrupted.
    """
    return io.BufferedReader(_Checked(stream, reference, length), min(CHUNK, max(length, 1)))


def read_all(stream: BinaryIO) -> bytes:
    """Return the rest of a stream, and close it."""
    with closing(stream):
        return stream.read()
