"""Range reads: the requested bytes, or fewer past the end of the file."""

from __future__ import annotations

import io
from typing import Final

import pytest

from sessionstore.content import CHUNK
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, SPOOLED, Subject, some_bytes

SIZE: Final = 1000

BOUNDS: Final = (
    (0, None), (0, 0), (0, 1), (0, 999), (0, 1000), (0, 1001), (1, None), (1, 0), (1, 1), (1, 998),
    (1, 999), (1, 1000), (500, 250), (999, None), (999, 1), (999, 2), (1000, None), (1000, 0),
    (1000, 1), (1001, None), (1001, 1), (10**12, None), (10**12, 10**12), (0, 10**12),
)  # fmt: skip
"""(start, length) for a file of ``SIZE`` bytes."""

FAR_BOUNDS: Final = (
    (CHUNK - 1, 1), (CHUNK - 1, 2), (CHUNK, 1), (CHUNK, CHUNK), (1, 3 * CHUNK), (2 * CHUNK, None),
    (CHUNK - 1, CHUNK + 2), (SPOOLED - 1, 1), (SPOOLED - 1, None), (SPOOLED - 10, 100),
)  # fmt: skip
"""(start, length) for a file of ``SPOOLED`` bytes, around the borders of its pieces."""


class StreamsRanges(Rig):
    """Tests of ranges, and of streams that are read in pieces."""

    @pytest.mark.parametrize(("start", "length"), BOUNDS)
    def test_range_of_a_small_file(self, subject: Subject, start: int, length: int | None) -> None:
        data = some_bytes("small", SIZE)
        subject.put("a", data)
        assert subject.read("a", start=start, length=length) == _part(data, start, length)

    @pytest.mark.parametrize(("start", "length"), [(0, None), (0, 0), (0, 1), (1, None), (5, 5)])
    def test_range_of_an_empty_file(self, subject: Subject, start: int, length: int | None) -> None:
        subject.put("a", b"")
        assert subject.read("a", start=start, length=length) == b""

    def test_ranges_of_a_large_file(self, subject: Subject) -> None:
        data = some_bytes("large", SPOOLED)
        subject.put("a", io.BytesIO(data))
        for start, length in FAR_BOUNDS:
            assert subject.read("a", start=start, length=length) == _part(data, start, length)

    @pytest.mark.parametrize("step", [1000, CHUNK - 1, CHUNK, SPOOLED, 10 * SPOOLED])
    def test_whole_file_in_steps(self, subject: Subject, step: int) -> None:
        data = some_bytes("steps", SPOOLED)
        reference = subject.put("a", io.BytesIO(data)).reference
        with subject.backend.open(ALICE.sid, reference) as stream:
            assert b"".join(iter(lambda: stream.read(step), b"")) == data

    def test_range_in_steps(self, subject: Subject) -> None:
        data = some_bytes("steps", SPOOLED)
        reference = subject.put("a", io.BytesIO(data)).reference
        with subject.backend.open(ALICE.sid, reference, 10, 2 * CHUNK) as stream:
            assert b"".join(iter(lambda: stream.read(7001), b"")) == _part(data, 10, 2 * CHUNK)

    def test_stream_stays_at_its_end(self, subject: Subject) -> None:
        reference = subject.put("a", b"1234").reference
        with subject.backend.open(ALICE.sid, reference) as stream:
            assert [stream.read(), stream.read(), stream.read(1)] == [b"1234", b"", b""]

    def test_two_streams_of_one_file_have_positions_of_their_own(self, subject: Subject) -> None:
        data = some_bytes("two", SPOOLED)
        reference = subject.put("a", io.BytesIO(data)).reference
        with (
            subject.backend.open(ALICE.sid, reference) as one,
            subject.backend.open(ALICE.sid, reference) as two,
        ):
            begin = one.read(CHUNK)
            assert two.read() == data
            assert begin + one.read() == data


def _part(data: bytes, start: int, length: int | None) -> bytes:
    return data[start:] if length is None else data[start : start + length]
