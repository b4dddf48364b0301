"""``max_owner`` and ``max_owner_files``: the sessions of one owner have one limit together."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from sessionstore import InvalidName, LimitExceeded, Limits, Session, SessionStore
from sessionstore.backends.memory import Place
from sessionstore.backends.objects import ObjectBackend
from sessionstore.limits import moving
from sessionstore.owners import list_key
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on, unavailable
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import HOUR, MINUTE, SECOND, Heard, in_threads, local_store, memory_store

TABS = 50


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def limited(clock: FakeClock, place: Place | None = None, **limits: int) -> SessionStore:
    return memory_store(clock, place, limits=Limits(**limits))


def fill(session: Session, size: int = 10, most: int = 1000) -> int:
    """Save files of that size until one is refused, at most so many; return their number."""
    for count in range(most):
        try:
            session.add(bytes(size))
        except LimitExceeded:
            return count
    return most


class Bucket:
    """A bucket in memory, with the stores of several replicas on it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.bucket = FakeBucket(clock.now)

    def replica(self, **limits: int) -> tuple[SessionStore, FakeObjectClient]:
        client = FakeObjectClient(self.bucket)
        backend = ObjectBackend(client, elapsed=self.bucket.seconds)
        store = SessionStore(backend, clock=self.clock, limits=Limits(**limits))
        client.requests.clear()
        return store, client


@pytest.fixture
def bucket(clock: FakeClock) -> Bucket:
    return Bucket(clock)


class TestOneProcess:
    def test_the_limit_is_the_sum_of_all_sessions_of_the_owner(self, clock: FakeClock) -> None:
        store = limited(clock, max_owner=100)
        store.session("one", "anna").put("a", bytes(60))
        store.session("two", "anna").put("b", bytes(40))
        with pytest.raises(LimitExceeded) as caught:
            store.session("three", "anna").put("c.bin", b"x")
        assert str(caught.value) == (
            "Saving 'c.bin' would take all sessions of its owner together over max_owner=100 B: "
            "delete some of their files first."
        )
        assert caught.value.limit == "max_owner"
        assert store.usage(owner="anna") == (2, 100, 60 + 40, 2)

    def test_the_number_of_files_is_that_of_all_sessions(self, clock: FakeClock) -> None:
        store = limited(clock, max_owner_files=2)
        store.session("one", "anna").put("a", b"1")
        store.session("two", "anna").put("a", b"2")
        with pytest.raises(LimitExceeded) as caught:
            store.session("two", "anna").put("b", b"3")
        assert str(caught.value) == (
            "All sessions of the owner together have 2 files and max_owner_files=2: delete some "
            "before saving 'b'."
        )
        store.session("one", "anna").put("a", b"replaced")

    def test_other_owners_and_sessions_without_one_have_their_own_room(
        self, clock: FakeClock
    ) -> None:
        store = limited(clock, max_owner=10)
        store.session("one", "anna").put("a", bytes(10))
        store.session("one", "boris").put("a", bytes(10))
        for number in range(3):
            store.session(f"{number}").put("a", bytes(10))
        store.shared.put("a", bytes(50))

    def test_a_stream_is_cut_off_at_the_limit(self, clock: FakeClock) -> None:
        store = limited(clock, max_owner=100)
        store.session("one", "anna").put("a", bytes(50))
        source = iter([bytes(10)] * 1000)
        with pytest.raises(LimitExceeded, match="max_owner"):
            store.session("two", "anna").put("b", source)
        assert len(list(source)) == 1000 - 6
        assert store.usage(owner="anna").files == 1

    @pytest.mark.parametrize("how", ["delete", "drop", "replace", "expire"])
    def test_what_goes_in_one_session_makes_room_in_another(
        self, clock: FakeClock, how: str
    ) -> None:
        store = limited(clock, max_owner=100, max_owner_files=3)
        one, two = store.session("one", "anna"), store.session("two", "anna")
        one.put("a", bytes(100), ttl=HOUR)
        assert fill(two) == 0
        match how:
            case "delete":
                one.delete("a")
            case "drop":
                one.drop()
            case "replace":
                one.put("a", bytes(50))
            case "expire":
                clock.advance(2 * HOUR)
                store.sweep()
        assert two.put("b", bytes(50)).size == 50

    def test_both_limits_hold_beside_those_of_a_session(self, clock: FakeClock) -> None:
        store = limited(clock, max_session=60, max_owner=100)
        one, two = store.session("one", "anna"), store.session("two", "anna")
        with pytest.raises(LimitExceeded, match="max_session="):
            one.put("a", bytes(61))
        one.put("a", bytes(60))
        with pytest.raises(LimitExceeded, match="max_owner="):
            two.put("a", bytes(41))
        two.put("a", bytes(40))

    def test_fifty_tabs_of_one_owner_side_by_side_stay_within_the_limit(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        with local_store(tmp_path, clock, limits=Limits(max_owner=1000)) as store:
            saved: list[int] = []

            def visit(number: int) -> None:
                saved.append(fill(store.session(f"tab {number}", "anna"), most=10))

            in_threads(TABS, target=visit)
            assert sum(saved) == 100
            assert store.usage(owner="anna").bytes == 1000

    def test_fifty_tabs_have_one_number_of_files_together(self, clock: FakeClock) -> None:
        store = limited(clock, max_owner_files=30)
        in_threads(TABS, target=lambda number: fill(store.session(f"{number}", "anna"), most=3))
        assert store.usage(owner="anna").files == 30

    def test_a_save_that_failed_and_took_effect_is_counted(self, clock: FakeClock) -> None:
        store = limited(clock, max_owner=100)
        faulty = FaultyBackend(store.backend, on("put", Fault(unavailable, at="after"), number=1))
        store.wrap(lambda _: faulty)
        with pytest.raises(OSError, match="did not answer"):
            store.session("one", "anna").put("a", bytes(100))
        assert fill(store.session("two", "anna")) == 0
        store.session("one", "anna").delete("a")
        store.session("two", "anna").put("b", bytes(100))
        assert store.usage(owner="anna").bytes == 100

    def test_a_file_that_moves_from_one_session_to_another_needs_no_room_twice(
        self, clock: FakeClock
    ) -> None:
        store = limited(clock, max_owner=100, max_owner_files=1)
        one, two = store.session("one", "anna"), store.session("two", "anna")
        one.put("a", bytes(80))
        with moving(80):
            two.put("a", bytes(80))
        with pytest.raises(LimitExceeded):
            two.put("b", bytes(1))
        one.delete("a")
        assert store.usage(owner="anna")[:2] == (1, 80)
        two.put("a", bytes(100))

    def test_a_refusal_is_emitted_with_its_limit(self, clock: FakeClock) -> None:
        store = limited(clock, max_owner=1)
        heard = Heard(store, "limit_exceeded")
        assert fill(store.session("one", "anna")) == 0
        assert heard.next().limit == "max_owner"


class TestSeveralProcesses:
    def test_a_restart_forgets_nothing(self, clock: FakeClock) -> None:
        place = Place()
        for number in range(5):
            store = limited(clock, place, max_owner=100)
            fill(store.session(f"{number}", "anna"), most=2)
        store = limited(clock, place, max_owner=100)
        assert fill(store.session("new", "anna")) == 0

    @pytest.mark.parametrize("replicas", [2, 4])
    def test_four_replicas_in_turn_stay_within_the_limit(
        self, clock: FakeClock, replicas: int
    ) -> None:
        place = Place()
        stores = [limited(clock, place, max_owner=1000) for _ in range(replicas)]
        for number in range(400):
            store = stores[number % replicas]
            with contextlib.suppress(LimitExceeded):
                store.session(f"tab {number % TABS}", "anna").add(bytes(10))
            clock.advance(11 * SECOND)
        assert stores[0].usage(owner="anna").bytes == 1000

    def test_each_further_replica_exceeds_it_by_an_eighth_at_most(self, clock: FakeClock) -> None:
        place = Place()
        stores = [limited(clock, place, max_owner=1000, max_owner_files=100) for _ in range(4)]
        for number, store in enumerate(stores):
            fill(store.session(f"early {number}", "anna"), most=1)
        clock.advance(HOUR)
        for number, store in enumerate(stores):
            fill(store.session(f"late {number}", "anna"))
            clock.advance(11 * SECOND)
        usage = stores[0].usage(owner="anna")
        assert 100 <= usage.files <= 100 + 3 * 13
        assert 1000 <= usage.bytes <= 1000 + 3 * 130

    def test_room_that_another_replica_made_is_found_ten_seconds_later(
        self, clock: FakeClock
    ) -> None:
        place = Place()
        one, two = (limited(clock, place, max_owner=100) for _ in range(2))
        one.session("one", "anna").put("a", bytes(100))
        assert fill(two.session("two", "anna")) == 0
        one.session("one", "anna").drop()
        clock.advance(11 * SECOND)
        assert fill(two.session("two", "anna")) == 10


class TestRequests:
    """On a bucket. ``add`` never asks for an older file of its name."""

    def requests(self, bucket: Bucket, saves: int, **limits: int) -> dict[str, int]:
        store, client = bucket.replica(**limits)
        for number in range(saves):
            store.session("one", "anna").add(f"{limits} {number}".encode())
        return dict(client.requests)

    def test_a_save_takes_no_more_than_with_max_session(self, bucket: Bucket) -> None:
        """The first save of an owner also reads the owner's list and writes the entry in it."""
        by_session = self.requests(bucket, 30, max_session=10**6)
        bucket.bucket = FakeBucket(bucket.clock.now)
        by_owner = self.requests(bucket, 30, max_owner=10**6)
        # One more of each, because this store has no empty content yet.
        assert by_owner == {"LIST": by_session["LIST"] + 2, "PUT": by_session["PUT"] + 2}
        assert by_session == {"LIST": 30 + 1, "PUT": 2 * 30}

    def test_far_from_the_limit_nothing_is_looked_at_again(
        self, bucket: Bucket, clock: FakeClock
    ) -> None:
        store, client = bucket.replica(max_owner=10**6)
        for number in range(3):
            store.session(f"{number}", "anna").add(b"first")
        clock.advance(2 * MINUTE)
        client.requests.clear()
        store.session("0", "anna").add(b"second")
        assert client.requests == {"LIST": 1 + 1, "PUT": 2}  # its content; the session, each minute

    def test_at_the_limit_a_minute_takes_a_few_listings(
        self, bucket: Bucket, clock: FakeClock
    ) -> None:
        store, client = bucket.replica(max_owner=300)
        for number in range(3):
            fill(store.session(f"{number}", "anna"), size=100, most=1)
        client.requests.clear()
        for _ in range(60):
            assert fill(store.session("0", "anna")) == 0
            clock.advance(SECOND)
        # Every ten seconds the list and the three sessions.
        assert client.requests == {"LIST": 5 * (1 + 3)}

    def test_one_save_looks_at_a_hundred_sessions(self, bucket: Bucket) -> None:
        store, _ = bucket.replica(max_owner=10**6)
        for number in range(130):
            store.session(f"{number}", "anna").add(b"x")
        other, client = bucket.replica(max_owner=10**6)
        other.session("new", "anna").add(b"y")
        assert (
            client.requests["LIST"] == 1 + 100 + 3
        )  # its own session, its content, the empty content

    def test_the_entry_goes_with_the_session(self, bucket: Bucket, clock: FakeClock) -> None:
        store, _ = bucket.replica(max_owner=10**6)
        one, two = store.session("one", "anna"), store.session("two", "anna")
        one.add(b"x")
        clock.advance(SECOND)
        two.add(b"y")
        assert store.owners.newest("anna") == [two.sid, one.sid]
        one.drop()
        assert store.owners.newest("anna") == [two.sid]
        one.add(b"x")
        assert set(store.owners.newest("anna")) == {one.sid, two.sid}

    def test_without_the_limit_no_list_is_kept(self, bucket: Bucket) -> None:
        store, _ = bucket.replica(max_session=10**6)
        store.session("one", "anna").add(b"x")
        assert list(store.backend.files(list_key("anna").sid)) == []


class TestAnotherSweeper:
    """A process without the limits and without an adapter, such as ``sessionstore sweep``."""

    @pytest.fixture
    def left(self, bucket: Bucket, clock: FakeClock) -> SessionStore:
        """A store with a session that ended, whose process died, in a list of its owner."""
        store, _ = bucket.replica(max_owner=1000)
        store.session("one", "anna").put("a", b"a")
        store.session("two", "anna").put("b", b"b")
        store.backend.end(store.session("one", "anna").sid)
        clock.advance(HOUR)
        return store

    def test_deletes_the_entry_of_what_it_drops(self, left: SessionStore, bucket: Bucket) -> None:
        sweeper, _ = bucket.replica()
        assert [row.action for row in sweeper.sweep()] == ["drop"]
        assert left.owners.sids("anna") == [left.session("two", "anna").sid]

    def test_asks_for_no_list_where_there_is_none(self, bucket: Bucket, clock: FakeClock) -> None:
        store, client = bucket.replica()
        store.session("one", "anna").put("a", b"a")
        store.backend.end(store.session("one", "anna").sid)
        clock.advance(HOUR)
        client.requests.clear()
        store.sweep()
        # Content, intents, sessions, uploads; of the session its owner, its files, the drop.
        assert client.requests["LIST"] == 4 + 3


class TestUsage:
    def test_counts_equal_bytes_of_one_owner_once(self, clock: FakeClock) -> None:
        store = memory_store(clock)
        for session in ("one", "two"):
            store.session(session, "anna").put("a", b"same")
        store.session("one", "boris").put("a", b"same")
        assert store.usage(owner="anna") == (2, 8, 4, 2)
        assert store.usage(owner="nobody") == (0, 0, 0, 0)

    def test_is_the_same_from_the_owner_s_list(self, clock: FakeClock) -> None:
        store = limited(clock, max_owner=100)
        for session in ("one", "two"):
            store.session(session, "anna").put("a", b"same")
        assert store.usage(owner="anna") == (2, 8, 4, 2)

    def test_refuses_an_invalid_owner(self, clock: FakeClock) -> None:
        with pytest.raises(InvalidName):
            memory_store(clock).usage(owner="")


def test_an_idle_list_does_not_lose_a_session_that_is_still_used(clock: FakeClock) -> None:
    place = Place()
    store = limited(clock, place, max_owner=100)
    session = store.session("one", "anna")
    for _ in range(60):
        session.put("a", bytes(50))
        clock.advance(HOUR)
        store.sweep()
    again = limited(clock, place, max_owner=100)
    assert fill(again.session("two", "anna")) == 5
