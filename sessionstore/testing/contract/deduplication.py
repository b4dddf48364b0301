"""I3, deduplication: identical bytes are stored once per place, for any number of files."""

from __future__ import annotations

import io
from typing import Final

from sessionstore.model import Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, SPOOLED, Subject, race, some_bytes

DATA: Final = some_bytes("once", 10_000)


class KeepsOnce(Rig):
    """Tests of deduplication and of its numbers."""

    def test_an_empty_place_stores_nothing(self, subject: Subject) -> None:
        assert subject.backend.stored() == Stored(0, 0)

    def test_stored_counts_content(self, subject: Subject) -> None:
        subject.put("a", b"12345")
        subject.put("b", b"123")
        assert subject.backend.stored() == Stored(2, 8)

    def test_equal_bytes_under_other_names_are_kept_once(self, subject: Subject) -> None:
        for name in ("a", "b", "c"):
            subject.put(name, DATA)
        assert subject.backend.stored() == Stored(1, len(DATA))

    def test_equal_bytes_of_other_sessions_are_kept_once(self, subject: Subject) -> None:
        subject.put("a", DATA, ALICE)
        subject.another().put("b", DATA, BOB)
        assert subject.backend.stored() == Stored(1, len(DATA))

    def test_equal_bytes_on_any_way_in_are_kept_once(self, subject: Subject) -> None:
        large = some_bytes("large", SPOOLED)
        subject.put("a", large)
        subject.put("b", io.BytesIO(large))
        subject.put("c", [large[:100], large[100:]])
        assert subject.backend.stored() == Stored(1, SPOOLED)
        assert subject.contents() == dict.fromkeys("abc", large)

    def test_equal_bytes_under_the_same_name_are_kept_once(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.advance(1)
        subject.put("a", DATA)
        assert subject.backend.stored() == Stored(1, len(DATA))
        assert subject.read("a") == DATA

    def test_put_tells_whether_the_bytes_were_there(self, subject: Subject) -> None:
        assert not subject.put("a", DATA).deduplicated
        assert subject.put("b", DATA).deduplicated
        assert not subject.put("c", DATA + b"!").deduplicated

    def test_writers_at_once_leave_no_copies(self, subject: Subject) -> None:
        writers = [subject, subject.another(), subject.another()]
        for number in range(self.rounds):
            data = some_bytes(number, 5000)
            race(*(lambda w=writer, data=data: w.put(f"{id(w)}", data) for writer in writers))
            subject.settle()
            assert subject.backend.stored() == Stored(1, len(data))
        assert len(subject.names()) == len(writers)
