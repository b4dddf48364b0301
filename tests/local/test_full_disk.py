"""A local store on a full disk: what works, what is refused, and that nothing of that is seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sessionstore import LimitExceeded, SessionStore
from tests.campaigns import full_disk
from tests.campaigns.full_disk import (
    COMMANDS,
    DONE,
    LACKS,
    LIBRARY,
    REFUSED,
    SAVING,
    SAVING_COMMANDS,
)
from tests.support import small_disk
from tests.support.local import blobs
from tests.support.small_disk import CannotMount, cannot, empty, fill_files

KIND = "tmpfs"
MAY_BE_DONE = {"`put`, known content", "`end`"}
"""What needs no byte, or no new file, as it comes."""

lacking = pytest.mark.parametrize("lack", LACKS)
opened = pytest.mark.parametrize("before", [True, False], ids=["before", "then"])


def asked(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except CannotMount as error:
        cannot(error)
        raise  # for mypy, which does not know that the line above has raised


@lacking
@opened
@pytest.mark.parametrize("name", LIBRARY)
def test_what_needs_no_room_is_done(name: str, lack: str, before: bool, tmp_path: Path) -> None:
    operation = LIBRARY[name]
    said = asked(lambda: full_disk.answer(operation, KIND, lack, tmp_path, before=before))
    assert said == DONE


@lacking
@opened
@pytest.mark.parametrize("name", SAVING)
def test_what_needs_room_is_refused_and_not_seen(
    name: str, lack: str, before: bool, tmp_path: Path
) -> None:
    operation = SAVING[name]
    said = asked(lambda: full_disk.answer(operation, KIND, lack, tmp_path, before=before))
    assert said == REFUSED or (said == DONE and name in MAY_BE_DONE and lack == "bytes")


@lacking
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_need_no_room_are_done(name: str, lack: str, tmp_path: Path) -> None:
    words = COMMANDS[name]
    assert asked(lambda: full_disk.answer_of_command(words, KIND, lack, tmp_path)) == DONE


@lacking
@pytest.mark.parametrize("name", SAVING_COMMANDS)
def test_commands_that_save_are_refused_in_words(name: str, lack: str, tmp_path: Path) -> None:
    words = SAVING_COMMANDS[name]
    assert asked(lambda: full_disk.answer_of_command(words, KIND, lack, tmp_path)) == REFUSED


def dies(act: Callable[[], object]) -> None:
    """Do it in a child that ends with status 9."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with small_disk.mounted(tmp_path / "disk") as path:
            yield path
    except CannotMount as error:
        cannot(error)


def test_no_store_is_made_where_there_is_no_room(disk: Path) -> None:
    fill_files(disk)
    with pytest.raises(LimitExceeded, match="the disk is full"):
        SessionStore.open(disk / "store")


def test_a_drop_that_is_killed_on_a_full_disk_is_finished_by_a_sweep_there(disk: Path) -> None:
    root = disk / "store"
    with SessionStore.open(root) as store:
        store.session("ada").put("a", b"a")
        store.session("bob").put("b", b"b")
    fill_files(disk)

    def drop() -> None:
        store = SessionStore.open(root)
        os.unlink = lambda *_, **__: os._exit(9)
        store.session("ada").drop()

    dies(drop)
    assert len(list((root / "tmp").iterdir())) == 1
    with SessionStore.open(root) as store:
        store.sweep()
        assert [session.id for session in store.sessions()] == ["bob"]
    assert (list((root / "tmp").iterdir()), len(blobs(root))) == ([], 1)


def test_a_process_that_opened_a_store_on_a_full_disk_saves_when_there_is_room(
    disk: Path,
) -> None:
    with SessionStore.open(disk / "store") as store:
        store.session("ada").put("a", b"a")
    fill_files(disk)
    with SessionStore.open(disk / "store") as store:
        empty(disk)
        store.session("ada").put("b", b"b")
        assert store.session("ada").read("b") == b"b"


def test_who_has_no_room_to_show_himself_takes_it_that_others_are_there(disk: Path) -> None:
    with SessionStore.open(disk / "store") as store:
        store.session("ada").put("a", b"a")
    fill_files(disk)
    with SessionStore.open(disk / "store", restart="drop") as store:
        assert store.session("ada").read("a") == b"a"


def test_what_a_death_in_a_replacement_left_is_swept_while_the_session_lives(
    tmp_path: Path,
) -> None:
    root = tmp_path / "store"
    with SessionStore.open(root) as store:
        store.session("ada").put("a", b"old")

        def put() -> None:
            os.rename = lambda *_, **__: os._exit(9)
            store.session("ada").put("a", b"new")

        dies(put)
        assert len(list(root.glob("sessions/*/new"))) == 1
        store.sweep()
        assert store.session("ada").read("a") == b"old"
        assert blobs(root) == []  # the older file's blob has lost its name, which costs no bytes
        assert not list(root.glob("sessions/*/new"))
