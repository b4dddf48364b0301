"""I2, atomic: a reader gets the old bytes, the new bytes or FileNotStored, and never a mixture."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import BinaryIO, Final

from sessionstore.errors import FileNotStored
from sessionstore.model import Saved
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, SPOOLED, Subject, race, race_beside, some_bytes

OLD: Final = some_bytes("old", 5000)
NEW: Final = some_bytes("new", 4000)


class ReplacesAtomically(Rig):
    """Tests of replacing a file: alone, and concurrent with readers and other writers."""

    def test_the_newest_save_is_the_file(self, subject: Subject) -> None:
        subject.put("a", OLD)
        subject.put("a", NEW)
        assert subject.contents() == {"a": NEW}

    def test_the_old_bytes_may_come_back(self, subject: Subject) -> None:
        for data in (OLD, NEW, OLD):
            subject.put("a", data)
        assert subject.contents() == {"a": OLD}

    def test_large_replaces_small_and_the_other_way(self, subject: Subject) -> None:
        large = some_bytes("large", SPOOLED)
        subject.put("a", OLD)
        subject.put("a", io.BytesIO(large))
        assert subject.read("a") == large
        subject.put("a", OLD)
        assert subject.read("a") == OLD

    def test_first_save_replaces_nothing(self, subject: Subject) -> None:
        assert subject.put("a", OLD).replaced is None

    def test_put_tells_what_it_replaced(self, subject: Subject) -> None:
        old = subject.put("a", OLD, ttl=60).reference
        subject.advance(10)
        replaced = subject.put("a", NEW).replaced
        assert replaced is not None
        self.assert_same_file(replaced, old)

    def test_other_files_stay(self, subject: Subject) -> None:
        subject.put("a", OLD)
        subject.put("a/b", OLD)
        subject.put("ab", OLD)
        subject.put("a", NEW)
        assert subject.contents() == {"a": NEW, "a/b": OLD, "ab": OLD}

    def test_time_to_live_is_the_newest_save_s(self, subject: Subject) -> None:
        subject.put("a", OLD, ttl=60)
        subject.put("a", NEW)
        assert subject.backend.get(ALICE.sid, "a").expires is None

    def test_equal_bytes_are_a_new_save_too(self, subject: Subject) -> None:
        subject.put("a", OLD, ttl=60)
        subject.advance(30)
        subject.put("a", OLD, ttl=60)
        seen = subject.backend.get(ALICE.sid, "a")
        self.assert_same_time(seen.created, subject.backend.now())
        self.assert_same_time(seen.expires, subject.backend.now() + timedelta(seconds=60))

    def test_what_is_listed_can_be_read_whatever_was_seen_before(self, subject: Subject) -> None:
        other = subject.another()
        subject.put("a", OLD)
        assert other.read("a") == OLD
        subject.put("a", NEW)
        (listed,) = other.backend.files(ALICE.sid)
        assert other.version_or_none(listed) == NEW

    def test_replaced_version_cannot_be_opened(self, subject: Subject) -> None:
        old = subject.put("a", OLD).reference
        subject.put("a", NEW)
        assert subject.version_or_none(old) is None

    def test_stream_opened_before_a_replacement_ends_with_the_old_bytes(
        self, subject: Subject
    ) -> None:
        large = some_bytes("large", SPOOLED)
        old = subject.put("a", large).reference
        with subject.backend.open(ALICE.sid, old) as stream:
            begin = stream.read(10)
            subject.put("a", NEW)
            subject.settle()
            rest = _rest_or_none(stream)
        assert rest in {None, large[10:]}
        assert begin == large[:10]

    def test_another_backend_sees_the_newest_save(self, subject: Subject) -> None:
        other = subject.another()
        subject.put("a", OLD)
        other.read("a")
        subject.put("a", NEW)
        subject.clock.advance(self.rechecks_after)
        assert other.read("a") == NEW

    def test_readers_see_old_or_new_while_a_file_is_replaced(self, subject: Subject) -> None:
        versions = [some_bytes(number, 20_000 + number) for number in range(self.rounds)]
        versions[1] = some_bytes("large", SPOOLED)
        wanted = {len(data): data for data in versions}
        subject.put("a", versions[0])

        def write() -> None:
            for data in versions:
                subject.put("a", data)

        def read() -> None:
            reference = subject.backend.get(ALICE.sid, "a")  # the name exists at every moment
            seen = subject.version_or_none(reference)
            assert seen is None or seen == wanted[reference.size]

        race_beside(write, read, read)
        assert subject.read("a") == versions[-1]

    def test_of_writers_at_once_one_wins_whole(self, subject: Subject) -> None:
        writers = [subject, subject.another(), subject.another()]

        def write(number: int) -> Saved:
            return writers[number].put("a", some_bytes(number, 10_000 + number))

        for _ in range(self.rounds):
            saves = race(*(lambda number=number: write(number) for number in range(3)))
            seen = subject.backend.get(ALICE.sid, "a")
            assert seen.digest in {saved.reference.digest for saved in saves}
            assert subject.read("a") == some_bytes(seen.size - 10_000, seen.size)
            assert subject.names() == ["a"]


def _rest_or_none(stream: BinaryIO) -> bytes | None:
    """Return the rest of a stream, or None if its version was deleted while it was read."""
    try:
        return stream.read()
    except FileNotStored:
        return None
