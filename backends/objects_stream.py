"""A content's bytes as a stream that heals: what arrives damaged is fetched again, then elsewhere.

A whole read is compared with size and digest before its last byte is handed out, a short one before
its first. When it is wrong, or breaks off, the same object is asked for once more, then every other
copy of the content; each has to begin with the bytes that were handed out already. Only when none
is right the read raises.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from sessionstore.backend import Reference
from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_bucket import Bucket
from sessionstore.backends.objects_client import Download, NotFound, TakesSeveral
from sessionstore.backends.objects_parallel import ReadAhead
from sessionstore.backends.objects_recall import Recall
from sessionstore.content import CHUNK, hasher
from sessionstore.errors import BackendUnavailable, Corrupted, FileNotStored

if TYPE_CHECKING:
    from typing_extensions import Buffer as AnyBuffer  # type checkers know it without the package


READ_AHEAD_ABOVE = 8 << 20
"""Bytes from which a read is worth a thread."""


class Copy(NamedTuple):
    """One object that should have the bytes, and the answer to a GET of it."""

    key: str
    download: Download


def whole(bucket: Bucket, recall: Recall, reference: Reference, algorithm: str) -> BinaryIO:
    """The whole content of a version. Raises NotFound when its own copy is not there."""
    key = keys.blob(reference.digest, keys.generation(reference.token))
    first, broken_off = Copy(key, _get(bucket, key, reference.size)), False
    if reference.size <= CHUNK:
        data, broken_off = _taken(first.download.stream, reference.size)
        if _is_right(data, reference, algorithm):
            return io.BytesIO(data)
        first = Copy(key, first.download._replace(stream=io.BytesIO(data)))
    others = _others(bucket, recall, reference, key)
    stream = _Whole(first, others, reference, algorithm, broken_off=broken_off)
    return io.BufferedReader(stream, min(CHUNK, reference.size))


def _taken(stream: BinaryIO, size: int) -> tuple[bytes, bool]:
    """So many bytes of a stream, or one more if it has more; and whether it broke off before."""
    data = b""
    with stream:
        try:
            while len(data) < size and (chunk := stream.read(size + 1 - len(data))):
                data = data + chunk if data else chunk
        except BackendUnavailable:
            return data, True
    return data, False


def _is_right(data: bytes, reference: Reference, algorithm: str) -> bool:
    if len(data) != reference.size:
        return False
    digest = hasher(algorithm)
    digest.update(data)
    return digest.hexdigest() == reference.digest


def _others(bucket: Bucket, recall: Recall, reference: Reference, key: str) -> Iterator[Copy]:
    """The same copy again, then all others."""
    yield from _copies(bucket, [key], reference.size)
    # What came wrong twice is to be adopted by no save: one of these bytes makes its own copy.
    recall.bad.put(keys.generation(reference.token), value=True)
    recall.born.pop(reference.digest)
    found = [it.key for it in bucket.entries(keys.generations(reference.digest))]
    yield from _copies(bucket, (other for other in found if other != key), reference.size)


def _get(bucket: Bucket, key: str, size: int) -> Download:
    """The answer to a GET, read ahead when it is a long one."""
    download = bucket.get(key)
    if size <= READ_AHEAD_ABOVE or not isinstance(bucket.client, TakesSeveral):
        return download
    return download._replace(stream=cast("BinaryIO", ReadAhead(download.stream)))


def _copies(bucket: Bucket, wanted: Iterable[str], size: int) -> Iterator[Copy]:
    for key in wanted:
        try:
            yield Copy(key, _get(bucket, key, size))
        except NotFound:
            continue


class _Whole(io.RawIOBase):
    """The bytes of the first copy that is right, from one after the other."""

    def __init__(
        self,
        first: Copy,
        others: Iterator[Copy],
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
        self._handed = ""
        """The digest of what was handed out, as of the last attempt to read on."""
        self._wrong: list[str] = []
        self._broken_off = broken_off

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: AnyBuffer, /) -> int:
        into = memoryview(buffer).cast("B")[: self._reference.size - self._position]
        if not into:
            return 0
        while not self._fill(into):
            self._turn_to_another()
        self._position += len(into)
        return len(into)

    def readall(self) -> bytes:
        buffer = bytearray(self._reference.size - self._position)
        self.readinto(buffer)
        return bytes(buffer)

    def _fill(self, into: memoryview) -> bool:
        """Whether all of ``into`` came, and completes the content rightly if it should."""
        self._handed = self._hasher.hexdigest()
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
            return b""  # broken off; a store that is gone says so when it is asked again

    def _turn_to_another(self) -> None:
        """Go on with the next copy that begins with the bytes that were handed out."""
        while True:
            self._copy.download.stream.close()
            self._wrong.append(f"{self._copy.key} (ETag {self._copy.download.etag})")
            self._copy = self._next_copy()
            if self._begins_the_same():
                return

    def _next_copy(self) -> Copy:
        for copy in self._others:
            return copy
        if self._broken_off and len(self._wrong) == 1:  # its bytes were right, and it is gone
            raise FileNotStored(self._reference.name)
        raise Corrupted(
            f"The stored bytes of {self._reference.name!r} are damaged: these objects do not give "
            f"{self._reference.size} bytes of {self._algorithm} {self._reference.digest}: "
            f"{', '.join(self._wrong)}. Save the file again."
        )

    def _begins_the_same(self) -> bool:
        self._hasher = hasher(self._algorithm)
        left = self._position
        while left and (chunk := self._read(min(left, CHUNK))):
            self._hasher.update(chunk)
            left -= len(chunk)
        return not left and self._hasher.hexdigest() == self._handed

    def close(self) -> None:
        self._copy.download.stream.close()
        super().close()
