"""The base class of raw streams: one method gives reads of every kind."""

from __future__ import annotations

import io

from sessionstore._streams import ReadStream


class Twos(ReadStream):
    """Returns at most two bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def _take(self, size: int) -> bytes:
        taken: bytes = self._stream.read(min(size, 2))
        return taken


def test_a_read_of_a_size_returns_one_piece() -> None:
    assert Twos(b"abcde").read(4) == b"ab"


def test_a_read_without_a_size_returns_the_rest() -> None:
    stream = Twos(b"abcde")
    assert (stream.read(1), stream.read(), stream.read(-1)) == (b"a", b"bcde", b"")


def test_a_buffer_is_filled_from_its_beginning() -> None:
    buffer = bytearray(b"....")
    assert (Twos(b"abc").readinto(buffer), bytes(buffer)) == (2, b"ab..")


def test_closing_it_closes_the_stream_below_once() -> None:
    closed: list[bool] = []

    class Below(io.BytesIO):
        def close(self) -> None:
            closed.append(True)

    stream = Twos(b"")
    stream._stream = Below()
    stream.close()
    stream.close()
    assert (stream.closed, closed) == (True, [True])


def test_it_can_be_buffered() -> None:
    with io.BufferedReader(Twos(b"abcde")) as stream:
        assert (stream.read(3), stream.read()) == (b"abc", b"de")
