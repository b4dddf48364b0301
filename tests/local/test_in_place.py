"""A small new file is written in its place: nobody takes it for one before it is finished."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from sessionstore import FileNotStored, SessionStore
from sessionstore.backends.local import journal
from sessionstore.backends.local.directory import UNFINISHED
from sessionstore.backends.local.save import SMALL
from sessionstore.base import SessionHandle
from sessionstore.events import Event
from sessionstore.testing import FakeClock
from tests.support.local import backend_of, blobs, everything

pytestmark = pytest.mark.skipif(
    not hasattr(os, "O_TMPFILE"), reason="only where files can be made without a name"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "s"


def path_of(root: Path, session: SessionHandle, name: str) -> Path:
    return root / "sessions" / session.sid / "files" / name


def before_it_is_finished(monkeypatch: pytest.MonkeyPatch, look: Callable[[], object]) -> list[int]:
    """Call ``look()`` at the moment that a file has all its bytes, and is none yet."""
    real, seen = os.fchmod, list[int]()

    def fchmod(fd: int, mode: int) -> None:
        if not seen:
            seen.append(os.fstat(fd).st_size)
            look()
        real(fd, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    return seen


def test_no_other_process_sees_it_before(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SessionStore.open(root) as store, SessionStore.open(root) as other:
        store.session("one").put("there", b"1")
        theirs = other.session("one")

        def look() -> None:
            assert path_of(root, theirs, "a").exists()
            assert [file.name for file in theirs.files()] == ["there"]
            assert "a" not in theirs
            with pytest.raises(FileNotStored):
                theirs.read("a")

        seen = before_it_is_finished(monkeypatch, look)
        store.session("one").put("a", b"four")
        assert seen == [4]
        assert theirs.read("a") == b"four"


def test_the_same_bytes_saved_at_that_moment_are_kept_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionStore.open(root) as store, SessionStore.open(root) as other:
        saved = before_it_is_finished(
            monkeypatch, lambda: other.session("two").put("theirs", b"same")
        )
        ours = store.session("one").put("ours", b"same")
        assert saved == [4]
        (blob,) = blobs(root)
        assert blob.stat().st_nlink == 3
        assert ours.read() == other.session("two").read("theirs") == b"same"


def test_it_has_the_mode_of_every_stored_file(root: Path) -> None:
    mask = os.umask(0o277)
    try:
        with SessionStore.open(root) as store:
            file = store.session("one").put("a", b"1")
            there = path_of(root, file.session, "a").stat()
    finally:
        os.umask(mask)
    assert stat.S_IMODE(there.st_mode) == 0o444


@pytest.mark.parametrize(("size", "in_place"), [(0, True), (SMALL, True), (SMALL + 1, False)])
def test_what_is_larger_is_written_beforehand(
    size: int,
    in_place: bool,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(root) as store:
        seen = before_it_is_finished(monkeypatch, lambda: None)
        file = store.session("one").put("a", bytes(size))
        assert seen == [size] * in_place
        assert file.read() == bytes(size)


def test_durable_files_are_not_written_in_their_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionStore.open(root, durable=True) as store:
        seen = before_it_is_finished(monkeypatch, lambda: None)
        assert store.session("one").put("a", b"1").read() == b"1"
        assert seen == []


# What a death in between leaves


@pytest.fixture
def left(root: Path) -> tuple[SessionStore, Path]:
    """A session with a file, and an unfinished one that its process left."""
    store = SessionStore.open(root)
    session = store.session("one")
    session.put("there", b"1")
    path = path_of(root, session, "a")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, UNFINISHED))
    return store, path


def test_it_is_no_file(left: tuple[SessionStore, Path]) -> None:
    with left[0] as store:
        session = store.session("one")
        assert [file.name for file in session.files()] == ["there"]
        assert "a" not in session
        assert session.usage().files == 1


@pytest.mark.parametrize("content", [b"new", b"1", bytes(SMALL + 1)], ids=["new", "known", "large"])
def test_a_save_of_that_name_takes_its_place(
    content: bytes, left: tuple[SessionStore, Path]
) -> None:
    with left[0] as store:
        session = store.session("one")
        file = session.put("a", content)
        assert session.read("a") == file.read() == content
        assert stat.S_IMODE(left[1].stat().st_mode) == 0o444
        assert store.verify() == []


def test_who_comes_for_an_older_version_may_open_it(root: Path) -> None:
    """And finds another one there: only root could open what it may not read."""
    with SessionStore.open(root) as store:
        session = store.session("one")
        file = session.put("a", b"1")
        session.delete("a")
        path = path_of(root, session, "a")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, UNFINISHED))
        assert path.stat().st_mode & stat.S_IRUSR
        with pytest.raises(FileNotStored):
            file.read()


def test_the_first_sweep_after_the_death_removes_it(root: Path) -> None:
    with SessionStore.open(root) as store:
        store.session("one").put("there", b"1")
        pid = os.fork()
        if pid == 0:
            os.fchmod = lambda *_: os._exit(9)
            store.session("one").put("a", b"two")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        path = path_of(root, store.session("one"), "a")
        assert path.read_bytes() == b"two"
        store.sweep()
        assert not path.exists()
        assert [file.name for file in store.session("one").files()] == ["there"]
        assert store.verify() == []


def test_a_sweep_leaves_alone_what_is_being_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionStore.open(root) as store, SessionStore.open(root) as other:
        store.session("one").put("there", b"1")
        swept = before_it_is_finished(monkeypatch, backend_of(other)._remove_left)
        file = store.session("one").put("a", b"four")
        assert swept == [4]
        assert file.read() == b"four"


def test_it_is_not_counted_as_a_file_that_was_dropped(left: tuple[SessionStore, Path]) -> None:
    with left[0] as store:
        dropped: list[Event] = []
        store.on("dropped", dropped.append)
        store.session("one").drop()
        assert [(each.files, each.size) for each in dropped] == [(1, 1)]


def test_it_goes_with_a_delete_and_with_the_session(
    left: tuple[SessionStore, Path], root: Path
) -> None:
    with left[0] as store:
        session = store.session("one")
        session.delete("a")
        assert not left[1].exists()
        os.close(os.open(left[1], os.O_WRONLY | os.O_CREAT, UNFINISHED))
        session.drop()
        assert everything(root) == set()


def test_an_inspection_finds_and_removes_it(left: tuple[SessionStore, Path]) -> None:
    with left[0] as store:
        (found,) = store.verify()
        assert (found.kind, found.repaired) == ("leftover", False)
        assert "did not finish" in found.problem
        assert left[1].exists()
        assert [each.repaired for each in store.verify(repair=True)] == [True]
        assert not left[1].exists()
        assert store.verify() == []


def test_an_inspection_leaves_alone_what_is_being_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the lock, as a repair does: by then the file is finished."""
    with SessionStore.open(root) as store, SessionStore.open(root) as other:
        store.session("one").put("there", b"1")
        folders = type(backend_of(other)._folders)
        waited, real = list[str](), folders.changing

        def changing(self: object, sid: str, **more: object) -> object:
            waited.append(sid)
            os.chmod(path, 0o444)  # the writer is done while we wait
            return real(self, sid, **more)  # type: ignore[arg-type]  # as it was called

        path = path_of(root, store.session("one"), "a")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, UNFINISHED))
        monkeypatch.setattr(folders, "changing", changing)
        assert [found for found in other.verify() if found.kind == "leftover"] == []
        assert waited == [store.session("one").sid]


# The journal


def test_compacting_the_journal_is_no_activity(root: Path) -> None:
    clock = FakeClock()
    with SessionStore.open(root, clock=clock) as store:
        session = store.session("one")
        for number in range(600):
            session.put("a", f"{number}".encode())
        seen = (root / "sessions" / session.sid / "seen").stat()
        assert seen.st_size > 0, "it was compacted"
        record = store.backend.session(session.sid)
        assert record is not None
        assert record.active == clock.now()
        clock.advance(timedelta(minutes=1))
        session.put("b", b"1")
        with backend_of(store)._folders.reading(session.sid) as folder:
            assert folder is not None
            assert journal.count(folder.dir) == len(list(journal.lines(folder.dir)))
        assert (root / "sessions" / session.sid / "seen").stat().st_size == seen.st_size
