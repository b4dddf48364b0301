"""What an inspection finds on the local disk besides damaged files, and how it mends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionstore import SessionStore
from sessionstore.backends.local import damage as _local_inspect
from sessionstore.backends.local import save
from sessionstore.testing import FakeClock
from tests.core.test_verification import damage, flipped
from tests.support.local import backend_of, blobs, spoil
from tests.support.stores import HOUR, Heard, local_store, names

CAT = b"cat" * 1000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with local_store(tmp_path, FakeClock()) as store:
        store.session("alice", "her").put("cat.png", CAT, ttl=HOUR)
        yield store


def with_two_copies(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file of the same content in an inode of its own, as EMLINK makes them."""
    monkeypatch.setattr(save.Save, "_link", lambda self, _: setattr(self, "stale", True))
    store.session("bob").put("same.png", CAT)
    monkeypatch.undo()


def file_of(root: Path, store: SessionStore, session: str, owner: str | None, name: str) -> Path:
    return root / "sessions" / store.session(session, owner).sid / "files" / name


class TestAnotherCopy:
    def test_heals_the_file_and_nothing_of_it_changes(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_two_copies(store, monkeypatch)
        before = store.session("alice", "her").get("cat.png")
        spoil(file_of(tmp_path, store, "alice", "her", "cat.png"), flipped(CAT))
        heard = Heard(store)
        (finding,) = store.verify(repair=True)
        assert (finding.name, finding.repaired, heard.kinds()) == ("cat.png", True, [])
        assert "linked to a sound copy" in finding.remedy
        after = store.session("alice", "her").get("cat.png")
        assert after.read() == CAT
        assert (after.created, after.expires) == (before.created, before.expires)
        assert store.verify() == []

    def test_is_found_also_when_it_is_the_blob_that_is_damaged(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_two_copies(store, monkeypatch)
        spoil(blobs(tmp_path)[0], flipped(CAT))
        (finding,) = store.verify(repair=True)
        assert (finding.session_id, finding.name, finding.repaired) == ("bob", "same.png", True)
        assert store.session("bob").read("same.png") == CAT
        assert len({path.stat().st_ino for path in tmp_path.rglob("*.png")}) == 1
        assert len(blobs(tmp_path)) == 1
        assert store.verify() == []

    def test_heals_no_file_that_was_replaced_meanwhile(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_two_copies(store, monkeypatch)
        spoil(file_of(tmp_path, store, "alice", "her", "cat.png"), b"")
        (problem,) = backend_of(store).inspect()
        store.session("alice", "her").put("cat.png", b"new")
        assert (problem.repair(), store.session("alice", "her").read("cat.png")) == (False, b"new")


class TestFilesThatSomethingWroteTo:
    """A write also changes the time of the inode, so no line of the journal names the file."""

    @staticmethod
    def write_to_the_blob(root: Path) -> None:
        (blob,) = blobs(root)
        blob.chmod(0o644)
        blob.write_bytes(flipped(CAT))
        os.utime(blob, (1, 1))

    def test_all_of_them_are_deleted_and_can_be_saved_again(
        self, store: SessionStore, tmp_path: Path
    ) -> None:
        store.session("bob").put("same.png", CAT)
        self.write_to_the_blob(tmp_path)
        heard = Heard(store)
        found = {(it.session_id, it.name, it.kind, it.repaired) for it in store.verify(repair=True)}
        assert found == {
            ("alice", "cat.png", "damaged", True),
            ("bob", "same.png", "damaged", True),
        }
        assert heard.kinds() == ["deleted", "deleted"]
        assert store.verify() == []
        store.session("bob").put("same.png", CAT)
        assert store.session("bob").read("same.png") == CAT

    def test_all_of_them_are_linked_to_another_copy(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_two_copies(store, monkeypatch)
        store.session("carol").put("copy.png", CAT)
        self.write_to_the_blob(tmp_path)  # the content of bob and carol
        found = {(it.session_id, it.repaired) for it in store.verify(repair=True)}
        assert found == {("bob", True), ("carol", True)}
        assert store.session("bob").read("same.png") == CAT
        assert store.session("carol").read("copy.png") == CAT
        assert store.verify() == []

    def test_one_that_was_replaced_meanwhile_stays(
        self, store: SessionStore, tmp_path: Path
    ) -> None:
        store.session("bob").put("same.png", CAT)
        self.write_to_the_blob(tmp_path)
        problems = list(backend_of(store).inspect())
        store.session("bob").put("same.png", b"new")
        assert sorted(it.repair() for it in problems) == [False, True]
        assert store.session("bob").read("same.png") == b"new"
        assert names(store.session("alice", "her")) == []


class TestBlobsWithoutFiles:
    def test_damaged_ones_are_found_and_deleted(self, store: SessionStore, tmp_path: Path) -> None:
        held = backend_of(store)._workspace.path / "held"
        os.link(blobs(tmp_path)[0], held)  # as a save on its way does
        damage(tmp_path, CAT, by=flipped(CAT))
        store.session("alice", "her").drop()
        (finding,) = store.verify()
        assert (finding.kind, finding.session_id, finding.name) == ("damaged", None, None)
        store.verify(repair=True)
        assert blobs(tmp_path) == []

    def test_those_nobody_refers_to_are_left_over(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file_of(tmp_path, store, "alice", "her", "cat.png").unlink()
        assert store.verify() == []  # it may be a delete on its way
        monkeypatch.setattr(_local_inspect, "SETTLED", 0)
        (finding,) = store.verify()
        assert (finding.kind, finding.repaired) == ("leftover", False)
        assert len(blobs(tmp_path)) == 1
        assert [it.repaired for it in store.verify(repair=True)] == [True]
        assert blobs(tmp_path) == []


def test_a_file_that_cannot_be_read_is_named_and_left(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.read

    def failing(fd: int, size: int) -> bytes:
        if size > 1 << 16:  # of content; journals are read in less
            raise OSError(5, "Input/output error")
        return real(fd, size)

    monkeypatch.setattr(os, "read", failing)
    (finding,) = store.verify(repair=True)
    monkeypatch.undo()
    assert "cannot be read: Input/output error" in finding.problem
    assert (finding.repaired, names(store.session("alice", "her"))) == (False, ["cat.png"])


@pytest.mark.parametrize(
    "place", ["mine", "sessions/mine", "blobs/mine", "blobs/ab/mine", "sessions/{}/mine",
              "sessions/{}/files/.mine"],
)  # fmt: skip
def test_what_is_none_of_ours_is_named_and_left(
    store: SessionStore, tmp_path: Path, place: str
) -> None:
    path = tmp_path / place.format(store.session("alice", "her").sid)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    (finding,) = store.verify(repair=True)
    assert (finding.kind, finding.repaired) == ("unknown", False)
    assert finding.place == str(path.relative_to(tmp_path))
    assert path.read_bytes() == b"mine"


def test_a_directory_among_the_files_is_no_file(store: SessionStore, tmp_path: Path) -> None:
    file_of(tmp_path, store, "alice", "her", "folder").mkdir()
    assert names(store.session("alice", "her")) == ["cat.png"]
    assert [finding.kind for finding in store.verify()] == ["unknown"]


def test_the_work_of_a_killed_process_is_left_over(store: SessionStore, tmp_path: Path) -> None:
    code = """
import os, sys
from sessionstore import SessionStore
store = SessionStore.open(sys.argv[1])
(store.backend._workspace.path / "half").write_bytes(b"half")
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (finding,) = store.verify()
    assert (finding.kind, finding.place[:4], finding.repaired) == ("leftover", "tmp/", False)
    assert list(tmp_path.glob("tmp/*/half")) != []
    assert [it.repaired for it in store.verify(repair=True)] == [True]
    assert list(tmp_path.glob("tmp/*/half")) == []
    assert store.verify() == []


def test_a_session_that_does_not_say_whose_it_is_is_named(
    store: SessionStore, tmp_path: Path
) -> None:
    sid = store.session("alice", "her").sid
    (tmp_path / "sessions" / sid / "id").write_text('{"id": "mallory", "owner": null}')
    (finding,) = store.verify(repair=True)
    assert (finding.kind, finding.place, finding.repaired) == ("damaged", sid, False)
    assert store.session("alice", "her").read("cat.png") == CAT
