"""What a power cut leaves torn on the local disk: it is never served, it is named, and it goes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sessionstore import FileNotStored, Session, SessionStore
from sessionstore.backends.local import directory
from sessionstore.backends.local.directory import Directory
from sessionstore.names import session_key
from tests.support.local import backend_of, blobs, everything, spoil
from tests.support.stores import HOUR, names, store_of

DATA = b"precious" * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def store(root: Path) -> Iterator[SessionStore]:
    with SessionStore.open(root) as store:
        yield store


@pytest.fixture
def session(store: SessionStore) -> Session:
    session = store.session("one", "ada")
    session.put("a", DATA)
    return session


def folder(root: Path, session: Session) -> Path:
    return root / "sessions" / session.sid


def after_a_death(root: Path) -> None:
    """Leave the workspace of a process that is dead, as any power cut does."""
    (root / "tmp" / ("0" * 16)).mkdir()


TORN = pytest.mark.parametrize("left", [b"", DATA[:4096], DATA + b"x"], ids=len)


@TORN
def test_a_torn_file_is_none(root: Path, session: Session, left: bytes) -> None:
    spoil(blobs(root)[0], left)
    with pytest.raises(FileNotStored):
        session.read("a")
    assert session.files() == []


@TORN
@pytest.mark.parametrize("journal", ["there", "gone"])
def test_a_torn_file_is_named_and_repaired(
    root: Path, store: SessionStore, session: Session, left: bytes, journal: str
) -> None:
    spoil(blobs(root)[0], left)
    if journal == "gone":
        (folder(root, session) / "journal").unlink()
    found = store.verify(repair=True)
    assert [it.repaired for it in found] == [True] * len(found)
    assert any(it.place.endswith("/files/a") and it.session_id == "one" for it in found)
    assert store.verify() == []
    assert not (folder(root, session) / "files" / "a").exists()


@TORN
@pytest.mark.parametrize("journal", ["there", "gone"])
def test_a_torn_file_goes_with_the_first_sweep(
    root: Path, store: SessionStore, session: Session, left: bytes, journal: str
) -> None:
    spoil(blobs(root)[0], left)
    if journal == "gone":
        (folder(root, session) / "journal").unlink()
    after_a_death(root)
    store.sweep()
    store.sweep()
    assert {it for it in everything(root) if it.startswith("blobs") or "/files/" in it} == set()


@TORN
def test_saving_again_heals_a_torn_file(root: Path, session: Session, left: bytes) -> None:
    spoil(blobs(root)[0], left)
    session.put("a", DATA)
    assert session.read("a") == DATA
    assert store_of(session).verify() == []


def test_bytes_that_nothing_describes_are_no_file(
    root: Path, store: SessionStore, session: Session
) -> None:
    """As when the link and the bytes came to the disk, and line and blob's name did not."""
    blobs(root)[0].unlink()
    (folder(root, session) / "journal").write_bytes(b"")
    with pytest.raises(FileNotStored):
        session.get("a")
    (found,) = store.verify()
    assert (found.kind, found.place) == ("damaged", f"sessions/{session.sid}/files/a")
    assert "Nothing proves the stored bytes of 'a'" in found.problem


def test_a_blob_of_another_inode_proves_nothing(root: Path, session: Session) -> None:
    (folder(root, session) / "journal").write_bytes(b"")
    (blob,) = blobs(root)
    (folder(root, session) / "files" / "a").unlink()
    shutil.copy2(blob, folder(root, session) / "files" / "a")
    assert session.files() == []


@pytest.mark.parametrize("blob", ["there", "gone"])
def test_a_line_of_a_file_that_had_the_inode_before_proves_nothing(
    root: Path, session: Session, blob: str
) -> None:
    """As when a file was replaced, and the line of the new one did not come to the disk."""
    path, saved = folder(root, session) / "journal", session.get("a")
    inode, time = saved._reference.token.split(".")
    text = path.read_text().replace(saved.digest, "0" * 64)
    path.write_text(text.replace(f"{inode}.{time}", f"{inode}.1"))
    if blob == "gone":
        blobs(root)[0].unlink()
    assert [file.digest for file in session.files()] == [saved.digest] * (blob == "there")


def test_the_algorithm_of_the_store_is_used_to_prove(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s", digest="blake3") as store:
        session = store.session("one")
        file = session.put("a", DATA)
        (folder(tmp_path / "s", session) / "journal").write_bytes(b"")
        assert session.get("a").digest == file.digest
        assert session.read("a") == DATA


def test_a_store_that_was_copied_has_all_its_files(
    tmp_path: Path, root: Path, store: SessionStore
) -> None:
    """Without its links, so that nothing but the journal describes the files."""
    saved = store.session("one").put("a", DATA, ttl=HOUR)
    store.close()
    shutil.copytree(root, tmp_path / "copy")
    with SessionStore.open(tmp_path / "copy") as copy:
        (file,) = copy.session("one").files()
        assert (file.read(), file.created, file.expires) == (DATA, saved.created, saved.expires)
        after_a_death(tmp_path / "copy")
        copy.sweep()
        assert copy.session("one").read("a") == DATA


def test_a_file_without_its_line_has_the_shortest_time_to_live_of_its_session(
    root: Path, store: SessionStore
) -> None:
    session = store.session("one")
    first = session.put("a", DATA, ttl=HOUR)
    session.put("b", DATA + DATA)
    (folder(root, session) / "journal").write_bytes(b"")
    assert [file.expires for file in session.files()] == [first.expires] * 2


@pytest.fixture
def unwritten(root: Path, store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A blob that has its size and not its bytes, as ext4 may leave one; the machine restarts."""
    store.session("one", "ada").put("a", DATA)
    (blob,) = blobs(root)
    times = blob.stat()
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.truncate(0)
        file.flush()
        os.posix_fallocate(file.fileno(), 0, len(DATA))
    blob.chmod(0o444)
    os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr(directory, "BOOTED", time.time_ns())
    if Directory(str(blob.parent)).is_whole(blob.name, blob.stat(), len(DATA)):
        pytest.skip("the file system here does not say what was never written: no ext4, no XFS")
    return blob


def test_a_file_that_was_never_written_is_none(
    root: Path, store: SessionStore, session: Session, unwritten: Path
) -> None:
    assert unwritten.read_bytes() == bytes(len(DATA))
    with pytest.raises(FileNotStored):
        session.get("a")
    assert session.files() == []
    (found,) = store.verify()
    assert (found.kind, found.place) == ("damaged", f"sessions/{session.sid}/files/a")
    after_a_death(root)
    store.sweep()
    assert not (folder(root, session) / "files" / "a").exists()


def test_content_that_was_never_written_is_not_taken_for_a_save(
    store: SessionStore, unwritten: Path
) -> None:
    store.session("two").put("b", DATA)
    assert store.session("two").read("b") == DATA
    assert unwritten.read_bytes() == DATA


def test_bytes_that_are_on_their_way_are_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a backup that was restored with its times, a moment ago."""
    monkeypatch.setattr(directory, "BOOTED", time.time_ns())
    assert session.read("a") == DATA


@pytest.mark.parametrize("left", [None, b"", b'{"id": "o', b"\0" * 30])
def test_an_id_that_says_nothing_is_written_again_by_the_next_save(
    root: Path, session: Session, left: bytes | None
) -> None:
    path = folder(root, session) / "id"
    before = path.stat().st_mtime_ns
    if left is None:
        path.unlink()
    else:
        spoil(path, left)
    store_of(session).close()
    with SessionStore.open(root) as store:
        backend = backend_of(store)
        assert backend.identify(session.sid) is None
        again = store.session("one", "ada")
        again.put("b", b"b")
        assert backend.identify(session.sid) == session_key("one", "ada")
        record = backend.session(session.sid)
        assert record is not None
        assert all(file.created >= record.oldest for file in again.files())
        assert left is None or path.stat().st_mtime_ns == before
        assert names(again) == ["a", "b"]


@pytest.mark.parametrize("gone", [["id"], ["seen"], ["id", "seen"], ["id", "seen", "files"]])
def test_a_session_without_its_marks_goes_with_its_age(
    root: Path, session: Session, gone: list[str]
) -> None:
    place = folder(root, session)
    store_of(session).close()
    for name in gone:
        if name == "files":
            shutil.rmtree(place / name)
        else:
            (place / name).unlink()
    with SessionStore.open(root) as store:
        store.sweep()
        assert place.exists()
        long_ago = (place.stat().st_mtime_ns - int(timedelta(days=3).total_seconds() * 1e9),) * 2
        for path in (place, place / "seen"):
            if path.exists():
                os.utime(path, ns=long_ago)
        store.sweep()
        assert not place.exists()


def test_a_session_without_its_directory_of_files_can_be_used(root: Path, session: Session) -> None:
    store_of(session).close()
    shutil.rmtree(folder(root, session) / "files")
    with SessionStore.open(root) as store:
        assert store.session("one", "ada").files() == []
        store.session("one", "ada").put("b", DATA)
        assert store.session("one", "ada").read("b") == DATA
        store.session("one", "ada").drop()
        assert everything(root) == set()
