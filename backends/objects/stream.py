"""A stream of a whole content that verifies its bytes and retries damaged reads.

A read of the whole content is compared with size and digest before its last byte is returned; if it
fits in one chunk, before its first byte. If the bytes are wrong, or the response breaks off, the
stream reads the same object once more, and then every other copy of the content. Each of them must
begin with the bytes that were already returned. The read raises only when no copy is right.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from sessionstore.content import CHUNK, hasher
from sessionstore.errors import BackendUnavailable, Corrupted, FileNotStored
from sessionstore.model import Reference

from . import keys
from .bucket import Bucket
from .cache import LookupCache
from .client import Download, NotFound, TakesSeveral
from .parallel import ReadAhead

if TYPE_CHECKING:
    from typing_extensions import Buffer as AnyBuffer  # type checkers know it without the package


READ_AHEAD_ABOVE = 8 << 20
"""Contents larger than this many bytes are read ahead in a thread."""


class BlobCopy(NamedTuple):
    """One object that should have the bytes, and the response to a GET of it."""

    key: str
    download: Download


def whole(bucket: Bucket, cache: LookupCache, reference: Reference, algorithm: str) -> BinaryIO:
    """Return a stream of a version's whole content.

    Raises NotFound when the version's own copy does not exist.
    """
    key = keys.blob(reference.digest, keys.generation(reference.token))
    first, broken_off = BlobCopy(key, _get(bucket, key, reference.size)), False
    if reference.size <= CHUNK:
        data, broken_off = _read_up_to(first.download.stream, reference.size)
        if _matches(data, reference, algorithm):
            return io.BytesIO(data)
        first = BlobCopy(key, first.download._replace(stream=io.BytesIO(data)))
    others = _other_copies(bucket, cache, reference, key)
    stream = _Whole(first, others, reference, algorithm, broken_off=broken_off)
    return io.BufferedReader(stream, min(CHUNK, reference.size))


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


def _matches(data: bytes, reference: Reference, algorithm: str) -> bool:
    if len(data) != reference.size:
        return False
    digest = hasher(algorithm)
    digest.update(data)
    return digest.hexdigest() == reference.digest


def _other_copies(
    bucket: Bucket, cache: LookupCache, reference: Reference, key: str
) -> Iterator[BlobCopy]:
    """Yield the same copy again, then every other copy."""
    yield from _copies(bucket, [key], reference.size)
    # It was wrong twice: no save may adopt it, so a save of this content uploads a new copy.
    cache.bad.put(keys.generation(reference.token), value=True)
    cache.born.pop(reference.digest)
    listed = [entry.key for entry in bucket.entries(keys.generations(reference.digest))]
    yield from _copies(bucket, (other for other in listed if other != key), reference.size)


def _get(bucket: Bucket, key: str, size: int) -> Download:
    """Return the response to a GET; a long one is read ahead."""
    download = bucket.get(key)
    if size <= READ_AHEAD_ABOVE or not isinstance(bucket.client, TakesSeveral):
        return download
    return download._replace(stream=cast("BinaryIO", ReadAhead(download.stream)))


def _copies(bucket: Bucket, wanted: Iterable[str], size: int) -> Iterator[BlobCopy]:
    for key in wanted:
        try:
            yield BlobCopy(key, _get(bucket, key, size))
        except NotFound:
            continue


class _Whole(io.RawIOBase):
    """A stream that reads one copy after the other, until one is right."""

    def __init__(
        self,
        first: BlobCopy,
        others: Iterator[BlobCopy],
        reference: Reference,
        algorithm: str,
        *,
        broken_off: bool,
    ) -> None:
        self._copy = first
        self._others = others
        self._reference = reference
        self._algorithm = algorithm
        self._position = 0
        self._hasher = hasher(algorithm)
        self._returned = ""
        """The digest of the bytes already returned, set at each attempt to read more."""
        self._wrong: list[str] = []
        self._broken_off = broken_off

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: AnyBuffer, /) -> int:
        into = memoryview(buffer).cast("B")[: self._reference.size - self._position]
        if not into:
            return 0
        while not self._fill(into):
            self._switch_copy()
        self._position += len(into)
        return len(into)

    def readall(self) -> bytes:
        buffer = bytearray(self._reference.size - self._position)
        self.readinto(buffer)
        return bytes(buffer)

    def _fill(self, into: memoryview) -> bool:
        """Fill ``into``; return whether that succeeded.

        At the end of the content it succeeds only if size and digest match too.
        """
        self._returned = self._hasher.hexdigest()
        done = 0
        while done < len(into) and (chunk := self._read(min(len(into) - done, CHUNK))):
            self._hasher.update(chunk)
            into[done : done + len(chunk)] = chunk
            done += len(chunk)
        if done < len(into):
            return False
        if self._position + done < self._reference.size:
            return True
        return self._hasher.hexdigest() == self._reference.digest and not self._read(1)

    def _read(self, size: int) -> bytes:
        try:
            return self._copy.download.stream.read(size)
        except BackendUnavailable:
            self._broken_off = True
            return b""  # broken off; if the store is unavailable, the next GET raises

    def _switch_copy(self) -> None:
        """Continue with the next copy that begins with the bytes already returned."""
        while True:
            self._copy.download.stream.close()
            self._wrong.append(f"{self._copy.key} (ETag {self._copy.download.etag})")
            self._copy = self._next_copy()
            if self._has_returned_bytes():
                return

    def _next_copy(self) -> BlobCopy:
        for copy in self._others:
            return copy
        # The only read broke off and no copy is left: the file was deleted, not damaged.
        if self._broken_off and len(self._wrong) == 1:
            raise FileNotStored(self._reference.name)
        raise Corrupted(
            f"The stored bytes of {self._reference.name!r} are damaged: these objects do not "
            f"return {self._reference.size} bytes with the {self._algorithm} digest "
            f"{self._reference.digest}: {', '.join(self._wrong)}. Save the file again."
        )

    def _has_returned_bytes(self) -> bool:
        self._hasher = hasher(self._algorithm)
        left = self._position
        while left and (chunk := self._read(min(left, CHUNK))):
            self._hasher.update(chunk)
            left -= len(chunk)
        return not left and self._hasher.hexdigest() == self._returned

    def close(self) -> None:
        self._copy.download.stream.close()
        super().close()
