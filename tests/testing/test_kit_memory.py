"""What only the memory backend promises: its cap, named places, and no copies of content."""

from __future__ import annotations

import gc
import io
import sys
from typing import Any

import pytest

from sessionstore.backend import Location
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.content import CHUNK
from sessionstore.errors import LimitExceeded, SettingsError
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, some_bytes

CAP = 4 * CHUNK


def connected(name: str, **options: Any) -> MemoryBackend:
    location = Location(f"memory://{name}", "memory", name, "")
    return MemoryBackend.connect(location, options, FakeClock())


@pytest.fixture
def subject() -> Subject:
    place = Place(cap=CAP)
    return Subject(lambda clock: MemoryBackend(place, clock), FakeClock())


def free(subject: Subject) -> int:
    assert isinstance(subject.backend, MemoryBackend)
    return subject.backend.free()


def test_content_fits_up_to_the_cap(subject: Subject) -> None:
    subject.put("a", bytes(CAP))
    assert free(subject) == 0


@pytest.mark.parametrize("make", [bytes, lambda size: io.BytesIO(bytes(size))])
def test_content_past_the_cap_is_refused_and_leaves_nothing(subject: Subject, make: Any) -> None:
    subject.put("a", b"old")
    with pytest.raises(LimitExceeded, match="larger cap"):
        subject.put("a", make(CAP))
    assert subject.contents() == {"a": b"old"}
    assert free(subject) == CAP - 3


def test_stream_is_refused_while_it_comes_in(subject: Subject) -> None:
    taken = []

    def source() -> Any:
        for _ in range(100):
            taken.append(CHUNK)
            yield bytes(CHUNK)

    with pytest.raises(LimitExceeded):
        subject.put("a", source())
    assert sum(taken) <= CAP + 2 * CHUNK
    assert free(subject) == CAP


def test_duplicate_of_kept_bytes_fits_when_full(subject: Subject) -> None:
    data = some_bytes("full", CAP)
    subject.put("a", data)
    subject.put("b", data)
    assert subject.names() == ["a", "b"]


def test_bytes_on_their_way_in_count(subject: Subject) -> None:
    with subject.take([bytes(CHUNK)] * 3):
        assert free(subject) == CHUNK
    assert free(subject) == CAP


def test_spool_that_nobody_closed_gives_its_room_back(subject: Subject) -> None:
    spool = subject.backend.spool()
    spool.write(bytes(CAP))
    del spool
    gc.collect()
    assert free(subject) == CAP


def test_deleting_makes_room(subject: Subject) -> None:
    subject.put("a", bytes(CAP))
    subject.backend.delete(ALICE.sid, ["a"])
    subject.put("b", some_bytes("b", CAP))
    assert subject.names() == ["b"]


def test_bounds_are_exact(subject: Subject) -> None:
    for name, ttl in (("a", 10.0), ("b", 60.0), ("c", None)):
        subject.put(name, name.encode(), ttl=ttl)
        subject.advance(1)
    subject.backend.delete(ALICE.sid, ["a"])
    left = subject.backend.get(ALICE.sid, "b")
    assert (subject.record().oldest, subject.record().expiring) == (left.created, left.expires)
    subject.backend.delete(ALICE.sid, ["b"])
    assert subject.record().expiring is None


def test_immutable_bytes_are_not_copied(subject: Subject) -> None:
    data = some_bytes("same", 5000)
    digest = subject.put("a", data).reference.digest
    assert isinstance(subject.backend, MemoryBackend)
    assert subject.backend._place.blobs[digest].data is data


def test_part_of_larger_bytes_does_not_keep_all_of_them(subject: Subject) -> None:
    digest = subject.put("a", memoryview(some_bytes("large", 5000))[:10]).reference.digest
    assert isinstance(subject.backend, MemoryBackend)
    assert len(subject.backend._place.blobs[digest].data) == 10


def test_stream_of_single_bytes_is_kept_without_a_copy(subject: Subject) -> None:
    """And a reader shares the bytes too."""
    digest = subject.put("a", (b"x" for _ in range(CHUNK + 5))).reference.digest
    assert isinstance(subject.backend, MemoryBackend)
    data = subject.backend._place.blobs[digest].data
    assert sys.getsizeof(data) < CHUNK + 100
    with subject.backend.open(ALICE.sid, subject.backend.get(ALICE.sid, "a")) as stream:
        assert stream.read() is data


def test_store_without_a_name_is_its_own() -> None:
    one, other = connected(""), connected("")
    assert one.secret() != other.secret()


def test_stores_of_one_name_are_one() -> None:
    one = connected("kit-one-name")
    one.close()
    assert connected("kit-one-name").secret() == one.secret()
    assert connected("kit-another-name").secret() != one.secret()


def test_the_cap_is_an_option() -> None:
    assert connected("", cap=5).free() == 5
    assert connected("kit-cap", cap=5).free() == 5
    assert connected("kit-cap").free() == 5
    assert connected("kit-cap", cap=7).free() == 7


def test_digest_is_fixed_when_the_store_is_made() -> None:
    assert connected("kit-digest", digest="blake3").digest == "blake3"
    assert connected("kit-digest").digest == "blake3"
    with pytest.raises(SettingsError, match=r"digest='sha256'.*'blake3'"):
        connected("kit-digest", digest="sha256")


def test_options_are_parsed_by_their_parsers() -> None:
    assert MemoryBackend.options["cap"]("2GiB") == 2 << 30
    with pytest.raises(ValueError, match="choose"):
        MemoryBackend.options["digest"]("md5")
