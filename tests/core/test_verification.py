"""Looking for damage, and healing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from sessionstore import BackendUnavailable, Corrupted, SessionStore
from sessionstore.backend import Reference
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.names import private_key
from sessionstore.session import Session
from sessionstore.testing import Call, FakeClock, Fault, FaultyBackend, on, unavailable
from sessionstore.verification import Finding
from tests.support.local import backend_of, blobs, spoil
from tests.support.stores import Heard, local_store, memory_store, names


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with local_store(tmp_path, FakeClock()) as store:
        store.session("alice", "her").put("cat.png", b"cat" * 1000)
        store.session("bob").put("dog.png", b"dog" * 1000)
        store.shared.put("logo.png", b"logo" * 1000)
        yield store


def damage(root: Path, content: bytes, *, by: bytes) -> None:
    """Change a blob's bytes and nothing else, as a disk would."""
    (blob,) = (path for path in blobs(root) if path.read_bytes() == content)
    spoil(blob, by)


def flipped(data: bytes) -> bytes:
    return data[:1500] + bytes([data[1500] ^ 1]) + data[1501:]


def test_a_sound_store_has_no_findings(store: SessionStore) -> None:
    Session(store, private_key("an adapter's own", "her")).put("note", b"note")
    assert store.verify() == []


@pytest.mark.parametrize(
    "by", [flipped(b"cat" * 1000), b"cat" * 999, b"cat" * 1001, b""],
    ids=["flipped", "short", "long", "empty"],
)  # fmt: skip
def test_damage_is_found_and_named(store: SessionStore, tmp_path: Path, by: bytes) -> None:
    damage(tmp_path, b"cat" * 1000, by=by)
    (finding,) = store.verify()
    assert (finding.session_id, finding.owner, finding.name) == ("alice", "her", "cat.png")
    assert "are damaged" in finding.problem
    assert not finding.repaired


def test_looking_changes_nothing(store: SessionStore, tmp_path: Path) -> None:
    damage(tmp_path, b"cat" * 1000, by=flipped(b"cat" * 1000))
    heard = Heard(store)
    before = store.verify()
    assert (store.verify(), heard.kinds()) == (before, [])


def test_the_app_s_own_files_are_looked_at_too(store: SessionStore, tmp_path: Path) -> None:
    damage(tmp_path, b"logo" * 1000, by=flipped(b"logo" * 1000))
    assert [(finding.session_id, finding.name) for finding in store.verify()] == [
        ("shared", "logo.png")
    ]


def test_every_file_of_damaged_content_is_found(store: SessionStore, tmp_path: Path) -> None:
    store.session("bob").put("same.png", b"cat" * 1000)
    damage(tmp_path, b"cat" * 1000, by=flipped(b"cat" * 1000))
    assert {finding.name for finding in store.verify()} == {"cat.png", "same.png"}


class TestRepair:
    def test_deletes_damaged_files_and_no_others(self, store: SessionStore, tmp_path: Path) -> None:
        damage(tmp_path, b"cat" * 1000, by=flipped(b"cat" * 1000))
        (finding,) = store.verify(repair=True)
        assert finding.repaired
        assert names(store.session("alice", "her")) == []
        assert names(store.session("bob")) == ["dog.png"]
        assert store.verify() == []

    def test_saving_again_heals(self, store: SessionStore, tmp_path: Path) -> None:
        damage(tmp_path, b"cat" * 1000, by=flipped(b"cat" * 1000))
        session = store.session("alice", "her")
        with pytest.raises(Corrupted):
            session.read("cat.png")
        store.verify(repair=True)
        session.put("cat.png", b"cat" * 1000)
        assert session.read("cat.png") == b"cat" * 1000

    def test_is_told_as_deleted_with_the_damage(self, store: SessionStore, tmp_path: Path) -> None:
        damage(tmp_path, b"cat" * 1000, by=b"")
        heard = Heard(store)
        (finding,) = store.verify(repair=True)
        (event,) = heard.all()
        assert (event.kind, event.name, event.reason) == ("deleted", "cat.png", finding.problem)

    def test_never_deletes_what_has_been_replaced_meanwhile(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        damage(tmp_path, b"cat" * 1000, by=b"")
        session, real = store.session("alice", "her"), store.backend.discard

        def replaced_first(sid: str, references: object) -> object:
            session.put("cat.png", b"new")
            return real(sid, references)  # type: ignore[arg-type]  # passed on as it came

        monkeypatch.setattr(store.backend, "discard", replaced_first)
        (finding,) = store.verify(repair=True)
        assert (finding.repaired, session.read("cat.png")) == (False, b"new")


def test_a_file_deleted_meanwhile_is_no_finding() -> None:
    clock = FakeClock()
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    store = SessionStore(backend, clock=clock)
    store.session("alice").put("a", b"cat")

    def deletes_first(call: Call) -> None:
        if call.verb == "open":
            backend.backend.delete(store.session("alice").sid, ["a"])

    backend.plan = deletes_first
    assert store.verify() == []


def test_a_backend_that_does_not_answer_is_no_damage() -> None:
    clock = FakeClock()
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    store = SessionStore(backend, clock=clock)
    store.session("alice").put("a", b"cat")
    backend.plan = on("open", Fault(unavailable))
    with pytest.raises(BackendUnavailable):
        store.verify(repair=True)
    backend.plan = lambda _: None
    assert names(store.session("alice")) == ["a"]


def test_memory_has_nothing_to_find() -> None:
    store = memory_store(FakeClock())
    store.session("alice").put("a", b"cat")
    assert store.verify(repair=True) == []


def test_memory_that_changed_is_damage() -> None:
    place = Place()
    store = memory_store(FakeClock(), place)
    store.session("alice").put("a", b"cat")
    for blob in place.blobs.values():
        blob.data = b"dog"
    assert [finding.name for finding in store.verify(repair=True)] == ["a"]
    store.session("alice").put("a", b"cat")
    assert (store.session("alice").read("a"), store.verify()) == (b"cat", [])


def test_a_repair_that_fails_stops_no_other(store: SessionStore, tmp_path: Path) -> None:
    damage(tmp_path, b"cat" * 1000, by=b"")
    damage(tmp_path, b"dog" * 1000, by=b"")
    real, calls = store.backend.discard, iter([True, False])

    def fails_once(sid: str, references: Iterable[Reference]) -> list[Reference]:
        if next(calls):
            raise unavailable()
        return real(sid, references)

    backend_of(store).discard = fails_once  # type: ignore[method-assign]  # for this test
    found = store.verify(repair=True)
    assert sorted(finding.repaired for finding in found) == [False, True]
    assert any("That failed: The backend did not answer." in it.remedy for it in found)


def test_a_finding_says_it_all() -> None:
    finding = Finding("alice", None, "a", "are damaged", repaired=True)
    assert (finding.session_id, finding.owner, finding.name) == ("alice", None, "a")
