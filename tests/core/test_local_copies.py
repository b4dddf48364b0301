"""Working copies: ordinary files for code that needs a path, which come and go as they should."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from sessionstore import BackendUnavailable, LimitExceeded, SessionStore
from sessionstore.backend import Reference
from sessionstore.errors import FileNotStored, InvalidName
from sessionstore.local_copies import LocalCopies
from sessionstore.names import file_name
from sessionstore.testing import FakeClock
from tests.support.hostile import HOSTILE, label
from tests.support.stores import PATIENCE, memory_store

SID = "alice-0123456789abcdef0123456789abcdef"


def reference(name: str = "a.png", token: str = "1") -> Reference:
    digest = hashlib.sha256(b"cat").hexdigest()
    return Reference(name, 3, digest, datetime(2026, 1, 1, tzinfo=UTC), None, token)


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[LocalCopies]:
    copies = LocalCopies(tmp_path / "copies")
    yield copies
    copies.close()


@pytest.fixture
def own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "temp"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def cat() -> BinaryIO:
    return io.BytesIO(b"cat")


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("cat.png", "cat.png"), ("frames/0001.png", "0001.png"), ("a:b*?.png", "a_b__.png"),
            ("C:\\cat.png", "C__cat.png"), ("..cat.png.", "cat.png"), (" cat ", "cat"),
            ("...", "file"), ("a\nb.png", "a_b.png"), ("ü.png", "ü.png"),
            ("x" * 250 + ".png", "x" * 196 + ".png"), ("." + "e" * 250, "e" * 50),
        ],
    )  # fmt: skip
    def test_are_the_file_s_or_like_it_with_the_extension(
        self, copies: LocalCopies, name: str, expected: str
    ) -> None:
        path = copies.path(SID, reference(name), cat)
        assert (path.suffix, path.name[:9]) == (Path(expected).suffix, expected[:9])
        assert len(os.fsencode(path.name)) <= 200

    @pytest.mark.parametrize("name", HOSTILE, ids=label)
    def test_every_legal_name_makes_a_copy_within(
        self, copies: LocalCopies, tmp_path: Path, name: str
    ) -> None:
        try:
            name = file_name(name)
        except InvalidName:
            return
        path = copies.path(SID, reference(name), cat)
        assert path.read_bytes() == b"cat"
        assert path.resolve().is_relative_to((tmp_path / "copies").resolve())
        assert len(path.relative_to(tmp_path / "copies").parts) == 5

    def test_files_of_like_names_have_copies_of_their_own(self, copies: LocalCopies) -> None:
        paths = {copies.path(SID, reference(name), cat) for name in ("a:b", "a*b", "x/a_b", "a_b")}
        assert len(paths) == 4

    def test_versions_have_copies_of_their_own(self, copies: LocalCopies) -> None:
        old = copies.path(SID, reference(token="1"), cat)
        new = copies.path(SID, reference(token="2"), lambda: io.BytesIO(b"dog"))
        assert (old.read_bytes(), new.read_bytes()) == (b"cat", b"dog")


class TestMaking:
    def test_is_done_once(self, copies: LocalCopies) -> None:
        first = copies.path(SID, reference(), cat)
        assert copies.path(SID, reference(), lambda: io.BytesIO(b"other")) == first
        assert first.read_bytes() == b"cat"

    def test_nothing_is_made_before_it_is_needed(self, own_temp: Path) -> None:
        copies = LocalCopies()
        copies.forget_file(SID, "a")
        copies.forget_session(SID)
        copies.close()
        assert list(own_temp.iterdir()) == []

    def test_a_stream_that_fails_leaves_nothing(self, copies: LocalCopies, tmp_path: Path) -> None:
        class Broken(io.BytesIO):
            def read(self, *_: Any) -> bytes:
                raise FileNotStored("a.png")

        with pytest.raises(FileNotStored):
            copies.path(SID, reference(), lambda: Broken(b"cat"))
        assert [name for name in files_in(tmp_path / "copies") if "lock" not in name] == []

    def test_a_folder_cleared_away_meanwhile_is_made_again(
        self, copies: LocalCopies, tmp_path: Path
    ) -> None:
        clear = iter([True])

        def clearing() -> BinaryIO:
            if next(clear, False):
                for folder in (tmp_path / "copies").glob("*/*/"):
                    shutil.rmtree(folder)
            return cat()

        assert copies.path(SID, reference(), clearing).read_bytes() == b"cat"

    def test_one_that_stays_away_is_our_error(self, copies: LocalCopies, tmp_path: Path) -> None:
        def clearing() -> BinaryIO:
            for folder in (tmp_path / "copies").glob("*/*/"):
                shutil.rmtree(folder)
            return cat()

        with pytest.raises(BackendUnavailable, match="Could not make a local copy"):
            copies.path(SID, reference(), clearing)

    def test_a_full_disk_is_our_error(
        self, copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(LimitExceeded, match="the disk is full; free some space"):
            copies.path(SID, reference(), cat)


class TestTemporaryFolder:
    def test_is_one_for_all_processes_of_the_user(self, own_temp: Path) -> None:
        one, two = LocalCopies(), LocalCopies()
        assert one.directory == two.directory == own_temp / f"sessionstore-{os.getuid()}"
        assert one.directory.stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("trap", ["link", "file", "open to all"])
    def test_one_that_somebody_else_prepared_is_not_used(
        self, own_temp: Path, tmp_path: Path, trap: str
    ) -> None:
        usual = own_temp / f"sessionstore-{os.getuid()}"
        if trap == "link":
            (tmp_path / "elsewhere").mkdir()
            usual.symlink_to(tmp_path / "elsewhere")
        elif trap == "file":
            usual.write_text("")
        else:
            usual.mkdir()
            usual.chmod(0o777)
        copies = LocalCopies()
        path = copies.path(SID, reference(), cat)
        copies.close()
        assert path.is_relative_to(own_temp)
        assert not path.is_relative_to(usual)

    def test_without_one_sweeping_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such directory"))
        store = memory_store(FakeClock())
        file = store.session("alice").put("a", b"cat")
        assert store.sweep() == []
        with pytest.raises(BackendUnavailable):
            file.local_path()


class TestForgetting:
    def test_a_file_takes_its_copies_with_it(self, copies: LocalCopies) -> None:
        gone = [copies.path(SID, reference("a", token), cat) for token in "12"]
        kept = copies.path(SID, reference("b"), cat)
        copies.forget_file(SID, "a")
        assert [path.exists() for path in (*gone, kept)] == [False, False, True]

    def test_no_empty_folder_is_left(self, copies: LocalCopies) -> None:
        def refuse() -> BinaryIO:
            raise FileNotStored("c")

        def full() -> BinaryIO:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        copies.path(SID, reference("a"), cat)
        copies.forget_file(SID, "a")  # the last of its session: ``forget_session`` has no copy then
        with pytest.raises(FileNotStored):
            copies.path(SID, reference("c"), refuse)
        with pytest.raises(LimitExceeded):
            copies.path(SID, reference("d"), full)
        assert list(copies._workspace.path.iterdir()) == []

    def test_a_session_takes_its_copies_with_it(self, copies: LocalCopies) -> None:
        gone = copies.path(SID, reference(), cat)
        kept = copies.path(SID.replace("alice", "bob"), reference(), cat)
        copies.forget_session(SID)
        assert (gone.exists(), kept.exists()) == (False, True)

    def test_closing_takes_all_with_it_and_may_come_twice(
        self, copies: LocalCopies, tmp_path: Path
    ) -> None:
        copies.path(SID, reference(), cat)
        copies.close()
        copies.close()
        assert list((tmp_path / "copies").iterdir()) == []


class TestSweep:
    def test_keeps_copies_of_what_is_there(self, copies: LocalCopies) -> None:
        path = copies.path(SID, reference(), cat)
        copies.sweep(lambda _: [reference()])
        assert path.read_bytes() == b"cat"

    def test_removes_copies_of_what_is_not(self, copies: LocalCopies) -> None:
        old, gone = copies.path(SID, reference(token="1"), cat), copies.path(
            SID, reference("b"), cat
        )  # fmt: skip
        kept = copies.path(SID, reference(token="2"), cat)
        copies.sweep(lambda _: [reference(token="2")])
        assert [path.exists() for path in (old, gone, kept)] == [False, False, True]

    def test_a_copy_made_while_it_looks_stays(self, copies: LocalCopies) -> None:
        copies.path(SID, reference("a"), cat)
        made: list[Path] = []

        def files(sid: str) -> Iterator[Reference]:
            yield reference("a")
            # Saved and copied when the listing is as good as over.
            made.append(copies.path(sid, reference("b"), cat))

        copies.sweep(files)
        assert made[0].read_bytes() == b"cat"

    def test_forgets_sessions_without_copies(self, copies: LocalCopies) -> None:
        for number in range(10):
            copies.path(f"{SID}{number}", reference(), cat)
        for _ in range(2):
            copies.sweep(lambda _: [])
        assert copies._copies == {}

    def test_a_copy_made_while_its_session_is_forgotten_is_found_later(
        self, copies: LocalCopies
    ) -> None:
        def forgetting() -> BinaryIO:
            copies.forget_session(SID)
            copies._folder(copies._place(SID, reference())).parent.mkdir(
                parents=True, exist_ok=True
            )
            return cat()

        path = copies.path(SID, reference(), forgetting)
        copies.sweep(lambda _: [])
        assert not path.exists()

    def test_things_beside_the_copies_stay(self, copies: LocalCopies, tmp_path: Path) -> None:
        beside = tmp_path / "copies" / ("a" * 64) / "of another program.png"
        beside.parent.mkdir(parents=True)
        beside.write_bytes(b"dog")
        copies.path(SID, reference(), cat)
        copies.sweep(lambda _: [])
        copies.close()
        assert beside.read_bytes() == b"dog"


class TestStore:
    @pytest.fixture
    def store(self, own_temp: Path) -> Iterator[SessionStore]:
        assert own_temp
        with memory_store(FakeClock()) as store:
            yield store

    def test_a_store_that_hands_out_no_paths_makes_no_folder(
        self, store: SessionStore, own_temp: Path
    ) -> None:
        store.session("alice").put("a", b"cat")
        store.session("alice").delete("a")
        store.close()
        assert list(own_temp.iterdir()) == []

    def test_copies_can_be_kept_elsewhere(self, store: SessionStore, tmp_path: Path) -> None:
        file = store.session("alice").put("a", b"cat")
        before = file.local_path()
        store.use_local_copies(LocalCopies(tmp_path / "elsewhere"))
        assert file.local_path().is_relative_to(tmp_path / "elsewhere")
        assert not before.exists()

    def test_dropping_while_a_copy_is_made_is_either_way_clean(self, store: SessionStore) -> None:
        for _ in range(30):
            file = store.session("alice").put("a", b"cat" * 100_000)
            dropping = threading.Thread(target=store.session("alice").drop)
            dropping.start()
            try:
                data = file.local_path().read_bytes()
            except FileNotFoundError:  # ours, or the copy went before it was read
                data = None
            dropping.join(PATIENCE)
            assert data in {None, b"cat" * 100_000}
        store.sweep()
        assert [name for name in files_in(store.local_copies.directory) if name == "a"] == []


def test_a_path_cannot_be_worked_out(tmp_path: Path) -> None:
    """Apps serve copies to whoever has the path, so it holds a secret of the process."""
    both = [LocalCopies(tmp_path / name) for name in "ab"]
    paths = [copies.path(SID, reference(), cat) for copies in both]
    folders = [
        path.relative_to(copies._workspace.path) for path, copies in zip(paths, both, strict=True)
    ]
    assert folders[0].name == folders[1].name == "a.png"
    assert not set(folders[0].parts[:-1]) & set(folders[1].parts[:-1])
    assert SID not in str(folders[0])
    for copies in both:
        copies.close()
