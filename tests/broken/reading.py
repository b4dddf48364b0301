"""Backends that return wrong bytes, too many bytes, or another session's bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from typing import Any, BinaryIO

from sessionstore.backend import Reference
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.clock import Clock
from sessionstore.errors import FileNotStored
from tests.broken.table import caught_by


@caught_by("ranges", "range_in_steps")
class GivesOneByteMore(MemoryBackend):
    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        return super().open(sid, reference, start, None if length is None else length + 1)


@caught_by("ranges")
class TakesEmptyForMissing(MemoryBackend):
    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        if reference.size == 0:
            raise FileNotStored(reference.name)
        return super().open(sid, reference, *bounds)


class Odd(io.BytesIO):
    """A stream that restarts at its end and cannot be closed twice."""

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if not chunk:
            self.seek(0)
        return chunk

    def close(self) -> None:
        if self.closed:
            raise ValueError("It is closed.")
        super().close()


@caught_by(
    "stream_stays_at_its_end",
    "closing_a_stream_early_and_twice_is_no_error",
    "reading_a_large_file_takes_little_memory",
)
class ReadsIntoOddStreams(MemoryBackend):
    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        with closing(super().open(sid, reference)) as stream:
            odd = Odd(bytearray(stream.read()))  # a copy
        odd.seek(bounds[0] if bounds else 0)
        return odd


@caught_by("two_streams_of_one_file_have_positions_of_their_own")
class SharesStreams(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._streams: dict[str, BinaryIO] = {}

    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        opened = self._streams.get(reference.token)
        if opened is None or opened.closed:
            opened = self._streams[reference.token] = super().open(sid, reference, *bounds)
        return opened


class Torn(io.RawIOBase):
    """A stream that ends as soon as its file is deleted."""

    def __init__(self, stream: BinaryIO, is_there: Callable[[], bool]) -> None:
        self._stream = stream
        self._is_there = is_there

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        chunk = self._stream.read(len(buffer)) if self._is_there() else b""
        buffer[: len(chunk)] = chunk
        return len(chunk)


@caught_by("stream_opened_before_ends_with_the_bytes")
class EndsStreamsWithTheirFile(MemoryBackend):
    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        def is_there() -> bool:
            return reference in self._place.files(sid).values()

        return io.BufferedReader(Torn(super().open(sid, reference, *bounds), is_there))


@caught_by("replaced_version_cannot_be_opened", "foreign_reference_opens_nothing")
class OpensByName(MemoryBackend):
    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        return super().open(sid, self.get(sid, reference.name), *bounds)


@caught_by("foreign_reference_opens_nothing")
class OpensByDigest(MemoryBackend):
    """Returns the bytes of any digest, without a check of the session."""

    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        blob = self._place.blobs.get(reference.digest)
        if blob is None:
            raise FileNotStored(reference.name)
        return io.BytesIO(blob.data)


@caught_by("another_backend_sees_the_newest_save", "another_backend_does_not_serve_what_is_gone")
class CachesForEver(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._files: dict[tuple[str, str], Reference] = {}
        self._contents: dict[str, bytes] = {}

    def get(self, sid: str, name: str) -> Reference:
        if (sid, name) not in self._files:
            self._files[sid, name] = super().get(sid, name)
        return self._files[sid, name]

    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        if reference.token not in self._contents:
            with closing(super().open(sid, reference)) as stream:
                self._contents[reference.token] = stream.read()
        return io.BytesIO(self._contents[reference.token])


@caught_by("what_is_listed_can_be_read_whatever_was_seen_before")
class OpensWhatItSawBefore(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._seen: dict[tuple[str, str], Reference] = {}

    def get(self, sid: str, name: str) -> Reference:
        return self._seen.setdefault((sid, name), super().get(sid, name))

    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        if self._seen.get((sid, reference.name), reference) != reference:
            raise FileNotStored(reference.name)
        return super().open(sid, reference, *bounds)


@caught_by("foreign_file_is_not_stored", "missing_file_is_not_stored")
class LooksInEverySession(MemoryBackend):
    def get(self, sid: str, name: str) -> Reference:
        for record in self.sessions():
            if name in self._place.files(record.sid):
                return super().get(record.sid, name)
        raise FileNotStored(name)


@caught_by("names_that_look_like_the_other_s_place_do_not_lead_there")
class TakesNamesForPaths(MemoryBackend):
    def get(self, sid: str, name: str) -> Reference:
        other, _, rest = name.partition("/")
        return super().get(other, rest) if rest and self.session(other) else super().get(sid, name)
