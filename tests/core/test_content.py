"""Bytes on their way: read once, hashed in the same pass, and checked on the way out."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.backend import Reference
from sessionstore.content import (
    CHUNK,
    DIGESTS,
    Content,
    Ingest,
    TempSpool,
    hasher,
    ingest,
    limited,
    read_all,
    verified,
)
from sessionstore.errors import BackendUnavailable, Corrupted, LimitExceeded, SettingsError

DATA = bytes(range(256)) * 64


class Spools:
    """Makes spools and remembers them."""

    def __init__(self) -> None:
        self.made: list[TempSpool] = []

    def __call__(self) -> TempSpool:
        self.made.append(TempSpool())
        return self.made[-1]


@pytest.fixture
def spools() -> Spools:
    return Spools()


def taking(spools: Spools, admit: Callable[[int], None] = lambda _: None) -> Ingest:
    return Ingest("sha256", spools, admit)


def joined(content: Content) -> bytes:
    return b"".join(content.chunks())


class TestHasher:
    @pytest.mark.parametrize("algorithm", DIGESTS)
    def test_each_algorithm_is_there(self, algorithm: str) -> None:
        one, two = hasher(algorithm), hasher(algorithm)
        one.update(b"cat")
        assert one.hexdigest() != two.hexdigest()
        assert len(one.hexdigest()) == 64

    def test_sha256_is_sha256(self) -> None:
        one = hasher("sha256")
        one.update(b"cat")
        assert one.hexdigest() == hashlib.sha256(b"cat").hexdigest()

    def test_another_is_refused_and_names_what_there_is(self) -> None:
        with pytest.raises(
            SettingsError, match=r"invalid digest='md5': choose one of sha256, blake3"
        ):
            hasher("md5")

    def test_a_missing_library_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "blake3", None)
        with pytest.raises(SettingsError, match=r"pip install 'sessionstore\[blake3\]'"):
            hasher("blake3")


class TestIngest:
    @given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 200))
    def test_what_comes_in_pieces_is_what_comes_whole(
        self, pieces: list[bytes], chunk: int
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sessionstore.content.CHUNK", chunk)
            with ingest(pieces, taking(Spools())) as content:
                parts = (joined(content), content.size, content.digest)
        whole = b"".join(pieces)
        assert parts == (whole, len(whole), hashlib.sha256(whole).hexdigest())

    def test_bytes_are_not_copied(self, spools: Spools) -> None:
        content = ingest(DATA, taking(spools))
        assert content.data is not None
        assert content.data.obj is DATA

    @pytest.mark.parametrize(("size", "count"), [(0, 0), (CHUNK, 0), (CHUNK + 1, 1)])
    def test_only_what_is_longer_than_a_chunk_is_spooled(
        self, spools: Spools, size: int, count: int
    ) -> None:
        with ingest(iter([bytes(size // 2), bytes(size - size // 2)]), taking(spools)) as content:
            assert joined(content) == bytes(size)
        assert len(spools.made) == count

    def test_content_may_be_read_more_than_once(self, spools: Spools) -> None:
        with ingest([DATA] * 100, taking(spools)) as content:
            assert joined(content) == joined(content) == DATA * 100

    def test_closed_content_is_refused(self, spools: Spools) -> None:
        content = ingest([DATA] * 100, taking(spools))
        content.close()
        content.close()
        with pytest.raises(ValueError, match="closed"):
            content.chunks()

    @pytest.mark.parametrize("source", [bytes(30), [bytes(10)] * 3, io.BytesIO(bytes(30))])
    def test_all_bytes_are_admitted_before_they_are_taken(
        self, spools: Spools, source: Any
    ) -> None:
        admitted: list[int] = []
        ingest(source, taking(spools, admitted.append)).close()
        assert sum(admitted) == 30

    def test_a_refusal_stops_the_source_and_closes_the_spool(self, spools: Spools) -> None:
        left = 3 * CHUNK

        def admit(count: int) -> None:
            nonlocal left
            left -= count
            if left < 0:
                raise ZeroDivisionError

        source = (bytes(CHUNK) for _ in range(10))
        with pytest.raises(ZeroDivisionError):
            ingest(source, taking(spools, admit))
        assert len(list(source)) == 6
        assert [spool.file.closed for spool in spools.made] == [True]

    @pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
    def test_a_failing_source_closes_the_spool(
        self, spools: Spools, error: type[BaseException]
    ) -> None:
        def source() -> Iterator[bytes]:
            yield bytes(2 * CHUNK)
            raise error

        with pytest.raises(error):
            ingest(source(), taking(spools))
        assert [spool.file.closed for spool in spools.made] == [True]

    def test_files_are_read_a_chunk_at_a_time(self, spools: Spools) -> None:
        class Counting(io.BytesIO):
            asked: list[int] = []  # noqa: RUF012 - one object of this class

            def readinto(self, buffer: Any, /) -> int:
                self.asked.append(len(buffer))
                return super().readinto(buffer)

        with ingest(Counting(bytes(3 * CHUNK)), taking(spools)):
            assert set(Counting.asked) == {CHUNK}


def reference(data: bytes) -> Reference:
    digest = hashlib.sha256(data).hexdigest()
    return Reference("a", len(data), digest, datetime(2026, 1, 1, tzinfo=UTC), None, "1")


def read_in_steps(stream: BinaryIO, size: int) -> bytes:
    parts = []
    while part := stream.read(size):
        parts.append(part)
    return b"".join(parts)


class TestVerified:
    @pytest.mark.parametrize("data", [b"", b"x", DATA, DATA * 200], ids=len)
    @pytest.mark.parametrize("size", [7, CHUNK, -1])
    def test_passes_the_right_bytes_on(self, data: bytes, size: int) -> None:
        stream = verified(io.BytesIO(data), reference(data), "sha256")
        assert read_in_steps(stream, size) == data

    @pytest.mark.parametrize(
        "stored", [DATA[:-1], DATA[:-1] + b"x", b"x" + DATA[1:], DATA + b"x", b""],
        ids=["short", "last", "first", "long", "empty"],
    )  # fmt: skip
    @pytest.mark.parametrize("size", [7, CHUNK, -1])
    def test_never_ends_with_other_bytes(self, stored: bytes, size: int) -> None:
        stream = verified(io.BytesIO(stored), reference(DATA), "sha256")
        with pytest.raises(Corrupted, match="are damaged"):
            read_in_steps(stream, size)

    def test_the_message_says_what_to_do(self) -> None:
        with pytest.raises(Corrupted, match=r"'a' are damaged: .*Save the file again\."):
            verified(io.BytesIO(DATA[:-1] + b"x"), reference(DATA), "sha256").read()

    def test_bytes_for_an_empty_file_are_refused(self) -> None:
        stream = verified(io.BytesIO(b"x"), reference(b""), "sha256")
        with pytest.raises(Corrupted):
            stream.read()

    def test_closing_it_closes_the_stream(self) -> None:
        inner = io.BytesIO(DATA)
        verified(inner, reference(DATA), "sha256").close()
        assert inner.closed


class TestLimited:
    @pytest.mark.parametrize("length", [0, 1, 1000, len(DATA)])
    @pytest.mark.parametrize("size", [7, -1])
    def test_gives_the_first_bytes(self, length: int, size: int) -> None:
        stream = limited(io.BytesIO(DATA), length, reference(DATA))
        assert read_in_steps(stream, size) == DATA[:length]

    @pytest.mark.parametrize("size", [7, -1])
    def test_a_stream_that_ends_early_is_refused(self, size: int) -> None:
        stream = limited(io.BytesIO(DATA[:-3]), len(DATA), reference(DATA))
        with pytest.raises(Corrupted, match="end 3 bytes early"):
            read_in_steps(stream, size)

    def test_closing_it_closes_the_stream(self) -> None:
        inner = io.BytesIO(DATA)
        limited(inner, 5, reference(DATA)).close()
        assert inner.closed


def test_read_all_reads_the_rest_and_closes() -> None:
    stream = io.BytesIO(DATA)
    stream.seek(100)
    assert (read_all(stream), stream.closed) == (DATA[100:], True)


def test_a_spool_is_gone_when_it_is_closed(tmp_path: Any) -> None:
    spool = TempSpool(tmp_path)
    spool.write(DATA)
    assert b"".join(spool.chunks()) == DATA
    spool.close()
    assert list(tmp_path.iterdir()) == []


FULL = "/dev/full"
"""A file on which every write says that the disk is full (full(4))."""
HAS_FULL = pytest.mark.skipif(not os.path.exists(FULL), reason=f"this system has no {FULL}")


def refused(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Have the folder for temporary files refuse a new one."""

    def refuse(**_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


@HAS_FULL
def test_a_spool_on_a_full_disk_is_a_limit_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.FileIO(FULL, "r+b"))
    spool = TempSpool()
    with pytest.raises(LimitExceeded, match="set TMPDIR to a directory") as raised:
        spool.write(b"x")
    assert isinstance(raised.value.__cause__, OSError)
    spool.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_inode_for_a_spool_is_a_limit_of_ours(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refused(monkeypatch, code)
    with pytest.raises(LimitExceeded) as raised:
        TempSpool()
    assert (raised.value.errno, raised.value.limit) == (code, None)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EMFILE])
def test_a_refused_spool_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    refused(monkeypatch, code)
    with pytest.raises(BackendUnavailable, match="Could not make a temporary file"):
        TempSpool()


def test_a_spool_takes_what_the_system_writes_in_pieces(tmp_path: Any) -> None:
    class Slow(io.FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(memoryview(data)[:100])

    spool = TempSpool(tmp_path)
    with spool.file as whole:
        spool.file = Slow(os.dup(whole.fileno()), "r+b")
    assert spool.write(DATA) == len(DATA)
    assert b"".join(spool.chunks()) == DATA
    spool.close()


def test_the_sources_own_error_passes_a_spool_unchanged(spools: Spools) -> None:
    def source() -> Iterator[bytes]:
        yield bytes(CHUNK + 1)
        raise OSError(errno.ENOSPC, "the source's own")

    with pytest.raises(OSError, match="the source's own") as raised:
        ingest(source(), taking(spools))
    assert type(raised.value) is OSError
