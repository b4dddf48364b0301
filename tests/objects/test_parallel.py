"""Requests side by side, and answers that are read ahead."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable
from typing import BinaryIO, cast

import pytest

from sessionstore import BackendUnavailable
from sessionstore._threads import run_together
from sessionstore.backends.objects.reader import AHEAD, ReadAhead
from sessionstore.content import CHUNK
from tests.support.stores import PATIENCE


class Stream(io.RawIOBase):
    """Gives these chunks, then raises the error if there is one; tells when it is closed."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks = list(chunks)
        self.error = error
        self.asked = 0
        self.ended = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked += 1
        if self.chunks:
            return self.chunks.pop(0)
        if self.error is not None:
            raise self.error
        return b""

    def close(self) -> None:
        super().close()
        self.ended.set()


def ahead(stream: Stream) -> ReadAhead:
    return ReadAhead(cast("BinaryIO", stream))


def read(stream: ReadAhead, size: int) -> list[bytes]:
    found: list[bytes] = []
    while chunk := stream.read(size):
        found.append(chunk)
    return found


def test_what_is_read_ahead_comes_in_order_and_whole() -> None:
    chunks = [bytes([number]) * 1000 for number in range(50)]
    stream = Stream(*chunks)
    with ahead(stream) as reader:
        assert b"".join(read(reader, 300)) == b"".join(chunks)
        assert reader.read(1) == b""
    assert stream.ended.wait(PATIENCE)


def test_an_error_comes_after_the_bytes_before_it() -> None:
    stream = Stream(b"first", error=BackendUnavailable("broken off"))
    with ahead(stream) as reader:
        assert reader.read(10) == b"first"
        with pytest.raises(BackendUnavailable, match="broken off"):
            reader.read(10)
        assert reader.read(10) == b""
    assert stream.ended.wait(PATIENCE)


@pytest.mark.parametrize("error", [None, BackendUnavailable("broken off")])
def test_the_end_is_the_end_before_the_thread_is_over(error: Exception | None) -> None:
    closing = threading.Event()

    class Held(Stream):
        def close(self) -> None:  # the thread's last act
            closing.wait()
            super().close()

    stream = Held(error=error)
    with ahead(stream) as reader:
        with contextlib.suppress(BackendUnavailable):
            assert reader.read(1) == b""
        assert reader.read(1) == b""
        assert not stream.ended.is_set()
        closing.set()
    assert stream.ended.wait(PATIENCE)


def test_it_reads_no_further_ahead_than_it_says() -> None:
    stream = Stream(*[b"x"] * 100)
    with ahead(stream) as reader:
        assert reader.read(1) == b"x"
        assert stream.asked <= 1 + AHEAD + 1  # taken, waiting, and in its hand


def test_closed_before_its_end_it_lets_go_of_the_stream() -> None:
    stream = Stream(*[b"x" * CHUNK] * 100)
    ahead(stream).close()
    assert stream.ended.wait(PATIENCE)
    assert stream.chunks


def test_results_come_in_the_order_of_the_tasks() -> None:
    second_done = threading.Event()

    def first() -> int:
        assert second_done.wait(PATIENCE)  # so both are under way at once
        return 1

    def second() -> int:
        second_done.set()
        return 2

    assert run_together([first, second], 2) == [1, 2]


@pytest.mark.parametrize("at_once", [0, 1])
def test_one_at_a_time_needs_no_threads(at_once: int) -> None:
    here = threading.get_ident()
    assert run_together([threading.get_ident, threading.get_ident], at_once) == [here, here]


def test_after_an_error_nothing_is_begun() -> None:
    begun: list[int] = []
    never = threading.Event()

    def task(number: int) -> Callable[[], int]:
        def work() -> int:
            begun.append(number)
            if number == 0:
                raise BackendUnavailable("no")
            never.wait(0.2)  # all of them 20 s: the error is seen before, and nothing says when
            return number

        return work

    with pytest.raises(BackendUnavailable, match="no"):
        run_together([task(number) for number in range(100)], 2)
    assert len(begun) < 100
