"""I8, bounded: memory grows neither with a file's size nor with the number of files seen."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

import pytest

from sessionstore import names
from sessionstore.content import CHUNK
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, Subject

PIECES: Final = 64
"""The size of the large content in units of ``CHUNK``: 64 MiB, much more than the allowance."""

ALLOWANCE: Final = 16 << 20
"""Bytes of memory that a save or a read may take: 16 MiB."""

PER_FILE: Final = 100
"""Bytes of memory allowed per file: the noise of the allocator and of caches. A backend that
remembers one name and digest per file takes more."""


class IsBounded(Rig):
    """Tests of the peak memory for one large file, and of the growth over many small files."""

    def test_saving_a_large_file_takes_little_memory(self, subject: Subject) -> None:
        kept = PIECES * CHUNK if self.keeps_content_in_memory else 0
        with _traced() as peak:
            subject.put("a", _pieces())
            assert peak() <= kept + ALLOWANCE

    @pytest.mark.parametrize("start", [0, PIECES * CHUNK - 10])
    def test_reading_a_large_file_takes_little_memory(self, subject: Subject, start: int) -> None:
        reference = subject.put("a", _pieces()).reference
        with _traced() as peak:
            with closing(subject.backend.open(ALICE.sid, reference, start)) as stream:
                size = sum(len(chunk) for chunk in iter(lambda: stream.read(CHUNK), b""))
            assert peak() <= ALLOWANCE
        assert size == PIECES * CHUNK - start

    def test_files_that_are_gone_take_no_memory(self, subject: Subject) -> None:
        def come_and_go(number: int) -> None:
            subject.put(f"{number}", f"{number}".encode())
            subject.read(f"{number}")
            subject.backend.delete(ALICE.sid, [f"{number}"])

        assert self._growth(come_and_go) <= self.many * PER_FILE

    def test_sessions_that_are_gone_take_no_memory(self, subject: Subject) -> None:
        keys = [names.session_key(f"visitor {number}") for number in range(2 * self.many)]

        def come_and_go(number: int) -> None:
            key = keys[number]
            subject.put("a", f"{number}".encode(), key)
            subject.backend.touch(key.sid)
            subject.backend.end(key.sid)
            subject.backend.drop(key.sid)

        assert self._growth(come_and_go) <= self.many * PER_FILE

    def _growth(self, act: Callable[[int], None]) -> int:
        """Return the growth of memory in bytes over ``many`` acts, after as many to warm up."""
        with _traced() as grown:
            for number in range(self.many):
                act(number)
            before = _now(grown)
            for number in range(self.many, 2 * self.many):
                act(number)
            return _now(grown) - before


def _pieces() -> Iterator[bytes]:
    return (bytes([number]) * CHUNK for number in range(PIECES))


@contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    """Trace allocations; yield a function that returns the peak since the start, in bytes."""
    traced_already = tracemalloc.is_tracing()
    gc.collect()
    if not traced_already:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        if not traced_already:
            tracemalloc.stop()


def _now(peak: Callable[[], int]) -> int:
    gc.collect()
    tracemalloc.reset_peak()
    return peak()
