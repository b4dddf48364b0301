"""Processes on one machine that share Gradio's cache directory: no copy goes while one needs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessionstore import SessionStore
from sessionstore.adapters.gradio.cache import LEASE, CacheDir
from sessionstore.adapters.gradio.cache_files import CacheFiles, FoundFile
from sessionstore.adapters.gradio.paths import CachePaths
from sessionstore.adapters.gradio.presence import Visitor

NAME = "a" * 64 + "/note.txt"
ANNA, BORIS = Visitor("tab of anna", "anna"), Visitor("tab of boris", "boris")

OTHER = """
import sys
from tests.gradio.test_shared_cache import ANNA, NAME, opened
with opened(sys.argv[1]) as files:
    found = files.find(ANNA.owner, NAME)
    for line in sys.stdin:
        match line.strip():
            case "use":
                files.fetch(found)
                done = files.local.pin(NAME)
            case "read":
                done = files.local.path(NAME).read_text() == "note"
            case "end":
                files.local.unpin(NAME)
                done = True
        print(done, flush=True)
"""
"""A process that has a visitor of its own, and does what it is told by lines on its input."""


@contextmanager
def opened(place: str, *, keep: bool = True, cap: int | None = None) -> Iterator[CacheFiles]:
    """The files of one process: the store and the cache directory are below ``place``."""
    with SessionStore.open(Path(place, "store")) as store:
        local = CacheDir(Path(place, "cache"), cap, keep=keep)
        local.leases.hold()
        files = CacheFiles(store, CachePaths(local.root, store.secret()), local)
        yield files
        local.clear()
        local.leases.go()


class Other:
    """Another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def does(self, what: str) -> bool:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        return self.process.stdout.readline() == "True\n"

    def die(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store in which two visitors have the same file."""
    with opened(str(tmp_path)) as files:
        for visitor in (ANNA, BORIS):
            path = files.local.path(NAME)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"note")
            files.keep(visitor, visitor.owner, NAME)
    assert not path.exists()
    return tmp_path


@pytest.fixture
def other(place: Path) -> Iterator[Other]:
    program = [sys.executable, "-c", OTHER, str(place)]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Other(process)
        finally:
            process.kill()


def leave(files: CacheFiles) -> None:
    files.store.session(*BORIS).drop()
    files.forget_session(files.home(BORIS, BORIS.owner).sid)


def evict(files: CacheFiles) -> None:
    files.local.cap = 1
    files.local.make_room()


def close(files: CacheFiles) -> None:
    files.local.clear()


def clean(files: CacheFiles) -> None:
    files.local.clear()
    files.local._started += 2 * LEASE  # as if the copy were older than the process
    files.local.clean()


def keep_none(files: CacheFiles) -> None:
    files.local.keep = False
    files.local.pin(NAME)
    files.local.unpin(NAME)


@pytest.mark.parametrize("remove", [leave, evict, close, clean, keep_none])
def test_a_copy_that_another_process_uses_stays(
    place: Path, other: Other, remove: Callable[[CacheFiles], None]
) -> None:
    with opened(str(place)) as files:
        assert other.does("use")
        assert files.obtain(BORIS.owner, NAME)
        remove(files)

        assert other.does("read")
        assert not files.local.has(NAME)


@pytest.mark.parametrize("remove", [leave, evict, close, keep_none])
def test_a_copy_goes_when_no_process_uses_it(
    place: Path, other: Other, remove: Callable[[CacheFiles], None]
) -> None:
    with opened(str(place)) as files:
        assert other.does("use")
        assert other.does("end")
        assert files.obtain(BORIS.owner, NAME)
        remove(files)

        assert not files.local.path(NAME).exists()


def test_what_a_killed_process_used_may_go(place: Path, other: Other) -> None:
    with opened(str(place)) as files:
        assert other.does("use")
        assert files.obtain(BORIS.owner, NAME)
        other.die()
        evict(files)

        assert not files.local.path(NAME).exists()


def test_a_copy_that_another_process_made_is_compared_and_not_fetched(
    place: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(str(place)) as files:
        found = files.find(BORIS.owner, NAME)
        assert found is not None
        assert other.does("use")
        monkeypatch.setattr(type(files.store.backend), "open", None)

        assert files.fetch(found).read_text() == "note"
        assert files.ready(found)


def test_a_file_of_another_process_with_other_bytes_is_replaced(place: Path) -> None:
    with opened(str(place)) as files:
        found = files.find(BORIS.owner, NAME)
        assert found is not None
        files.local.path(NAME).parent.mkdir(exist_ok=True)
        files.local.path(NAME).write_bytes(b"evil")

        assert files.fetch(found).read_text() == "note"


def test_leases_come_back_when_the_directory_was_cleaned_from_outside(
    place: Path, other: Other
) -> None:
    with opened(str(place)) as files:
        assert other.does("use")
        shutil.rmtree(files.local.root)
        assert other.does("use")
        assert files.obtain(BORIS.owner, NAME)
        evict(files)

        assert other.does("read")


def test_an_event_loop_does_not_wait_for_another_process(place: Path) -> None:
    """One that is stopped, not killed, while it removes something."""
    with opened(str(place)) as files, opened(str(place)) as stopped:
        assert files.obtain(BORIS.owner, NAME)
        assert files.local.pin(NAME)
        with stopped.local.leases.locked(wait=True):
            pinned = files.local.pin(NAME, wait=False)
            for _ in range(2):
                files.local.unpin(NAME)
            again = files.local.pin(NAME, wait=False)
            files.local.release(files.home(BORIS, BORIS.owner).sid)
            there = files.local.path(NAME).exists()
        files.local.make_room()

        assert (pinned, again, there) == (True, False, True)
        assert not files.local.path(NAME).exists()


def test_what_was_written_again_meanwhile_is_not_removed(place: Path) -> None:
    """Gradio writes a visitor's file, and only then does anybody hear of it."""
    with opened(str(place)) as files:
        assert files.obtain(BORIS.owner, NAME)
        files.local.path(NAME).write_bytes(b"note")
        leave(files)

        assert files.keep(ANNA, ANNA.owner, NAME)
        assert files.local.path(NAME).read_text() == "note"


def test_a_copy_whose_last_visitor_leaves_while_it_is_compared_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another visitor has the same bytes, as two who upload one file at two replicas."""
    with opened(str(place)) as files:
        found = files.find(ANNA.owner, NAME)
        assert found is not None
        assert files.obtain(BORIS.owner, NAME)
        note = CacheDir.note

        def leaving(*args: Any) -> None:
            leave(files)
            note(*args)

        monkeypatch.setattr(CacheDir, "note", leaving)

        assert files.fetch(found).read_text() == "note"


def test_an_upload_whose_copy_is_evicted_before_an_event_has_it_is_fetched_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(str(place)) as files:
        name = "b" * 64 + "/upload.txt"
        files.local.path(name).parent.mkdir(parents=True)
        files.local.path(name).write_bytes(b"upload")
        files.keep_upload(ANNA.owner, name)
        evictions, claimed = iter([evict]), CacheFiles._claimed

        def evicting(*args: Any) -> FoundFile:
            for remove in evictions:
                remove(files)
            return claimed(*args)

        monkeypatch.setattr(CacheFiles, "_claimed", evicting)
        found = files.claim(ANNA, ANNA.owner, name)

        assert found is not None
        assert found.sid == files.home(ANNA, ANNA.owner).sid
        assert files.local.path(name).read_text() == "upload"


def test_threads_that_pin_and_remove_at_once_agree(place: Path) -> None:
    """Whoever pinned a copy has it, whatever the others do."""
    with opened(str(place)) as files, opened(str(place), keep=False) as others:
        missing: list[int] = []

        def use(mine: CacheFiles, owner: str | None) -> None:
            for number in range(200):
                if mine.obtain(owner, NAME) and mine.local.pin(NAME):
                    if not mine.local.path(NAME).exists():
                        missing.append(number)
                    mine.local.unpin(NAME)

        threads = [
            threading.Thread(target=use, args=(mine, visitor.owner))
            for mine in (files, others)
            for visitor in (ANNA, BORIS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert missing == []
