"""What a local store looks like on the disk, and who may use a directory as one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from sessionstore import Corrupted, FileNotStored, SessionStore, SettingsError
from sessionstore.backends.local import journal
from tests.support.local import backend_of, blobs, everything, spoil


def test_a_reference_is_a_hard_link_to_its_blob(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("visitor")
        file = session.put("cat.png", b"meow")
        (blob,) = blobs(tmp_path / "s")
        link = tmp_path / "s" / "sessions" / session.sid / "files" / "cat.png"
        assert blob.name == file.digest
        assert link.samefile(blob)
        assert stat.S_IMODE(link.stat().st_mode) & 0o222 == 0


def test_equal_bytes_are_one_blob_whoever_saves_them(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        for visitor in ("a", "b", "c"):
            store.session(visitor).put(f"{visitor}.bin", b"the same")
        (blob,) = blobs(tmp_path / "s")
        assert blob.stat().st_nlink == 4


def test_the_last_reference_takes_its_blob_along(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        one, two = store.session("one"), store.session("two")
        one.put("a", b"shared")
        two.put("b", b"shared")
        one.delete("a")
        assert len(blobs(tmp_path / "s")) == 1
        two.drop()
        assert everything(tmp_path / "s") == {
            f"sessions/{one.sid}/{name}" for name in ("id", "seen", "journal")
        }


def test_replacing_frees_what_only_the_old_file_referred_to(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        session.put("a", b"old")
        file = session.put("a", b"new")
        assert [blob.name for blob in blobs(tmp_path / "s")] == [file.digest]


def test_the_layout_is_written_once_and_read_back(tmp_path: Path) -> None:
    SessionStore.open(tmp_path / "s", digest="sha256").close()
    assert json.loads((tmp_path / "s" / "layout").read_text()) == {"version": 1, "digest": "sha256"}
    with pytest.raises(SettingsError, match=r"digest='blake3'.*was made with 'sha256'"):
        SessionStore.open(tmp_path / "s", digest="blake3")


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    SessionStore.open(tmp_path / "s").close()
    (tmp_path / "s" / "layout").write_text('{"version": 2, "digest": "sha256"}')
    with pytest.raises(SettingsError, match="update sessionstore"):
        SessionStore.open(tmp_path / "s")


@pytest.mark.parametrize("text", [b"", b"\0" * 34, b'{"version": 1, "dig', b'{"vers\0\0\0'])
@pytest.mark.parametrize("digest", ["sha256", "blake3"])
@pytest.mark.parametrize("known_by", ["blob", "file"])
def test_a_torn_layout_is_written_again_as_the_content_says(
    text: bytes, digest: str, known_by: str, tmp_path: Path
) -> None:
    root = tmp_path / "s"
    with SessionStore.open(root, digest=digest) as store:
        store.session("one").put("a", b"cat")
    if known_by == "file":
        blobs(root)[0].unlink()
    (root / "layout").write_bytes(text)
    with SessionStore.open(root) as store:
        assert store.session("one").read("a") == b"cat"
        assert store.verify() == []
    assert json.loads((root / "layout").read_text()) == {"version": 1, "digest": digest}


def test_a_torn_layout_without_any_whole_content_is_that_of_the_setting(tmp_path: Path) -> None:
    root = tmp_path / "s"
    with SessionStore.open(root, digest="blake3") as store:
        store.session("one").put("a", b"cat")
    spoil(blobs(root)[0], b"")
    (root / "layout").write_bytes(b"")
    SessionStore.open(root).close()
    assert json.loads((root / "layout").read_text())["digest"] == "sha256"


def test_a_torn_layout_is_not_guessed_without_the_package_that_could_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "s"
    with SessionStore.open(root, digest="blake3") as store:
        store.session("one").put("a", b"cat")
    (root / "layout").write_bytes(b"")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "blake3", None)
        with pytest.raises(SettingsError, match=r"install sessionstore\[blake3\]"):
            SessionStore.open(root)
    with SessionStore.open(root) as store:
        assert store.session("one").read("a") == b"cat"


@pytest.mark.parametrize("torn", [b"", b"x" * 31, b"\0" * 32])
def test_a_torn_secret_is_never_used(
    torn: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "s"
    with SessionStore.open(root) as one, SessionStore.open(root) as two:
        (root / "secret").write_bytes(torn)
        secret = one.secret()
        assert len(secret) == 32
        assert secret != torn
        assert two.secret() == secret == (root / "secret").read_bytes()
    assert f"{root / 'secret'} is torn" in caplog.text


def test_all_who_find_the_secret_torn_get_the_same(tmp_path: Path) -> None:
    root = tmp_path / "s"
    stores = [SessionStore.open(root) for _ in range(8)]
    for _ in range(20):
        (root / "secret").write_bytes(b"")
        with ThreadPoolExecutor(len(stores)) as pool:
            assert len(set(pool.map(SessionStore.secret, stores))) == 1
    for store in stores:
        store.close()


def test_a_secret_is_read_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        secret = store.secret()
        monkeypatch.setattr(os, "write", None)
        monkeypatch.setattr(os, "link", None)
        assert store.secret() == secret


def test_a_directory_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").write_text("precious")
    with pytest.raises(SettingsError, match=r"holds 'thesis.odt' and no store; name an empty"):
        SessionStore.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.odt"]


def test_a_new_root_is_private(tmp_path: Path) -> None:
    SessionStore.open(tmp_path / "s").close()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def test_a_file_in_the_way_is_refused_naming_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"invalid url=file://.*file:"):
        SessionStore.open(tmp_path / "file")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as another user"
)
def test_a_root_of_another_user_is_refused_even_when_writable(tmp_path: Path) -> None:
    root = tmp_path / "s"
    SessionStore.open(root).close()
    for path in (root, *root.iterdir()):
        path.chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o711)
    code = (
        "import os, sys, tomllib\n"
        "from sessionstore import SessionStore, SettingsError\n"
        "SessionStore.open(sys.argv[2]).close()  # all is imported while it can be read\n"
        "os.setuid(65534)\n"
        "try: SessionStore.open(sys.argv[1])\n"
        "except SettingsError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(tmp_path / "other")],
        capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "belongs to user 0 and this process runs as user 65534" in done.stdout, done.stderr
    assert "url=file://" in done.stdout


def test_a_link_without_a_line_is_what_its_blob_s_name_says(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        saved = session.put("Photo.PNG", b"bytes", ttl=timedelta(hours=1))
        (tmp_path / "s" / "sessions" / session.sid / "journal").unlink()
        found = session.get("Photo.PNG")
        assert (found.digest, found.size, found.expires) == (saved.digest, 5, saved.expires)
        assert [file.name for file in session.files()] == ["Photo.PNG"]


def test_a_stored_file_that_was_written_to_is_damaged_and_not_a_new_version(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        file = session.put("a", b"first")
        path = tmp_path / "s" / "sessions" / session.sid / "files" / "a"
        path.chmod(0o644)
        path.write_bytes(b"other")
        with pytest.raises(Corrupted, match="digest is not the one saved"):
            session.read("a")
        assert [found.problem for found in store.verify(repair=True)] != []
        assert session.files() == []
        assert session.put("a", b"first") != file
        assert session.read("a") == b"first"


def test_a_torn_journal_line_is_passed_over(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        session.put("a", b"1", ttl=timedelta(hours=1))
        path = tmp_path / "s" / "sessions" / session.sid / "journal"
        path.write_bytes(path.read_bytes() + b'\n{"file": "a", "token": "')
        session.put("b", b"2", ttl=timedelta(hours=1))
        assert [file.expires is not None for file in session.files()] == [True, True]


def test_the_journal_is_compacted_and_nothing_is_forgotten(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        kept = session.put("kept", b"kept", ttl=timedelta(hours=1))
        for number in range(600):
            session.put("a", f"{number}".encode())
        path = tmp_path / "s" / "sessions" / session.sid / "journal"
        with backend_of(store)._folders.reading(session.sid) as folder:
            assert folder is not None
            lines = list(journal.lines(folder.dir))
        assert len(lines) < 400
        assert path.stat().st_size < 1 << 17
        assert session.get("kept").expires == kept.expires
        assert session.read("a") == b"599"


def test_a_long_journal_is_searched_as_well(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        files = [session.put(f"{number}", b"x", ttl=timedelta(hours=1)) for number in range(700)]
        path = tmp_path / "s" / "sessions" / session.sid / "journal"
        assert path.stat().st_size > 1 << 16
        assert session.get("3") == files[3]
        assert len(session.files()) == 700


def test_a_version_is_told_from_another_in_the_same_inode(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("one")
        for number in range(50):
            file = session.put("a", f"first {number}".encode())
            session.delete("a")
            session.put("a", f"second {number}".encode())
            with pytest.raises(FileNotStored):
                file.read()


def test_foreign_files_among_sessions_and_blobs_are_kept(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        for place in ("sessions/README", "blobs/README", "blobs/ab/README"):
            path = tmp_path / "s" / place
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
        store.sweep()
        assert list(store.sessions()) == []
        assert (tmp_path / "s" / "blobs" / "ab" / "README").read_text() == "mine"


def test_a_session_is_dropped_with_whatever_else_lies_in_its_folder(tmp_path: Path) -> None:
    root = tmp_path / "s"
    with SessionStore.open(root) as store:
        session = store.session("one")
        session.put("a", b"cat")
        session.end()
        folder = root / "sessions" / session.sid
        for place in ("files/mine/deep", "mine/deep", "files/strange", "new", "journal.new"):
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("mine")
        session.drop()
        left = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
        assert left == [root / "layout"]
        assert list((root / "sessions").iterdir()) == []


def test_the_lease_of_a_process_that_has_ended_does_not_count(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as other, SessionStore.open(tmp_path / "s") as store:
        backend_of(other).write_lease(b"until tomorrow")
        while_it_lives = backend_of(store).lease()
        other.close()

        assert while_it_lives == b"until tomorrow"
        assert backend_of(store).lease() is None
