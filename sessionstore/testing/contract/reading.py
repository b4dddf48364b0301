"""I1, acknowledged means kept: a saved file reads back byte for byte, whole or in ranges."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import pytest

from sessionstore.content import CHUNK, hasher
from sessionstore.errors import FileNotStored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, NOBODY, SPOOLED, Subject, some_bytes

SIZES: Final = (0, 1, 1000, CHUNK, CHUNK + 1, SPOOLED)

ODD_NAMES: Final = (
    "a", "A", "a.", "a..", "a ", " a", ".a", "..a", "-rf", "~", "a/b", "a/b/c.png", "a%2fb",
    "a\\b", "C:\\x", "a:b", "a::$DATA", "a*?", "a|b", "<a>", 'a"b', "a'b", "$(a)", "`a`", "a;b",
    "a\nb", "a\rb", "a\tb", "\x01", "\x7f", "con", "CON", "nul.txt", "COM1", "com\xb9", "lpt9.tar",
    "\xe9", "e\u0301", "\ufb01", "fi", "k", "K", "\u212a", "\xdf", "SS", "\u0130", "i", "\uff41",
    "\u202egnp.exe", "\u200b", "\ufeff", "\U0001f600", "a!b", "!a", "!040", "_", "%00", "%",
    "id", "seen", "ended", "journal", "layout", "files", "tmp/x", "blobs/x", "b/x", "s/x",
    "a+b", "a b", "a=b&c", "a#b", "a?b", "x" * 199 + ".", "x" * 200, "X" * 200, "x" * 255,
    "\xe9" * 127, "/".join(["d" * 30] * 30),
)  # fmt: skip
"""Names that some file system, object store, shell or protocol treats specially, and names that
such a system takes for equal. All are legal file names."""


class KeepsFiles(Rig):
    """Tests of saving, looking up, reading and listing."""

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("source", [bytes, io.BytesIO])
    def test_what_was_saved_reads_back(
        self, subject: Subject, source: Callable[[bytes], object], size: int
    ) -> None:
        data = some_bytes("saved", size)
        subject.put("cat.png", source(data))
        assert subject.read("cat.png") == data

    def test_content_does_not_follow_its_source(self, subject: Subject) -> None:
        source = bytearray(b"before")
        subject.put("a", source)
        source[:] = b"after!"
        assert subject.read("a") == b"before"

    @pytest.mark.parametrize("verb", ["delete", "drop"])
    def test_the_same_save_again_is_kept_after_another_backend_removed_it(
        self, subject: Subject, verb: str
    ) -> None:
        other = subject.another()
        subject.put("a", b"same")
        if verb == "delete":
            other.backend.delete(ALICE.sid, ["a"])
        else:
            other.backend.drop(ALICE.sid)
        subject.put("a", b"same")
        assert other.contents() == {"a": b"same"}

    def test_reference_describes_the_file(self, subject: Subject) -> None:
        data = some_bytes("described", 1000)
        subject.advance(100)
        saved = subject.put("cat.png", data).reference
        digest = hasher(subject.backend.digest)
        digest.update(data)
        assert (saved.name, saved.size, saved.digest) == ("cat.png", 1000, digest.hexdigest())
        assert saved.expires is None
        self.assert_same_time(saved.created, subject.backend.now())

    def test_get_and_listing_answer_as_put_did(self, subject: Subject) -> None:
        saved = [subject.put(name, name.encode(), ttl=60).reference for name in ("a", "b", "c")]
        subject.advance(10)
        for _ in range(2):
            self.assert_same_files(subject.backend.files(ALICE.sid), saved)
            got = [subject.backend.get(ALICE.sid, reference.name) for reference in saved]
            self.assert_same_files(got, saved)
            assert subject.contents() == {"a": b"a", "b": b"b", "c": b"c"}
            subject.reopen()

    def test_time_to_live_is_kept_and_removes_nothing(self, subject: Subject) -> None:
        expires = subject.backend.now() + timedelta(seconds=60)
        subject.put("cat.png", b"cat", ttl=60)
        self.assert_same_time(subject.backend.get(ALICE.sid, "cat.png").expires, expires)
        subject.advance(3600)
        subject.backend.collect()
        assert subject.contents() == {"cat.png": b"cat"}

    @pytest.mark.parametrize(("sid", "name"), [(ALICE.sid, "dog.png"), (NOBODY, "cat.png")])
    def test_missing_file_is_not_stored(self, subject: Subject, sid: str, name: str) -> None:
        subject.put("cat.png", b"cat")
        with pytest.raises(FileNotStored):
            subject.backend.get(sid, name)
        assert list(subject.backend.files(NOBODY)) == []

    def test_odd_names_read_back_and_never_meet(self, subject: Subject) -> None:
        files = {name: str(number).encode() for number, name in enumerate(ODD_NAMES)}
        for name, data in files.items():
            subject.put(name, data)
        assert subject.contents() == files

    def test_names_that_begin_alike_confuse_no_listing(self, subject: Subject) -> None:
        """Check a listing that sorts directory by directory, where "a/b" comes before "a-b"."""
        names = ["a", "a b", "a!b", "a-b", "a.b"]
        for name in names:
            subject.put(name, name.encode())
        assert subject.names() == names
        assert subject.sids() == [ALICE.sid]

    def test_lists_very_many_files(self, subject: Subject) -> None:
        names = [f"{number:06}" for number in range(self.many)]
        for name in names:
            subject.put(name, name.encode(), fresh=True)
        assert subject.names() == names
        assert subject.read(names[0]) == names[0].encode()  # a fresh file is kept as others are

    def test_another_backend_on_the_place_sees_the_files(self, subject: Subject) -> None:
        other = subject.another()
        subject.put("cat.png", b"cat")
        assert other.contents() == {"cat.png": b"cat"}
        assert other.backend.digest == subject.backend.digest


SIZE: Final = 1000

BOUNDS: Final = (
    (0, None), (0, 0), (0, 1), (0, 999), (0, 1000), (0, 1001), (1, None), (1, 0), (1, 1), (1, 998),
    (1, 999), (1, 1000), (500, 250), (999, None), (999, 1), (999, 2), (1000, None), (1000, 0),
    (1000, 1), (1001, None), (1001, 1), (10**12, None), (10**12, 10**12), (0, 10**12),
)  # fmt: skip
"""(start, length) for a file of ``SIZE`` bytes."""

EMPTY_BOUNDS: Final = ((0, None), (0, 0), (0, 1), (1, None), (5, 5))

FAR_BOUNDS: Final = (
    (CHUNK - 1, 1), (CHUNK - 1, 2), (CHUNK, 1), (CHUNK, CHUNK), (1, 3 * CHUNK), (2 * CHUNK, None),
    (CHUNK - 1, CHUNK + 2), (SPOOLED - 1, 1), (SPOOLED - 1, None), (SPOOLED - 10, 100),
)  # fmt: skip
"""(start, length) for a file of ``SPOOLED`` bytes, around the borders of its pieces."""


class StreamsRanges(Rig):
    """Tests of ranges, and of streams that are read in pieces."""

    @pytest.mark.parametrize(
        ("size", "bounds"), [(0, EMPTY_BOUNDS), (SIZE, BOUNDS), (SPOOLED, FAR_BOUNDS)]
    )
    def test_ranges(
        self, subject: Subject, size: int, bounds: Sequence[tuple[int, int | None]]
    ) -> None:
        data = some_bytes("ranges", size)
        subject.put("a", io.BytesIO(data))
        for start, length in bounds:
            assert subject.read("a", start=start, length=length) == _part(data, start, length)

    @pytest.mark.parametrize("step", [1000, 7001, CHUNK - 1, CHUNK, SPOOLED, 10 * SPOOLED])
    @pytest.mark.parametrize(("start", "length"), [(0, None), (10, 2 * CHUNK)])
    def test_range_in_steps(
        self, subject: Subject, start: int, length: int | None, step: int
    ) -> None:
        data = some_bytes("steps", SPOOLED)
        reference = subject.put("a", io.BytesIO(data)).reference
        with subject.backend.open(ALICE.sid, reference, start, length) as stream:
            whole = b"".join(iter(lambda: stream.read(step), b""))
        assert whole == _part(data, start, length)

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
