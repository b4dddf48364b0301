"""Folders that are kept open: bounded, given up when they are gone, and never shared by a fork."""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sessionstore import BackendUnavailable, FileNotStored, SessionStore
from sessionstore.backends.local.session_dir import SessionDir, SessionDirPool
from tests.support.local import backend_of, opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore.open(tmp_path / "s") as store:
        yield store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[SessionStore]:
    """The same store as another process has it open."""
    with SessionStore.open(tmp_path / "s") as other:
        yield other


def test_only_some_folders_are_kept_open(store: SessionStore, tmp_path: Path) -> None:
    store.session("one").put("a", b"the same")
    folders = SessionDirPool(backend_of(store)._disk, most=3)
    before = len(opened(tmp_path))
    for number in range(20):
        store.session(f"{number}").put("a", b"the same")
        with folders.changing(store.session(f"{number}").sid) as folder:
            assert folder is not None
    open_now = len(opened(tmp_path))
    folders.close()
    assert open_now - len(opened(tmp_path)) == 3 * len(["folder", "files", "seen"])
    assert before <= len(opened(tmp_path))


def test_a_closed_store_keeps_nothing_open(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        for number in range(5):
            store.session(f"{number}").put("a", f"{number}".encode())
        assert opened(tmp_path)
    assert not opened(tmp_path)


def test_a_folder_that_is_in_use_when_the_store_closes_is_closed_too(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        store.session("one").put("a", b"1")
        with backend_of(store)._folders.changing(store.session("one").sid):
            store.close()
            assert opened(tmp_path)
    assert not opened(tmp_path)


def test_a_save_that_is_under_way_when_the_store_closes_does_not_open_it_again(
    tmp_path: Path,
) -> None:
    store = SessionStore.open(tmp_path / "s")
    disk = backend_of(store)._disk
    store.session("one").put("a", b"1")
    store.close()
    with pytest.raises(OSError, match="closed"):
        disk.work()
    with pytest.raises(BackendUnavailable, match="closed"):
        store.session("one").put("a", b"2")
    assert os.listdir(tmp_path / "s" / "tmp") == []


def test_a_forked_child_removes_no_file_that_its_parent_writes(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_of(store)
    store.session("one").put("a", b"1")
    monkeypatch.setattr(backend._disk, "unnamed", False)  # as on NFS
    with closing(backend.spool()) as spool:
        spool.write(b"of the parent")
        pid = os.fork()
        if pid == 0:
            spool.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        spool.link(backend._disk.work(), "there")
        assert (backend._disk.workspace.path / "there").read_bytes() == b"of the parent"


def test_a_folder_that_another_process_dropped_is_opened_anew(
    store: SessionStore, other: SessionStore
) -> None:
    session, theirs = store.session("one"), other.session("one")
    session.put("a", b"old")
    theirs.drop()
    with pytest.raises(FileNotStored):
        session.read("a")
    assert session.files() == []
    session.put("b", b"new")
    assert [file.name for file in theirs.files()] == ["b"]
    assert theirs.read("b") == b"new"


def test_a_folder_put_in_the_place_of_the_open_one_is_the_session(
    store: SessionStore, other: SessionStore
) -> None:
    session = store.session("one")
    session.put("a", b"old")
    other.session("one").drop()
    other.session("one").put("a", b"theirs")
    assert session.read("a") == b"theirs"
    session.put("b", b"ours")
    assert {file.name for file in other.session("one").files()} == {"a", "b"}


def test_a_line_goes_to_the_journal_that_is_there(
    store: SessionStore, other: SessionStore, tmp_path: Path
) -> None:
    """Another process has put a compacted one in the place of the one that is kept open."""
    session, theirs = store.session("one"), other.session("one")
    session.put("first", b"1")
    journal = tmp_path / "s" / "sessions" / session.sid / "journal"
    before = journal.stat().st_ino
    for number in range(600):
        theirs.put("a", f"{number}".encode())
    assert journal.stat().st_ino != before
    saved = session.put("second", b"2")
    assert theirs.get("second").created == saved.created
    assert b'"second"' in journal.read_bytes()


def test_a_lock_that_was_removed_by_hand_is_made_anew(
    store: SessionStore, other: SessionStore, tmp_path: Path
) -> None:
    session = store.session("one")
    session.put("a", b"1")
    seen = tmp_path / "s" / "sessions" / session.sid / "seen"
    seen.unlink()
    session.put("b", b"2")
    assert seen.exists()
    with backend_of(store)._folders.changing(session.sid) as mine:
        assert mine is not None
        with backend_of(other)._folders.changing(session.sid, wait=False) as theirs:
            assert theirs is None


def test_two_of_one_process_hold_each_other_off(store: SessionStore) -> None:
    store.session("one").put("a", b"1")
    folders, sid = backend_of(store)._folders, store.session("one").sid
    with folders.changing(sid) as one:
        assert one is not None
        with folders.changing(sid, wait=False) as two:
            assert two is None
    with folders.changing(sid, wait=False) as again:
        assert again is not None


def test_a_forked_child_and_its_parent_hold_each_other_off(store: SessionStore) -> None:
    store.session("one").put("a", b"1")  # its lock is open, and would be the child's too
    folders, sid = backend_of(store)._folders, store.session("one").sid
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with folders.changing(sid) as mine:
            os.write(ready[1], b"." if mine is not None else b"!")
            os.read(go[0], 1)
        os._exit(0)
    assert os.read(ready[0], 1) == b"."
    with folders.changing(sid, wait=False) as theirs:
        taken = theirs is not None
    os.write(go[1], b".")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for fd in (*ready, *go):
        os.close(fd)
    assert not taken


def test_a_forked_child_that_saves_small_files_is_known_to_be_at_work(
    store: SessionStore, other: SessionStore
) -> None:
    """Or a restart that drops what dead processes left would drop its sessions."""
    store.session("one").put("a", b"1")
    other.close()
    assert backend_of(store).alone()
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        store.session("one").put("b", b"1")
        os.write(ready[1], b"1")
        os.read(done[0], 1)
        os._exit(0)
    assert os.read(ready[0], 1) == b"1"
    alone = backend_of(store).alone()
    os.write(done[1], b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for each in (*ready, *done):
        os.close(each)
    assert not alone


def test_no_thread_of_a_forked_child_gets_a_folder_of_the_parent_s(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while another is closing them."""
    sids = [store.session(each).sid for each in ("one", "two")]
    for each in ("one", "two"):
        store.session(each).put("a", b"a")
    disk = backend_of(store)._disk
    folders = SessionDirPool(disk, most=3)
    for sid in sids:
        folders.give(SessionDir(disk.sessions, sid, disk))
    parents = list(folders.kept.values())
    taken: list[SessionDir | None] = []
    close = SessionDir.close

    def closing(folder: SessionDir) -> None:
        """At this moment another thread wants the other one."""
        close(folder)
        if folder in parents and not taken:
            left = next(it for it in parents if it is not folder)
            taken.append(folders.take(left.sid, change=False, wait=True))

    monkeypatch.setattr(SessionDir, "close", closing)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with folders.reading(sids[0]) as folder:
        assert folder is not None
        assert folder not in parents
    assert taken[0] is not None
    assert taken[0] not in parents
    taken[0].close()
    folders.close()


def test_two_threads_may_give_back_a_folder_where_none_is_kept(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: each finds one too many, and one of them is faster."""
    store.session("one").put("a", b"a")
    folders = SessionDirPool(backend_of(store)._disk, most=0)

    class Raced(OrderedDict[str, SessionDir]):
        def __len__(self) -> int:
            counted = super().__len__()
            while super().__len__():
                self.popitem()[1].close()  # by the other thread
            return counted

    monkeypatch.setattr(folders, "kept", Raced())
    with folders.reading(store.session("one").sid) as folder:
        assert folder is not None


def test_a_lock_is_free_when_it_is_let_go_although_a_child_was_forked_under_it(
    store: SessionStore, other: SessionStore
) -> None:
    store.session("one").put("a", b"1")
    sid = store.session("one").sid
    go = os.pipe()
    with backend_of(store)._folders.changing(sid):
        pid = os.fork()
        if pid == 0:
            os.read(go[0], 1)
            os._exit(0)
    with backend_of(other)._folders.changing(sid, wait=False) as theirs:
        free = theirs is not None
    os.write(go[1], b".")
    os.waitpid(pid, 0)
    for fd in go:
        os.close(fd)
    assert free


def test_a_directory_of_blobs_removed_by_hand_is_made_anew(
    store: SessionStore, tmp_path: Path
) -> None:
    file = store.session("one").put("a", b"bytes")
    shutil.rmtree(tmp_path / "s" / "blobs" / file.digest[:2])
    store.session("two").put("b", b"bytes")
    assert store.session("one").read("a") == store.session("two").read("b") == b"bytes"
    store.session("two").drop()
    store.session("one").drop()
    store.sweep()
    assert list((tmp_path / "s" / "blobs" / file.digest[:2]).iterdir()) == []
