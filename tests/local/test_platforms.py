"""The slower ways that systems without one thing or another take: hidden here, one at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sessionstore import FileNotStored, SessionStore
from sessionstore._os import locks
from sessionstore.backends.local import directory as _directory
from sessionstore.backends.local import save, session_dir
from tests.support.local import backend_of, blobs, everything, spoil


def exercise(root: Path) -> None:
    """A short life of a store: save, replace, share, read, delete, drop, sweep."""
    with SessionStore.open(root) as store:
        one, two = store.session("one"), store.session("two")
        big = os.urandom(2_500_000)
        file = one.put("a", b"first")
        one.put("frames/Big.bin", [big[:1_500_000], big[1_500_000:]])
        two.put("copy", big)
        one.put("a", b"second")
        with pytest.raises(FileNotStored):
            file.read()
        assert one.read("a") == b"second"
        assert one.read("frames/Big.bin") == two.read("copy") == big
        assert two.get("copy").read(5, 10) == big[5:15]
        assert [it.name for it in one.files()] == ["a", "frames/Big.bin"]
        assert store.verify() == []
        (path,) = root.glob("sessions/one-*/files/a")
        spoil(path, b"sEcond")
        assert [(it.name, it.repaired) for it in store.verify(repair=True)] == [("a", True)]
        one.put("a", b"second")
        assert (one.read("a"), store.verify()) == (b"second", [])
        one.delete("a")
        two.end()
        store.sweep()
        assert "a" not in one
        one.drop()
        two.drop()
        store.sweep()
    assert everything(root) == set()


@pytest.fixture(params=["tmpfile", "proc", "dir_fd", "all"])
def hidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    what: str = request.param
    if what in ("tmpfile", "all"):
        monkeypatch.delattr(os, "O_TMPFILE")
    if what == "proc":
        isdir = os.path.isdir
        monkeypatch.setattr(os.path, "isdir", lambda path: path != "/proc/self/fd" and isdir(path))
    if what in ("dir_fd", "all"):
        monkeypatch.setattr(_directory, "HAS_DIR_FD", False)
        monkeypatch.setattr(save, "HAS_DIR_FD", False)
        monkeypatch.setattr(session_dir, "HAS_DIR_FD", False)
    if what == "all":
        monkeypatch.setattr(_directory, "_NOFOLLOW", 0)
    return what


def test_a_store_works_without(hidden: str, tmp_path: Path) -> None:
    exercise(tmp_path / "s")
    assert hidden


def test_a_store_works_with_locks_of_windows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``msvcrt.locking`` locks bytes of an open file: open-file-description locks do the same."""

    def locking(fd: int, mode: int, count: int) -> None:
        kind = fcntl.F_UNLCK if mode == 0 else fcntl.F_WRLCK
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(kind, count))
        assert mode in (0, 1, 2)

    windows = SimpleNamespace(LK_UNLCK=0, LK_LOCK=1, LK_NBLCK=2, locking=locking)
    monkeypatch.setattr(locks, "msvcrt", windows)
    monkeypatch.setattr(locks, "fcntl", None)
    path = tmp_path / "lock"
    one, two = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert locks.lock(one, wait=False)
    assert not locks.lock(two, wait=False)
    os.close(one)
    assert locks.lock(two, wait=False)
    os.close(two)
    exercise(tmp_path / "s")


def _flock(kind: int, count: int) -> bytes:
    """A struct flock of Linux on a 64-bit machine: type, whence, start, length, pid (fcntl(2))."""
    import struct

    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, count, 0)


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_without_hard_links_files_are_copies_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    with pytest.warns(RuntimeWarning, match="no hard links: every file is a copy"):
        SessionStore.open(tmp_path / "s").close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        exercise(tmp_path / "s")
        with SessionStore.open(tmp_path / "s") as store:
            store.session("one").put("a", b"the same")
            store.session("two").put("b", b"the same")
            assert store.usage()[:3] == (2, 16, 16)
            assert blobs(tmp_path / "s") == []
            assert store.session("one").read("a") == b"the same"


def fill(blob: Path, folder: Path) -> None:
    """Make 65,001 more links, or as many as the file system allows."""
    for number in range(65_001):
        try:
            os.link(blob, folder / f"x{number}")
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            return


def test_65_001_references_to_one_blob(tmp_path: Path) -> None:
    """ext4 allows 65,000 links to a file (ext4(5)); where there is no such limit this is easy."""
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        backend = backend_of(store)
        session.put("first", b"popular")
        (blob,) = blobs(tmp_path / "s")
        with backend._folders.reading(session.sid) as folder:
            assert folder is not None
            fill(blob, Path(folder.files.path))
        file = session.put("one more", b"popular")
        assert file.read() == session.read("first") == b"popular"
        assert session.put("and another", b"popular").read() == b"popular"
        assert len(blobs(tmp_path / "s")) == 1
        session.drop()
        store.sweep()  # the links made here have no lines that would say whose content they are
        assert everything(tmp_path / "s") == set()


def test_a_blob_that_takes_no_more_links_is_renewed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same on any file system, with a limit of four."""
    link = os.link

    def limited(source: str, *rest: str, **keywords: int) -> None:
        directory = keywords.get("src_dir_fd")
        if os.stat(source, dir_fd=directory, follow_symlinks=True).st_nlink >= 4:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, *rest, **keywords)  # type: ignore[arg-type]  # passed on as they came

    with SessionStore.open(tmp_path / "s") as store:
        monkeypatch.setattr(os, "link", limited)
        sessions = [store.session(f"{number}") for number in range(12)]
        for session in sessions:
            session.put("a", b"popular")
        inodes = {
            (tmp_path / "s" / "sessions" / it.sid / "files" / "a").stat().st_ino for it in sessions
        }
        assert len(inodes) == 4
        for session in sessions:
            assert session.read("a") == b"popular"
            session.drop()
        assert everything(tmp_path / "s") == set()


def test_a_forked_child_works_in_a_workspace_of_its_own(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        store.session("one").put("a", b"parent")
        pid = os.fork()
        if pid == 0:
            try:
                store.session("one").put("b", [b"child" * 400_000])
                store.session("two").put("c", b"child")
                store.session("two").drop()
            except BaseException:  # noqa: BLE001 - the child must not go on as a second test run
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert store.session("one").read("b") == b"child" * 400_000
        store.sweep()
        assert len(list((tmp_path / "s" / "tmp").iterdir())) == 2


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A mounted exFAT file system: needs root, a loop device, exfatprogs and exfat-fuse."""
    image, mount = tmp_path / "exfat.img", tmp_path / "mnt"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    device = ""
    try:
        run("mkfs.exfat", str(image))
        device = run("losetup", "--find", "--show", str(image))
        run("mount.exfat-fuse", device, str(mount))
    except (OSError, subprocess.CalledProcessError) as error:
        if device:
            run("losetup", "--detach", device)
        pytest.skip(f"cannot make and mount an exFAT file system here: {error}")
    yield mount
    run("umount", str(mount))
    run("losetup", "--detach", device)


def test_a_real_file_system_without_hard_links(exfat: Path) -> None:
    with pytest.warns(RuntimeWarning, match="no hard links"):
        exercise(exfat / "s")
