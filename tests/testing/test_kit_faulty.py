"""The faulty backend: it fails as planned, and otherwise is the backend within."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from sessionstore.backend import HasFreeSpace, KeepsSecret, KnowsIfAlone, Location, Stored
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.content import CHUNK
from sessionstore.errors import BackendUnavailable, LimitExceeded
from sessionstore.testing import (
    BackendContract,
    Call,
    Fault,
    FaultyBackend,
    FreeSpace,
    OpenBackend,
    Plan,
    Secret,
    disk_full,
    either,
    no_faults,
    on,
    sometimes,
    unavailable,
)
from sessionstore.testing.clock import FakeClock
from sessionstore.testing.subject import ALICE, BOB, Subject

DOWN = Fault(unavailable)


class Faulty(Subject):
    """A subject whose backend can be told to fail."""

    def plan(self, plan: Plan) -> None:
        assert isinstance(self.backend, FaultyBackend)
        self.backend.plan = plan

    def calls(self, verb: str) -> int:
        assert isinstance(self.backend, FaultyBackend)
        return self.backend.calls[verb]


def faulty(place: Place, clock: FakeClock) -> FaultyBackend:
    return FaultyBackend(MemoryBackend(place, clock))


@pytest.fixture
def subject() -> Faulty:
    place = Place()
    return Faulty(lambda clock: faulty(place, clock), FakeClock())


class TestWithoutFaults(BackendContract, FreeSpace, Secret):
    """It keeps every promise of the backend within."""

    keeps_content_in_memory = True

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        place = Place()
        return lambda clock: faulty(place, clock)


def test_before_nothing_was_done(subject: Faulty) -> None:
    subject.plan(on("put", DOWN))
    with pytest.raises(BackendUnavailable):
        subject.put("a", b"1")
    subject.plan(no_faults)
    assert subject.sids() == []


def test_after_it_was_done(subject: Faulty) -> None:
    subject.plan(on("put", Fault(unavailable, at="after")))
    with pytest.raises(BackendUnavailable):
        subject.put("a", b"1")
    assert subject.contents() == {"a": b"1"}


def test_only_the_call_of_that_number_fails(subject: Faulty) -> None:
    subject.plan(on("put", DOWN, number=2))
    subject.put("a", b"1")
    with pytest.raises(BackendUnavailable):
        subject.put("b", b"2")
    subject.put("c", b"3")
    assert subject.names() == ["a", "c"]
    assert subject.calls("put") == 3


def test_a_plan_may_look_at_the_arguments(subject: Faulty) -> None:
    def plan(call: Call) -> Fault | None:
        return DOWN if call.arguments.get("name") == "b" else None

    subject.plan(plan)
    subject.put("a", b"1")
    with pytest.raises(BackendUnavailable):
        subject.put("b", b"2")


def test_a_listing_ends_early(subject: Faulty) -> None:
    for name in ("a", "b", "c"):
        subject.put(name, b"1", ALICE)
        subject.put(name, b"1", BOB)
    subject.plan(either(on("files", Fault(unavailable, at=2)), on("sessions", DOWN)))
    listing = subject.backend.files(ALICE.sid)
    assert [next(listing).name, next(listing).name] == ["a", "b"]
    with pytest.raises(BackendUnavailable):
        next(listing)
    with pytest.raises(BackendUnavailable):
        next(subject.backend.sessions())


def test_a_listing_shorter_than_that_fails_at_its_end(subject: Faulty) -> None:
    subject.put("a", b"1")
    subject.plan(on("files", Fault(unavailable, at=2)))
    listing = subject.backend.files(ALICE.sid)
    next(listing)
    with pytest.raises(BackendUnavailable):
        next(listing)


@pytest.mark.parametrize(("at", "given"), [(4, b"1234"), (0, b""), ("after", b"12345678")])
def test_a_stream_breaks(subject: Faulty, at: int, given: bytes) -> None:
    reference = subject.put("a", b"12345678").reference
    subject.plan(on("open", Fault(unavailable, at=at)))
    with subject.backend.open(ALICE.sid, reference) as stream:
        assert stream.read(len(given)) == given
        with pytest.raises(BackendUnavailable):
            stream.read(1)


@pytest.mark.parametrize("at", ["before", 2 * CHUNK, "after"])
def test_the_disk_fills_up_while_a_file_comes_in(subject: Faulty, at: int) -> None:
    subject.plan(on("spool", Fault(disk_full, at=at)))
    with pytest.raises(LimitExceeded) as raised:
        subject.put("a", [bytes(CHUNK)] * 4)
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC
    assert subject.backend.stored() == Stored(0, 0)


def test_a_spool_takes_what_the_plan_lets_through(subject: Faulty) -> None:
    subject.plan(on("spool", Fault(disk_full, at=4 * CHUNK)))
    subject.put("a", [bytes(CHUNK)] * 4)
    assert len(subject.read("a")) == 4 * CHUNK


def test_other_calls_cannot_fail_part_of_the_way(subject: Faulty) -> None:
    subject.plan(on("put", Fault(unavailable, at=5)))
    with pytest.raises(ValueError, match="part of the way"):
        subject.put("a", b"1")


def failing_puts(subject: Faulty, plan: Plan) -> Iterator[bool]:
    subject.plan(plan)
    for number in range(400):
        try:
            subject.put(f"{number}", b"1")
            yield False
        except BackendUnavailable:
            yield True


def test_a_rate_of_calls_fails_the_same_ones_each_time(subject: Faulty) -> None:
    first = list(failing_puts(subject, sometimes(0.25, DOWN, seed=7)))
    again = list(failing_puts(subject, sometimes(0.25, DOWN, seed=7)))
    assert first == again
    assert 0.15 < sum(first) / len(first) < 0.35


def test_a_rate_may_be_that_of_some_verbs(subject: Faulty) -> None:
    subject.plan(sometimes(1, DOWN, seed=7, verbs=["collect"]))
    subject.put("a", b"1")
    with pytest.raises(BackendUnavailable):
        subject.backend.collect()


@pytest.mark.parametrize(
    "verb",
    [
        "alone", "close", "collect", "delete", "discard", "drop", "end", "free", "get", "identify",
        "resume", "secret", "session", "stored", "touch",
    ],
)  # fmt: skip
def test_every_verb_can_fail(verb: str) -> None:
    class Alone(MemoryBackend):
        def alone(self) -> bool:
            return True

    backend = FaultyBackend(Alone(Place(), FakeClock()), on(verb, DOWN))
    arguments = {"delete": ("sid", []), "discard": ("sid", []), "get": ("sid", "a")}
    none = {"alone", "close", "collect", "free", "secret", "stored"}
    with pytest.raises(BackendUnavailable):
        getattr(backend, verb)(*arguments.get(verb, () if verb in none else ("sid",)))
    assert backend.calls[verb] == 1


def test_it_has_the_abilities_of_the_backend_within() -> None:
    backend = faulty(Place(), FakeClock())
    assert isinstance(backend, HasFreeSpace)
    assert isinstance(backend, KeepsSecret)
    assert not isinstance(backend, KnowsIfAlone)


def test_it_cannot_be_opened_by_a_url() -> None:
    with pytest.raises(TypeError, match="wrap it"):
        FaultyBackend.connect(Location("faulty://", "faulty", "", ""), {}, FakeClock())
