"""I7, failing is clean: after an error the old files are unchanged, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from sessionstore.content import CHUNK
from sessionstore.errors import LimitExceeded
from sessionstore.model import Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, SPOOLED, Subject, some_bytes

OLD: Final = some_bytes("old", 3000)


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
    def test_error_of_a_source_leaves_nothing(self, subject: Subject, size: int) -> None:
        with pytest.raises(SourceError):
            subject.put("a", source_that_raises(size))
        subject.settle()
        assert subject.names() == []
        assert subject.backend.stored() == Stored(0, 0)

    @pytest.mark.parametrize("size", [100, SPOOLED])
    def test_error_of_a_source_leaves_the_old_file(self, subject: Subject, size: int) -> None:
        subject.put("a", OLD)
        with pytest.raises(SourceError):
            subject.put("a", source_that_raises(size))
        subject.settle()
        assert subject.contents() == {"a": OLD}
        assert subject.backend.stored() == Stored(1, len(OLD))

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

    def test_the_next_save_works(self, subject: Subject) -> None:
        with pytest.raises(SourceError):
            subject.put("a", source_that_raises(SPOOLED))
        data = some_bytes("next", SPOOLED)
        subject.put("a", [data])
        assert subject.contents() == {"a": data}

    def test_one_content_can_be_put_twice(self, subject: Subject) -> None:
        data = some_bytes("twice", SPOOLED)
        with subject.take([data]) as content:
            subject.backend.put(ALICE, "a", content)
            subject.backend.put(ALICE, "b", content)
        assert subject.contents() == {"a": data, "b": data}

    def test_closing_content_twice_is_no_error(self, subject: Subject) -> None:
        data = some_bytes("closed", SPOOLED)
        content = subject.take([data])
        subject.backend.put(ALICE, "a", content)
        content.close()
        content.close()
        assert subject.contents() == {"a": data}

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
