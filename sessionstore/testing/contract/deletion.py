"""I5, gone means gone: a deleted file is not served, and unreferenced content is reclaimed."""

from __future__ import annotations

from typing import Final

import pytest

from sessionstore.errors import FileNotStored
from sessionstore.model import Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, NOBODY, SPOOLED, Subject, some_bytes

DATA: Final = some_bytes("forgotten", 7000)


class ForgetsFiles(Rig):
    """Tests of deleting by name, of discarding by version, and of reclaiming the content."""

    def test_deleted_file_is_gone(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.names() == []
        with pytest.raises(FileNotStored):
            subject.backend.get(ALICE.sid, "a")

    def test_deleted_version_cannot_be_opened(self, subject: Subject) -> None:
        reference = subject.put("a", DATA).reference
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.version_or_none(reference) is None

    def test_delete_leaves_other_names(self, subject: Subject) -> None:
        for name in ("a", "a/b", "ab", "A"):
            subject.put(name, DATA)
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.contents() == {"a/b": DATA, "ab": DATA, "A": DATA}

    def test_delete_tells_what_was_there(self, subject: Subject) -> None:
        saved = [subject.put(name, name.encode()).reference for name in ("a", "b", "c")]
        gone = subject.backend.delete(ALICE.sid, (name for name in ("c", "missing", "a")))
        self.assert_same_files(gone, [saved[0], saved[2]])
        assert subject.names() == ["b"]

    def test_deleting_what_is_not_there_is_no_error(self, subject: Subject) -> None:
        subject.put("a", DATA)
        assert subject.backend.delete(ALICE.sid, ["missing"]) == []
        assert subject.backend.delete(NOBODY, ["a"]) == []
        assert subject.contents() == {"a": DATA}

    def test_a_name_can_be_used_again(self, subject: Subject) -> None:
        subject.put("a", DATA, ttl=60)
        subject.backend.delete(ALICE.sid, ["a"])
        saved = subject.put("a", b"new")
        assert saved.replaced is None
        assert saved.reference.expires is None
        assert subject.contents() == {"a": b"new"}

    def test_another_backend_does_not_serve_a_deleted_file(self, subject: Subject) -> None:
        other = subject.another()
        reference = subject.put("a", DATA).reference
        other.read("a")
        subject.backend.delete(ALICE.sid, ["a"])
        subject.clock.advance(self.rechecks_after)
        assert not other.has("a")
        assert other.version_or_none(reference) is None

    def test_stream_opened_before_a_delete_ends_with_the_bytes(self, subject: Subject) -> None:
        large = some_bytes("large", SPOOLED)
        reference = subject.put("a", large).reference
        with subject.backend.open(ALICE.sid, reference) as stream:
            begin = stream.read(10)
            subject.backend.delete(ALICE.sid, ["a"])
            subject.settle()
            try:
                rest = stream.read()
            except FileNotStored:
                return
        assert begin + rest == large

    def test_current_version_is_discarded(self, subject: Subject) -> None:
        first = subject.put("a", DATA).reference
        subject.put("b", DATA)
        self.assert_same_files(subject.backend.discard(ALICE.sid, iter([first])), [first])
        assert subject.contents() == {"b": DATA}

    def test_listed_version_is_discarded(self, subject: Subject) -> None:
        subject.put("a", DATA, ttl=60)
        gone = subject.backend.discard(ALICE.sid, list(subject.backend.files(ALICE.sid)))
        assert [reference.name for reference in gone] == ["a"]
        assert subject.names() == []

    def test_replaced_version_is_not_discarded(self, subject: Subject) -> None:
        old = subject.put("a", DATA).reference
        subject.put("a", b"new")
        assert subject.backend.discard(ALICE.sid, [old]) == []
        assert subject.contents() == {"a": b"new"}

    def test_version_saved_again_with_equal_bytes_is_not_discarded(self, subject: Subject) -> None:
        old = subject.put("a", DATA, ttl=60).reference
        subject.advance(61)
        subject.put("a", DATA, ttl=60)
        assert subject.backend.discard(ALICE.sid, [old]) == []
        assert subject.contents() == {"a": DATA}

    def test_current_version_is_discarded_beside_a_replaced_one(self, subject: Subject) -> None:
        old = subject.put("a", DATA).reference
        subject.advance(10)
        current = subject.put("a", b"new").reference
        self.assert_same_files(subject.backend.discard(ALICE.sid, [current, old]), [current])
        assert subject.names() == []

    def test_discarding_what_is_not_there_is_no_error(self, subject: Subject) -> None:
        old = subject.put("a", DATA).reference
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.backend.discard(ALICE.sid, [old]) == []
        assert subject.backend.discard(NOBODY, [old]) == []

    def test_content_goes_with_its_last_file(self, subject: Subject) -> None:
        subject.put("a", DATA, ALICE)
        subject.put("b", DATA, ALICE)
        subject.put("c", DATA, BOB)
        subject.backend.delete(ALICE.sid, ["a", "b"])
        subject.settle()
        assert subject.backend.stored() == Stored(1, len(DATA))
        assert subject.contents(BOB) == {"c": DATA}
        subject.backend.delete(BOB.sid, ["c"])
        subject.settle()
        assert subject.backend.stored() == Stored(0, 0)

    def test_discarded_content_goes(self, subject: Subject) -> None:
        subject.backend.discard(ALICE.sid, [subject.put("a", DATA).reference])
        subject.settle()
        assert subject.backend.stored() == Stored(0, 0)

    def test_replaced_content_goes(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.put("a", b"new")
        subject.settle()
        assert subject.backend.stored() == Stored(1, 3)

    def test_deleted_bytes_can_be_saved_again(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.backend.delete(ALICE.sid, ["a"])
        subject.settle()
        subject.put("b", DATA)
        assert subject.contents() == {"b": DATA}
        assert subject.backend.stored() == Stored(1, len(DATA))
