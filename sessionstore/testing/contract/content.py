"""I3, I1 and I6: content is stored once, and garbage collection removes what has no file."""

from __future__ import annotations

import io
import itertools
from functools import partial
from typing import Final

from sessionstore import names
from sessionstore.model import Collected, SessionKey, Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, SPOOLED, Subject, race, race_beside, some_bytes

DATA: Final = some_bytes("once", 10_000)


class KeepsOnce(Rig):
    """Tests of deduplication and of its numbers."""

    def test_stored_counts_content(self, subject: Subject) -> None:
        assert subject.backend.stored() == Stored(0, 0)
        subject.put("a", b"12345")
        subject.put("b", b"123")
        assert subject.backend.stored() == Stored(2, 8)

    def test_equal_bytes_are_kept_once(self, subject: Subject) -> None:
        for name in ("a", "a", "b"):
            subject.put(name, DATA, ALICE)
            assert subject.read(name) == DATA
            subject.advance(1)
        subject.another().put("b", DATA, BOB)
        assert subject.backend.stored() == Stored(1, len(DATA))

    def test_equal_bytes_on_any_way_in_are_kept_once(self, subject: Subject) -> None:
        large = some_bytes("large", SPOOLED)
        subject.put("a", large)
        subject.put("b", io.BytesIO(large))
        subject.put("c", [large[:100], large[100:]])
        assert subject.backend.stored() == Stored(1, SPOOLED)
        assert subject.contents() == dict.fromkeys("abc", large)

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


HOT: Final = [some_bytes(("hot", number), 4000) for number in range(6)]
"""Contents that are saved and deleted all the time: about as many as files at any moment."""

WRITERS: Final = [names.session_key(f"writer {number}") for number in range(3)]


class Collects(Rig):
    """Tests of garbage collection: alone, repeated, and concurrent with all other calls."""

    def test_collecting_nothing_removes_nothing(self, subject: Subject) -> None:
        collected = subject.backend.collect()
        assert collected == Collected(0, 0, collected.leftovers)

    def test_content_in_use_is_not_collected(self, subject: Subject) -> None:
        subject.put("a", HOT[0], ALICE)
        subject.put("b", HOT[0], BOB)
        other = subject.another()
        other.put("c", HOT[1], ALICE)
        subject.backend.delete(BOB.sid, ["b"])
        subject.settle()
        subject.backend.collect(force=True)
        assert other.contents() == {"a": HOT[0], "c": HOT[1]}

    def test_collecting_looks_at_the_place_and_not_at_memory(self, subject: Subject) -> None:
        subject.put("a", b"kept")
        subject.put("b", b"deleted")
        subject.backend.delete(ALICE.sid, ["b"])
        subject.reopen()
        subject.settle()
        assert subject.backend.stored() == Stored(1, 4)
        assert subject.contents() == {"a": b"kept"}

    def test_content_on_its_way_in_is_not_collected(self, subject: Subject) -> None:
        other = subject.another()
        with subject.take([HOT[0]] * 1000) as content:
            other.settle()
            subject.backend.put(ALICE, "a", content)
        assert subject.contents() == {"a": HOT[0] * 1000}

    def test_first_and_last_file_of_a_content_at_once(self, subject: Subject) -> None:
        other = subject.another()
        for _ in range(self.rounds):
            subject.put("old", HOT[0], BOB)
            race(
                lambda: subject.put("new", HOT[0], ALICE),
                lambda: other.backend.delete(BOB.sid, ["old"]),
                other.backend.collect,
            )
            assert subject.contents(ALICE) == {"new": HOT[0]}
            subject.backend.delete(ALICE.sid, ["new"])

    def test_acknowledged_files_survive_everything_at_once(self, subject: Subject) -> None:
        subjects = [subject.another() for _ in WRITERS]
        visitor, collector = subject.another(), subject.another()

        def visit(turn: itertools.count[int] = itertools.count()) -> None:  # noqa: B008 - one count
            visitor.put("a", HOT[next(turn) % len(HOT)], ALICE)
            visitor.backend.drop(ALICE.sid)

        def write() -> list[dict[str, bytes]]:
            writers = zip(subjects, WRITERS, strict=True)
            return race(*(partial(_write, writer, key, self.rounds) for writer, key in writers))

        expected = race_beside(write, visit, collector.backend.collect)
        assert [subject.contents(key) for key in WRITERS] == expected
        for key in (*WRITERS, ALICE):
            subject.backend.drop(key.sid)
        subject.settle()
        assert subject.sids() == []
        assert subject.backend.stored() == Stored(0, 0)


def _write(subject: Subject, key: SessionKey, rounds: int) -> dict[str, bytes]:
    """Save, replace and delete hot contents in one session; return the expected files."""
    files: dict[str, bytes] = {}
    for turn in range(rounds):
        name, data = f"{turn % 2}", HOT[turn * turn % len(HOT)]
        subject.put(name, data, key)
        assert subject.read(name, key) == data
        files[name] = data
        if turn % 3 == 0:
            gone = f"{turn % 4 // 2}"
            subject.backend.delete(key.sid, [gone])
            files.pop(gone, None)
    return files
