"""A process's private folder, and how others find out that its owner is dead."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sessionstore._os.workspace import Workspace
from tests.support.stores import in_threads

KILLED = """
import os, sys
from pathlib import Path
from sessionstore._os.workspace import Workspace
(Workspace(Path(sys.argv[1])).path / "left").write_text("over")
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return tmp_path / "parent"


def leave_one(parent: Path) -> Path:
    """The folder of a process that was killed."""
    before = set(parent.iterdir()) if parent.exists() else set()
    subprocess.run([sys.executable, "-c", KILLED, str(parent)], check=False)
    (folder,) = (path for path in set(parent.iterdir()) - before if path.is_dir())
    return folder


def clear(workspace: Workspace) -> list[str]:
    """Erase what dead processes left; the names of their folders."""
    with workspace.dead() as folders:
        return [folder.name for folder in folders]


class TestOwn:
    def test_is_made_at_first_use_for_its_owner_alone(self, parent: Path) -> None:
        workspace = Workspace(parent)
        before = parent.exists()
        mode = stat.S_IMODE(workspace.path.stat().st_mode)
        assert (before, mode, workspace.path.parent) == (False, 0o700, parent)
        workspace.close()

    def test_is_the_same_until_it_is_closed(self, parent: Path) -> None:
        workspace = Workspace(parent)
        (workspace.path / "a").write_text("a")
        assert [path.name for path in workspace.path.iterdir()] == ["a"]
        workspace.close()

    @pytest.mark.parametrize("removed", ["lock", "all"])
    def test_a_cleaner_of_temporary_files_does_not_hand_it_to_a_sweeper(
        self, parent: Path, removed: str
    ) -> None:
        workspace, other = Workspace(parent), Workspace(parent)
        own, before = workspace.path, other.path
        workspace.path.with_suffix(".lock").unlink()
        if removed == "all":
            own.rmdir()

        workspace.renew()

        (own / "copy").write_text("in use")
        assert clear(other) == []
        assert (workspace.path, other.path) == (own, before)
        assert (own / "copy").read_text() == "in use"
        workspace.close()
        assert list(parent.iterdir()) != []
        other.close()
        assert list(parent.iterdir()) == []

    def test_one_that_a_sweeper_is_erasing_is_created_again_elsewhere(self, parent: Path) -> None:
        workspace, other = Workspace(parent), Workspace(parent)
        own = workspace.path
        own.with_suffix(".lock").unlink()

        with other.dead() as folders:
            workspace.renew()
            assert folders == [own]

        assert workspace.path != own
        assert workspace.path.is_dir()

    def test_closing_removes_it_whole(self, parent: Path) -> None:
        workspace = Workspace(parent)
        (workspace.path / "deep" / "er").mkdir(parents=True)
        (workspace.path / "deep" / "er" / "a").write_text("a")
        workspace.close()
        workspace.close()
        assert list(parent.iterdir()) == []

    def test_is_not_made_again_after_it_was_closed(self, parent: Path) -> None:
        workspace = Workspace(parent)
        assert workspace.path.is_dir()
        workspace.close()
        with pytest.raises(OSError, match="closed"):
            workspace.path  # noqa: B018 - the property makes the folder
        assert list(parent.iterdir()) == []
        workspace.close()

    def test_threads_that_ask_at_once_get_one(self, parent: Path) -> None:
        for _ in range(20):
            workspace = Workspace(parent)
            found: list[Path] = []
            in_threads(8, target=lambda _, w=workspace, f=found: f.append(w.path))
            assert len(set(found)) == 1
            workspace.close()
        assert list(parent.iterdir()) == []

    def test_two_objects_have_two(self, parent: Path) -> None:
        one, two = Workspace(parent), Workspace(parent)
        assert one.path != two.path
        one.close()
        assert two.path.is_dir()
        two.close()

    def test_a_place_that_cannot_be_made_is_the_system_s_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file"):
            _ = Workspace(tmp_path / "file" / "parent").path


class TestDead:
    def test_what_a_killed_process_left_is_erased_after_the_block(self, parent: Path) -> None:
        folder, workspace = leave_one(parent), Workspace(parent)
        with workspace.dead() as folders:
            inside = [(path, (path / "left").read_text()) for path in folders]
        assert (inside, list(parent.iterdir())) == ([(folder, "over")], [])

    def test_nothing_is_erased_when_the_block_raises(self, parent: Path) -> None:
        folder, workspace = leave_one(parent), Workspace(parent)
        with pytest.raises(ZeroDivisionError), workspace.dead():
            raise ZeroDivisionError
        assert (folder / "left").exists()
        assert clear(workspace) == [folder.name]

    def test_the_living_are_left_alone(self, parent: Path) -> None:
        living, sweeper = Workspace(parent), Workspace(parent)
        (living.path / "a").write_text("a")
        _ = sweeper.path
        assert clear(sweeper) == []
        assert [workspace.path.is_dir() for workspace in (living, sweeper)] == [True, True]
        living.close()
        sweeper.close()

    def test_only_one_of_two_sweepers_has_a_folder(self, parent: Path) -> None:
        leave_one(parent)
        one, two = Workspace(parent), Workspace(parent)
        with one.dead() as first, two.dead() as second:
            assert (len(first), len(second)) == (1, 0)

    def test_a_folder_without_a_lock_belongs_to_nobody(self, parent: Path) -> None:
        folder, workspace = leave_one(parent), Workspace(parent)
        folder.with_name(folder.name + ".lock").unlink()
        assert clear(workspace) == [folder.name]
        assert list(parent.iterdir()) == []

    def test_a_lock_without_a_folder_is_removed(self, parent: Path) -> None:
        workspace = Workspace(parent)
        parent.mkdir()
        (parent / "0123456789abcdef.lock").touch()
        assert clear(workspace) == []
        assert list(parent.iterdir()) == []

    def test_what_is_not_ours_stays(self, parent: Path) -> None:
        others = ["photos", "a" * 64, "0123456789ABCDEF", "notes.lock", "0123456789abcde", "x.lock"]
        for name in others:
            (parent / name).mkdir(parents=True)
            (parent / name / "thesis.tex").write_text("the only copy")
        (parent / "a file").write_text("kept")
        workspace = Workspace(parent)
        assert clear(workspace) == []
        assert {path.parent.name for path in parent.rglob("thesis.tex")} == set(others)
        assert (parent / "a file").exists()

    def test_another_user_s_is_left_to_them(
        self, parent: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, real = leave_one(parent), os.open

        def refuse(path: object, *args: int, **kwargs: int) -> int:
            if str(path).endswith(".lock"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(str(path), *args, **kwargs)

        monkeypatch.setattr("sessionstore._os.workspace.os.open", refuse)
        assert clear(Workspace(parent)) == []
        monkeypatch.undo()
        assert (folder / "left").exists()

    def test_no_parent_is_nothing_to_clear(self, parent: Path) -> None:
        assert clear(Workspace(parent)) == []


class TestAlone:
    def test_when_nobody_else_is_there(self, parent: Path) -> None:
        workspace = Workspace(parent)
        _ = workspace.path
        assert workspace.alone()
        workspace.close()

    def test_the_dead_do_not_count(self, parent: Path) -> None:
        leave_one(parent)
        assert Workspace(parent).alone()

    def test_a_living_one_does(self, parent: Path) -> None:
        one, two = Workspace(parent), Workspace(parent)
        _ = one.path
        before = two.alone()
        one.close()
        assert (before, two.alone()) == (False, True)

    def test_looking_takes_nothing_away(self, parent: Path) -> None:
        folder = leave_one(parent)
        Workspace(parent).alone()
        assert clear(Workspace(parent)) == [folder.name]


def test_a_forked_child_has_a_folder_of_its_own(parent: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from sessionstore._os.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
mine = workspace.path
if os.fork() == 0:
    print("other" if workspace.path != mine and mine.is_dir() else "same", flush=True)
    workspace.close()
    os._exit(0)
os.wait()
print("there" if mine.is_dir() else "gone")
workspace.close()
"""
    out = subprocess.run(
        [sys.executable, "-c", program, str(parent)], check=True, capture_output=True, text=True
    )
    assert out.stdout.split() == ["other", "there"]
    assert list(parent.iterdir()) == []
