"""What an inspection finds in an object store, and how it mends."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta

import pytest

from sessionstore import BackendUnavailable, Corrupted, FileNotStored, SessionStore
from sessionstore.backends.objects import ObjectBackend, keys
from sessionstore.backends.objects.client import Download
from sessionstore.backends.objects.damage import CONDEMNED
from sessionstore.testing import FakeClock
from tests.core.test_verification import flipped
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import Heard, names

CAT = b"cat" * 1000
LATER = timedelta(hours=2)  # than content may be adopted


class Noisy(FakeObjectClient):
    """A client whose next downloads of content come with one bit flipped, each another one."""

    flips = 0
    page: bytes | None = None

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        download = super().get(key, start, length)
        if self.page is not None and key.startswith("b/"):
            return download._replace(stream=io.BytesIO(self.page))
        if not self.flips or not key.startswith("b/"):
            return download
        self.flips -= 1
        data = bytearray(download.stream.read())
        data[self.flips] ^= 1
        return download._replace(stream=io.BytesIO(data))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


def open_store(bucket: FakeBucket, clock: FakeClock) -> SessionStore:
    return SessionStore(
        ObjectBackend(Noisy(bucket), elapsed=bucket.seconds), clock=clock
    )  # fmt: skip


@pytest.fixture
def store(bucket: FakeBucket, clock: FakeClock) -> Iterator[SessionStore]:
    with open_store(bucket, clock) as store:
        store.session("alice", "her").put("cat.png", CAT, ttl=LATER * 9)
        store.session("bob").put("dog.png", b"dog" * 1000)
        yield store


def content(bucket: FakeBucket) -> list[str]:
    return [key for key in bucket.all_keys() if key.startswith("b/")]


def copies(bucket: FakeBucket, data: bytes) -> list[str]:
    """The keys of a content's copies, the oldest first."""
    found = [key for key in content(bucket) if bytes(bucket.get(key).data) == data]
    return sorted(found, key=lambda key: bucket.get(key).modified)


def spoil(bucket: FakeBucket, key: str, by: bytes) -> None:
    bucket.put(key, by, bucket.get(key).modified)


def only_copy_of(bucket: FakeBucket, data: bytes) -> str:
    (key,) = copies(bucket, data)
    return key


def test_a_sound_store_has_no_findings(store: SessionStore) -> None:
    store.session("alice", "her").end()
    store.session("bob").touch()
    store.session("bob").put("x" * 250, b"dog" * 1000)
    store.session("bob").delete("dog.png")
    store.sweep()
    assert store.verify() == []


@pytest.mark.parametrize(
    "by", [flipped(CAT), CAT[:-3], CAT + b"!", b""], ids=["flipped", "short", "long", "empty"]
)
class TestDamage:
    def test_is_found_refused_and_healed(
        self, store: SessionStore, bucket: FakeBucket, by: bytes
    ) -> None:
        spoil(bucket, only_copy_of(bucket, CAT), by)
        session = store.session("alice", "her")
        with pytest.raises(Corrupted):
            session.read("cat.png")
        (finding,) = store.verify()
        assert (finding.session_id, finding.owner, finding.name) == ("alice", "her", "cat.png")
        assert (finding.kind, finding.repaired) == ("damaged", False)
        heard = Heard(store, "deleted")
        assert [it.repaired for it in store.verify(repair=True)] == [True]
        assert [(it.session_id, it.name) for it in heard.all()] == [("alice", "cat.png")]
        assert (names(session), store.verify()) == ([], [])
        session.put("cat.png", CAT)
        assert (session.read("cat.png"), store.verify()) == (CAT, [])

    def test_is_healed_for_processes_that_know_of_nothing(
        self, store: SessionStore, bucket: FakeBucket, clock: FakeClock, by: bytes
    ) -> None:
        spoil(bucket, only_copy_of(bucket, CAT), by)
        store.verify(repair=True)
        with open_store(bucket, clock) as other:
            other.session("carol").put("cat.png", CAT)
            assert other.session("carol").read("cat.png") == CAT

    def test_is_found_again_in_what_a_process_saved_that_knew_the_copy(
        self, store: SessionStore, bucket: FakeBucket, clock: FakeClock, by: bytes
    ) -> None:
        with open_store(bucket, clock) as other:
            other.session("carol").put("first.png", CAT)  # it would adopt the copy once more
            spoil(bucket, only_copy_of(bucket, CAT), by)
            store.verify(repair=True)
            other.session("carol").put("cat.png", CAT)
            with pytest.raises(Corrupted):
                other.session("carol").read("cat.png")
            other.session("carol").put("again.png", CAT)
            assert other.session("carol").read("again.png") == CAT
        assert [(it.name, it.repaired) for it in store.verify(repair=True)] == [("cat.png", True)]


@pytest.mark.parametrize("wrong", [b"short", bytes(len(CONDEMNED))], ids=["short", "as long"])
def test_content_as_long_as_the_note_of_damage_heals_too(
    store: SessionStore, bucket: FakeBucket, clock: FakeClock, wrong: bytes
) -> None:
    data = b"x" * len(CONDEMNED)
    store.session("bob").put("a", data)
    spoil(bucket, only_copy_of(bucket, data), wrong)
    store.verify(repair=True)
    with open_store(bucket, clock) as another:  # which remembers no damage
        another.session("bob").put("a", data)
        assert another.session("bob").read("a") == data


class TestAnotherCopy:
    @pytest.fixture
    def two(self, store: SessionStore, bucket: FakeBucket, clock: FakeClock) -> list[str]:
        clock.advance(LATER)
        store.session("bob").put("same.png", CAT)
        first, second = copies(bucket, CAT)
        return [first, second]

    def test_heals_the_file_and_nothing_of_it_changes(
        self, store: SessionStore, bucket: FakeBucket, clock: FakeClock, two: list[str]
    ) -> None:
        before = store.session("alice", "her").get("cat.png")
        spoil(bucket, two[0], flipped(CAT))
        heard = Heard(store)
        (finding,) = store.verify(repair=True)
        assert (finding.name, finding.repaired, heard.kinds()) == ("cat.png", True, [])
        assert two[1] in finding.remedy
        after = store.session("alice", "her").get("cat.png")
        assert (after.read(), after.expires) == (CAT, before.expires)
        assert after.created - before.created == timedelta(microseconds=1)
        assert store.verify() == []
        assert bytes(bucket.get(two[0]).data) == CONDEMNED
        clock.advance(LATER)
        store.sweep()
        assert two[0] not in content(bucket)
        assert store.session("alice", "her").read("cat.png") == CAT

    def test_heals_it_also_when_the_sound_one_is_too_old_to_be_adopted(
        self, store: SessionStore, bucket: FakeBucket, clock: FakeClock, two: list[str]
    ) -> None:
        clock.advance(LATER)
        spoil(bucket, two[1], b"")
        assert [it.name for it in store.verify(repair=True)] == ["same.png"]
        store.session("alice", "her").drop()
        clock.advance(LATER)
        store.sweep()
        assert store.session("bob").read("same.png") == CAT
        assert store.verify() == []

    def test_heals_a_file_whose_own_is_missing(
        self, store: SessionStore, bucket: FakeBucket, two: list[str]
    ) -> None:
        bucket.delete([two[0]])
        (finding,) = store.verify(repair=True)
        assert (finding.kind, finding.repaired) == ("missing", True)
        assert store.session("alice", "her").read("cat.png") == CAT

    def test_heals_none_when_it_is_damaged_too(
        self, store: SessionStore, bucket: FakeBucket, two: list[str]
    ) -> None:
        for key in two:
            spoil(bucket, key, flipped(CAT))
        found = store.verify(repair=True)
        assert sorted((it.name or "", it.repaired) for it in found) == [
            ("cat.png", True), ("same.png", True)
        ]  # fmt: skip
        assert names(store.session("alice", "her")) == []
        assert names(store.session("bob")) == ["dog.png"]

    @pytest.mark.parametrize("meanwhile", ["deleted", "replaced", "dropped"])
    def test_brings_nothing_back_that_went_meanwhile(
        self, store: SessionStore, bucket: FakeBucket, two: list[str], meanwhile: str
    ) -> None:
        spoil(bucket, two[0], flipped(CAT))
        assert isinstance(store.backend, ObjectBackend)
        (problem,) = store.backend.inspect()
        session = store.session("alice", "her")
        if meanwhile == "deleted":
            session.delete("cat.png")
        elif meanwhile == "replaced":
            session.put("cat.png", b"new")
        else:
            session.drop()
        assert not problem.repair()
        expected = ["cat.png"] if meanwhile == "replaced" else []
        assert names(session) == expected
        if expected:
            assert session.read("cat.png") == b"new"


def test_a_file_without_content_is_found_and_deleted(
    store: SessionStore, bucket: FakeBucket
) -> None:
    bucket.delete([only_copy_of(bucket, CAT)])
    session = store.session("alice", "her")
    with pytest.raises(FileNotStored):
        session.read("cat.png")
    (finding,) = store.verify()
    assert (finding.kind, finding.name) == ("missing", "cat.png")
    assert "is not there" in finding.problem
    assert [it.repaired for it in store.verify(repair=True)] == [True]
    assert (names(session), store.verify()) == ([], [])
    assert [key for key in bucket.all_keys() if "/f/" in key and "cat" in key] == []


def test_damaged_content_that_no_file_has_goes_before_a_save_takes_it(
    store: SessionStore, bucket: FakeBucket
) -> None:
    key = only_copy_of(bucket, CAT)
    store.session("alice", "her").delete("cat.png")
    spoil(bucket, key, flipped(CAT))
    (finding,) = store.verify(repair=True)
    assert (finding.kind, finding.place, finding.session_id) == ("damaged", key, None)
    store.session("bob").put("cat.png", CAT)
    assert store.session("bob").read("cat.png") == CAT


@pytest.mark.parametrize(
    "key", ["mine", "b/mine", "b-mine", "i/mine", "s/mine/mine", "s/a/f/b/mine", "z/mine"]
)
def test_what_is_none_of_ours_is_named_and_left(
    store: SessionStore, bucket: FakeBucket, key: str
) -> None:
    bucket.put(key, b"mine")
    (finding,) = store.verify(repair=True)
    assert (finding.kind, finding.place, finding.repaired) == ("unknown", key, False)
    assert bytes(bucket.get(key).data) == b"mine"


class TestInterruptedUploads:
    @pytest.fixture(autouse=True)
    def upload(self, store: SessionStore, bucket: FakeBucket) -> None:
        digest, generation = "ab" * 32, "cd" * 16
        bucket.put(keys.intent("a-" + "0" * 32, digest, generation), b"")
        bucket.begin(keys.blob(digest, generation))

    def test_that_may_still_be_going_on_are_none(self, store: SessionStore) -> None:
        assert store.verify(repair=True) == []

    def test_that_cannot_be_acknowledged_any_more_are_named(
        self, store: SessionStore, bucket: FakeBucket, clock: FakeClock
    ) -> None:
        clock.advance(timedelta(hours=13))
        found = store.verify(repair=True)
        assert [(it.kind, it.repaired) for it in found] == [("leftover", False)] * 2
        assert len(bucket.uploads()) == 1

    def test_are_removed_when_a_sweep_would(
        self, store: SessionStore, bucket: FakeBucket, clock: FakeClock
    ) -> None:
        clock.advance(timedelta(hours=25))
        found = store.verify(repair=True)
        assert [(it.kind, it.repaired) for it in found] == [("leftover", True)] * 2
        assert bucket.uploads() == []
        assert store.verify() == []


def test_what_was_damaged_on_its_way_is_no_damage(store: SessionStore) -> None:
    assert isinstance(store.backend, ObjectBackend)
    client = store.backend.client
    assert isinstance(client, Noisy)
    client.flips = 3
    assert store.verify(repair=True) == []


def test_a_page_in_the_place_of_the_bytes_is_no_damage(store: SessionStore) -> None:
    """The same page each time, as of a proxy that wants a password first."""
    assert isinstance(store.backend, ObjectBackend)
    client = store.backend.client
    assert isinstance(client, Noisy)
    client.page = b"<html>Please log in</html>"
    with pytest.raises(BackendUnavailable, match="does not come as the store lists it"):
        store.verify(repair=True)
    client.page = None
    assert store.session("alice", "her").read("cat.png") == CAT


def test_bytes_that_never_come_the_same_are_the_network_s(store: SessionStore) -> None:
    assert isinstance(store.backend, ObjectBackend)
    client = store.backend.client
    assert isinstance(client, Noisy)
    client.flips = 100
    with pytest.raises(BackendUnavailable, match="other bytes each time"):
        store.verify(repair=True)
    client.flips = 0
    assert names(store.session("alice", "her")) == ["cat.png"]


def test_many_generations_are_matched_on_the_disk(
    store: SessionStore, bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.session("bob")
    for number in range(40):
        session.put(f"{number}", b"%d" % number)
    damaged = [b"%d" % number for number in range(0, 40, 7)]
    for data in damaged:
        spoil(bucket, only_copy_of(bucket, data), data + b"!")
    monkeypatch.setattr("sessionstore.backends.objects.spill.MEMORY", 500)
    assert isinstance(store.backend, ObjectBackend)
    assert {it.name for it in store.verify()} == {data.decode() for data in damaged}
    assert len(store.verify(repair=True)) == len(damaged)
    assert store.verify() == []


def test_the_name_of_a_file_that_cannot_be_read_is_said(
    store: SessionStore, bucket: FakeBucket, clock: FakeClock
) -> None:
    store.session("bob").put("Ü" * 120, b"1")
    (key,) = (key for key in bucket.all_keys() if "/f/" in key and "!!" in key)
    bucket.put(key, b"{")
    with open_store(bucket, clock) as other:
        whose, name = other.verify(repair=True)
        assert whose.place == store.session("bob").sid
        assert (name.kind, name.place, name.repaired) == ("damaged", key, False)
        assert other.session("bob").read("Ü" * 120) == b"1"


@pytest.mark.usefixtures("store")
def test_a_session_of_another_s_id_is_named(bucket: FakeBucket, clock: FakeClock) -> None:
    (key,) = (key for key in bucket.all_keys() if "/f/cat.png/" in key)
    bucket.put(key, b'{"id": "mallory", "owner": null, "name": "cat.png"}')
    with open_store(bucket, clock) as other:
        assert [(it.kind, it.session_id) for it in other.verify()] == [("damaged", None)]
