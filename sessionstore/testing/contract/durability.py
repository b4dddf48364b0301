"""I1, acknowledged means kept: a saved file reads back byte for byte, by its name."""

from __future__ import annotations

import io
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
    def test_what_was_saved_reads_back(self, subject: Subject, size: int) -> None:
        data = some_bytes("saved", size)
        subject.put("cat.png", data)
        assert subject.read("cat.png") == data

    @pytest.mark.parametrize("size", SIZES)
    def test_a_stream_reads_back_as_bytes_do(self, subject: Subject, size: int) -> None:
        data = some_bytes("stream", size)
        subject.put("cat.png", io.BytesIO(data))
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
        saved = subject.put("cat.png", data).reference
        digest = hasher(subject.backend.digest)
        digest.update(data)
        assert (saved.name, saved.size, saved.digest) == ("cat.png", 1000, digest.hexdigest())
        assert saved.expires is None

    def test_reference_tells_when_it_was_saved(self, subject: Subject) -> None:
        subject.advance(100)
        saved = subject.put("cat.png", b"cat").reference
        self.assert_same_time(saved.created, subject.backend.now())

    def test_get_answers_as_put_did(self, subject: Subject) -> None:
        saved = subject.put("cat.png", b"cat", ttl=60).reference
        subject.advance(10)
        self.assert_same_file(subject.backend.get(ALICE.sid, "cat.png"), saved)

    def test_listing_answers_as_put_did(self, subject: Subject) -> None:
        saved = [subject.put(name, name.encode(), ttl=60).reference for name in ("a", "b", "c")]
        subject.advance(10)
        self.assert_same_files(subject.backend.files(ALICE.sid), saved)

    def test_time_to_live_is_kept(self, subject: Subject) -> None:
        expires = subject.backend.now() + timedelta(seconds=60)
        subject.put("cat.png", b"cat", ttl=60)
        self.assert_same_time(subject.backend.get(ALICE.sid, "cat.png").expires, expires)

    def test_expired_file_stays_until_it_is_removed(self, subject: Subject) -> None:
        subject.put("cat.png", b"cat", ttl=60)
        subject.advance(3600)
        subject.backend.collect()
        assert subject.contents() == {"cat.png": b"cat"}

    def test_missing_file_is_not_stored(self, subject: Subject) -> None:
        subject.put("cat.png", b"cat")
        with pytest.raises(FileNotStored):
            subject.backend.get(ALICE.sid, "dog.png")

    def test_file_of_missing_session_is_not_stored(self, subject: Subject) -> None:
        subject.put("cat.png", b"cat")
        with pytest.raises(FileNotStored):
            subject.backend.get(NOBODY, "cat.png")

    def test_missing_session_has_no_files(self, subject: Subject) -> None:
        subject.put("cat.png", b"cat")
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
            subject.put(name, b"", fresh=True)
        assert subject.names() == names

    def test_fresh_files_are_kept_as_others_are(self, subject: Subject) -> None:
        subject.put("a", b"one", fresh=True)
        subject.put("b", b"two", fresh=True)
        assert subject.contents() == {"a": b"one", "b": b"two"}

    def test_files_are_there_when_the_place_is_opened_again(self, subject: Subject) -> None:
        saved = subject.put("cat.png", b"cat", ttl=60).reference
        subject.reopen()
        self.assert_same_file(subject.backend.get(ALICE.sid, "cat.png"), saved)
        assert subject.read("cat.png") == b"cat"

    def test_another_backend_on_the_place_sees_the_files(self, subject: Subject) -> None:
        other = subject.another()
        subject.put("cat.png", b"cat")
        assert other.contents() == {"cat.png": b"cat"}

    def test_digest_algorithm_is_the_place_s(self, subject: Subject) -> None:
        assert subject.another().backend.digest == subject.backend.digest
