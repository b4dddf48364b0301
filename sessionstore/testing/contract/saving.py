"""I2 and I7: a save replaces a file whole or fails cleanly; no reader sees a mixture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import pytest

from sessionstore.content import CHUNK
from sessionstore.errors import LimitExceeded
from sessionstore.model import Saved, Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, SPOOLED, Subject, race, race_beside, some_bytes

OLD: Final = some_bytes("old", 5000)
NEW: Final = some_bytes("new", 4000)


class ReplacesAtomically(Rig):
    """Tests of replacing a file: alone, and concurrent with readers and other writers."""

    def test_the_newest_save_is_the_file(self, subject: Subject) -> None:
        for data in (OLD, NEW, OLD):  # the old bytes may come back
            subject.put("a", data)
            assert subject.contents() == {"a": data}

    def test_large_replaces_small_and_the_other_way(self, subject: Subject) -> None:
        large = some_bytes("large", SPOOLED)
        subject.put("a", OLD)
        subject.put("a", io.BytesIO(large))
        assert subject.read("a") == large
        subject.put("a", OLD)
        assert subject.read("a") == OLD

    def test_put_tells_what_it_replaced(self, subject: Subject) -> None:
        old = subject.put("a", OLD, ttl=60)
        assert old.replaced is None
        subject.advance(10)
        replaced = subject.put("a", NEW).replaced
        assert replaced is not None
        self.assert_same_files([replaced], [old.reference])

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


class SourceError(Exception):
    """The error that a source raises half way."""


def source_that_raises(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes, then raise SourceError."""
    for position in range(0, size, CHUNK):
        yield some_bytes(position, min(CHUNK, size - position))
    raise SourceError


class FailsCleanly(Rig):
    """Tests of sources that raise, of saves that are stopped or abandoned, and of closing."""

    @pytest.mark.parametrize("size", [0, 100, SPOOLED])
    @pytest.mark.parametrize("files", [{}, {"a": OLD}])
    def test_error_of_a_source_changes_nothing(
        self, subject: Subject, files: dict[str, bytes], size: int
    ) -> None:
        for name, data in files.items():
            subject.put(name, data)
        with pytest.raises(SourceError):
            subject.put("a", source_that_raises(size))
        subject.settle()
        assert subject.contents() == files
        assert subject.backend.stored() == Stored(len(files), len(files) * len(OLD))
        data = some_bytes("next", size)
        subject.put("a", [data])  # the next save works
        assert subject.contents() == {"a": data}

    def test_save_stopped_by_a_limit_leaves_nothing(self, subject: Subject) -> None:
        def admit(size: int, seen: list[int] = []) -> None:  # noqa: B006 - one list on purpose
            seen.append(size)
            if sum(seen) > 2 * CHUNK:
                raise LimitExceeded("enough")

        with pytest.raises(LimitExceeded):
            subject.take([some_bytes(number, CHUNK) for number in range(4)], admit)
        subject.settle()
        assert subject.backend.stored() == Stored(0, 0)

    @pytest.mark.parametrize("size", [100, SPOOLED])
    def test_content_that_is_not_put_leaves_nothing(self, subject: Subject, size: int) -> None:
        subject.take([some_bytes("unused", size)]).close()
        subject.settle()
        assert subject.sids() == []
        assert subject.backend.stored() == Stored(0, 0)

    def test_one_content_can_be_put_and_closed_twice(self, subject: Subject) -> None:
        data = some_bytes("twice", SPOOLED)
        with subject.take([data]) as content:
            subject.backend.put(ALICE, "a", content)
            subject.backend.put(ALICE, "b", content)
            content.close()
        assert subject.contents() == {"a": data, "b": data}

    def test_closing_a_stream_early_and_twice_is_no_error(self, subject: Subject) -> None:
        data = some_bytes("closed", SPOOLED)
        stream = subject.backend.open(ALICE.sid, subject.put("a", data).reference)
        stream.read(1)
        stream.close()
        stream.close()
        assert subject.read("a") == data

    def test_a_listing_can_be_left_early(self, subject: Subject) -> None:
        for name in ("a", "b", "c"):
            subject.put(name, name.encode())
        files, sessions = subject.backend.files(ALICE.sid), subject.backend.sessions()
        next(files)
        next(sessions)
        del files, sessions
        subject.backend.drop(ALICE.sid)
        assert subject.sids() == []

    def test_a_listing_survives_deletes_beside_it(self, subject: Subject) -> None:
        for name in ("a", "b", "c"):
            subject.put(name, name.encode())
        seen = []
        for reference in subject.backend.files(ALICE.sid):
            seen.append(reference.name)
            subject.backend.delete(ALICE.sid, ["a", "b", "c"])
        assert set(seen) <= {"a", "b", "c"}
        assert len(set(seen)) == len(seen)
        assert subject.names() == []

    def test_closing_twice_is_no_error(self, subject: Subject) -> None:
        other = subject.another()
        subject.put("a", OLD)
        subject.backend.close()
        subject.backend.close()
        assert other.contents() == {"a": OLD}
