"""Read files: find the current version, then read and verify its bytes.

A read of the whole content is compared with size and digest before its last byte is returned; if it
fits in one chunk, before its first byte. If the bytes are wrong, or the response breaks off, the
stream reads the same object once more, and then every other copy of the content. Each of them must
begin with the bytes that were already returned. The read raises only when no copy is right.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue
from typing import BinaryIO, NamedTuple, NoReturn, cast

from sessionstore import names
from sessionstore._streams import ReadStream
from sessionstore.content import CHUNK, HASHERS, hasher, limited
from sessionstore.errors import BackendUnavailable, Corrupted, FileNotStored
from sessionstore.model import Reference

from . import keys
from .cache import RECENT, CachedVersion
from .client import Entry, NotFound, TakesSeveral
from .keys import Version
from .layout import Part


class Reader(Part):
    """Finds and opens the files of one backend."""

    # The current version

    def versions(self, sid: str, file: str) -> list[Version]:
        """Return all versions of a file; one LIST."""
        return list(parsed(self._bucket.entries(keys.files(sid, file))))

    def current(self, sid: str, file: str) -> Version | None:
        """Return the current version of a file, chosen by ``newest``. Usually one LIST."""
        for _ in range(2):  # all may be replaced between the listing and the check of their blobs
            versions = self.versions(sid, file)
            version = self.newest(versions)
            if version is not None or not versions:
                return version
        return None

    def newest(self, versions: list[Version]) -> Version | None:
        """Return the current one of ``versions``, all of one file, or None.

        Of several it is the newest that can neither be taken back nor lose its content; otherwise
        the newest one with content.
        """
        alive = [one for one in versions if self._cache.dead.get(one.generation) is None]
        if len(versions) == 1:
            return alive[0] if alive else None
        unsure: Version | None = None
        for version in sorted(alive, key=attrgetter("token"), reverse=True):
            blob = self._bucket.find(version.blob)
            if blob is None:
                self._cache.dead.put(version.generation, value=True)
            elif version.by_intent or self._terms.is_firm(version, blob):
                return version
            else:
                unsure = unsure or version
        return unsure

    # References

    def get(self, sid: str, name: str) -> Reference:
        file = names.encode(name)
        ticket, at = self._cache.epoch(sid), self._bucket.clock.elapsed()
        version = self.current(sid, file)
        if version is None:
            raise FileNotStored(name)
        reference = to_reference(version, name)
        self._cache.add(sid, file, CachedVersion(reference, at, version.modified), ticket)
        return reference

    def files(self, sid: str) -> Iterator[Reference]:
        """Yield the session's files in the order of their keys."""
        versions = parsed(self._bucket.entries(keys.files(sid)))
        for _, versions_of_file in groupby(versions, attrgetter("file")):
            version = self.newest(list(versions_of_file))
            name = None if version is None else self.name(version)
            if version is not None and name is not None:
                yield to_reference(version, name)

    def name(self, version: Version) -> str | None:
        """Return the original name of a version's file, or None if its object has just gone.

        A name that is too long for a key is in the object's body.
        """
        name = names.decode(version.file)
        if name is not None:
            return name
        body = self._bucket.load(version.key, lambda data: keys.parse_body(version.sid, data))
        return None if body is None else body[1]

    # Bytes

    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        now = self._bucket.clock.elapsed()
        sight = self._cache.sight(sid, names.encode(reference.name))
        # If the cache has another version, that may be the older one, since the caller may have got
        # this one from a later listing. So the file is looked up again.
        if sight is not None and now - sight.at < RECENT and _is(sight.reference, reference):
            return self._stream(reference, start, length)
        opened: list[BinaryIO] = []

        def check() -> None:
            if not _is(self.get(sid, reference.name), reference):
                raise FileNotStored(reference.name)

        def fetch() -> None:
            opened.append(self._stream(reference, start, length))

        try:
            # The bytes of a version never change, so they are on the way while it is checked.
            self._bucket.waits.together([check, fetch])
        except BaseException:
            for stream in opened:
                stream.close()
            raise
        return opened[0]

    def _stream(self, reference: Reference, start: int, length: int | None) -> BinaryIO:
        left = max(reference.size - start, 0)
        size = left if length is None else min(length, left)
        if size == 0:
            return io.BytesIO()
        try:
            if size == reference.size:
                return self._whole(reference)
            blob = keys.blob(reference.digest, keys.generation(reference.token))
            return limited(self._bucket.get(blob, start, size).stream, size, reference)
        except NotFound as error:
            self._cache.dead.put(keys.generation(reference.token), value=True)
            raise FileNotStored(reference.name) from error

    def _whole(self, reference: Reference) -> BinaryIO:
        """Return a stream of the whole content. Raises NotFound without the version's own copy."""
        algorithm = self._terms.digest
        copies = self._copies(reference)
        first, broken_off = next(copies), False
        if reference.size <= CHUNK:
            data, broken_off = _read_up_to(first.stream, reference.size)
            digest = HASHERS[algorithm](data).hexdigest()
            if len(data) == reference.size and digest == reference.digest:
                return io.BytesIO(data)
            first = first._replace(stream=io.BytesIO(data))
        stream = _Whole(first, copies, reference, algorithm)
        stream.broken_off = broken_off
        return io.BufferedReader(stream, min(CHUNK, reference.size))

    def _copies(self, reference: Reference) -> Iterator[BlobCopy]:
        """Yield the version's own copy twice, then every other copy of its content.

        Raises NotFound when the version's own copy does not exist at first.
        """
        generation = keys.generation(reference.token)
        own = keys.blob(reference.digest, generation)
        yield self._copy(own, reference.size)
        with suppress(NotFound):
            yield self._copy(own, reference.size)
        # It was wrong twice: no save may adopt it, so a save of this content uploads a new copy.
        self._cache.bad.put(generation, value=True)
        self._cache.born.pop(reference.digest)
        for entry in list(self._bucket.entries(keys.blob(reference.digest))):
            if entry.key != own:
                with suppress(NotFound):
                    yield self._copy(entry.key, reference.size)

    def _copy(self, key: str, size: int) -> BlobCopy:
        """Return the response to a GET; a long one is read ahead."""
        stream, etag, _ = self._bucket.get(key)
        if size > READ_AHEAD_ABOVE and isinstance(self._bucket.client, TakesSeveral):
            stream = cast("BinaryIO", ReadAhead(stream))
        return BlobCopy(key, etag, stream)


def _is(one: Reference, other: Reference) -> bool:
    return (one.token, one.digest) == (other.token, other.digest)


def parsed(entries: Iterable[Entry]) -> Iterator[Version]:
    """Yield the versions among ``entries``."""
    return filter(None, map(keys.parse_version, entries))


def to_reference(version: Version, name: str) -> Reference:
    """Return the public ``Reference`` of a version."""
    expires: datetime | None = keys.time(version.expires)
    return Reference(
        name, version.size, version.digest, keys.created(version.token), expires, version.token
    )


# Bytes

READ_AHEAD_ABOVE = 8 << 20
"""Contents larger than this many bytes are read ahead in a thread."""

AHEAD = 4
"""Chunks that are read ahead: 4 MiB."""


class BlobCopy(NamedTuple):
    """A response to a GET of an object that should have the bytes."""

    key: str
    etag: Callable[[], object]
    stream: BinaryIO


def _read_up_to(stream: BinaryIO, size: int) -> tuple[bytes, bool]:
    """Return at most ``size`` + 1 bytes of a stream, and whether it broke off with an error."""
    data = b""
    with stream:
        try:
            # One byte more than ``size``, so that a response that is too long does not match.
            while len(data) < size and (chunk := stream.read(size + 1 - len(data))):
                data = data + chunk if data else chunk
        except BackendUnavailable:
            return data, True
    return data, False


class _Whole(ReadStream):
    """A stream that reads one copy after the other, until one is right."""

    def __init__(
        self, first: BlobCopy, others: Iterator[BlobCopy], reference: Reference, algorithm: str
    ) -> None:
        self._key, self._etag, self._stream = first
        self._others = others
        self._reference = reference
        self._algorithm = algorithm
        self._position = 0
        self._hasher = hasher(algorithm)
        self._wrong: list[str] = []
        self.broken_off: bool = False

    def _take(self, size: int) -> bytes:
        """Return ``size`` bytes, or all the rest: until then, another copy may have other ones."""
        left_in_all = self._reference.size - self._position
        size = min(size, left_in_all)
        while size:
            returned, left = self._hasher.hexdigest(), size
            chunks: list[bytes] = []
            while left and (chunk := self._read(min(left, CHUNK))):
                self._hasher.update(chunk)
                chunks.append(chunk)
                left -= len(chunk)
            right = not left
            if right and size == left_in_all:
                right = self._hasher.hexdigest() == self._reference.digest and not self._read(1)
            if right:
                self._position += size
                return b"".join(chunks)
            self._switch_copy(returned)
        return b""

    def readall(self) -> bytes:
        return self._take(self._reference.size)

    def _read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except BackendUnavailable:
            self.broken_off = True
            return b""  # broken off; if the store is unavailable, the next GET raises
        return data

    def _switch_copy(self, returned: str) -> None:
        """Continue with the next copy that begins with the bytes already returned.

        ``returned`` is their digest.
        """
        while True:
            self._stream.close()
            self._wrong.append(f"{self._key} (ETag {self._etag()})")
            self._key, self._etag, self._stream = next(self._others, None) or self._give_up()
            self._hasher, left = hasher(self._algorithm), self._position
            while left and (chunk := self._read(min(left, CHUNK))):
                self._hasher.update(chunk)
                left -= len(chunk)
            if not left and self._hasher.hexdigest() == returned:
                return

    def _give_up(self) -> NoReturn:
        # The only read broke off and no copy is left: the file was deleted, not damaged.
        if self.broken_off and len(self._wrong) == 1:
            raise FileNotStored(self._reference.name)
        raise Corrupted(
            f"The stored bytes of {self._reference.name!r} are damaged: these objects do not "
            f"return {self._reference.size} bytes with the {self._algorithm} digest "
            f"{self._reference.digest}: {', '.join(self._wrong)}. Save the file again."
        )


class ReadAhead(ReadStream):
    """A stream that a thread of its own reads ahead, while the caller does other work.

    A caller that computes a digest would otherwise leave the connection idle half of the time. An
    error of the stream is raised here when the caller reaches it. The thread ends at the end of
    the stream or when this object is closed; it then closes the stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._source = stream
        self._chunks: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._room = threading.Semaphore(AHEAD)
        self._left = b""
        self._ended = self._over = False
        threading.Thread(target=self._pump, name="sessionstore-read", daemon=True).start()

    def _take(self, size: int) -> bytes:
        if not self._left and not self._ended:
            chunk = self._chunks.get()
            self._room.release()
            self._ended = isinstance(chunk, Exception) or not chunk  # nothing comes after it
            if isinstance(chunk, Exception):
                raise chunk
            self._left = chunk
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def _pump(self) -> None:
        try:
            while not self._over and (chunk := self._source.read(CHUNK)):
                self._chunks.put(chunk)
                self._room.acquire()
        except Exception as error:  # noqa: BLE001 - ``read`` raises it
            self._chunks.put(error)
        finally:
            self._chunks.put(b"")
            self._source.close()

    def close(self) -> None:
        self._over = True
        self._room.release()
        super().close()
