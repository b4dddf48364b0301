"""The audit log: every way in which a file can go leaves a line, whatever else happens."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Limits, Retention, SessionStore, SettingsError
from sessionstore._os.locks import lock
from sessionstore.audit import Audit, acting
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.events import Event
from sessionstore.names import private_key
from sessionstore.session import Session
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on
from sessionstore.testing.faulty import unavailable
from tests.support.stores import HOUR, MINUTE, in_threads, timers_rest

NAMES = ("action", "session", "owner", "name", "files", "bytes", "reason")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def store_of(path: Path, clock: FakeClock, backend: Any = None, **policy: Any) -> SessionStore:
    backend = backend or MemoryBackend(Place(), clock)
    return SessionStore(backend, clock=clock, audit=Audit(path), **policy)


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def brief(path: Path) -> list[tuple[Any, ...]]:
    """Each line's fields that a test can know, without those that it has not."""
    return [tuple(entry[name] for name in NAMES if name in entry) for entry in entries(path)]


def test_a_line_says_who_what_why_when_and_by_which_process(path: Path, clock: FakeClock) -> None:
    with store_of(path, clock) as store, acting("support, ticket 812"):
        session = store.session("k3j9x", owner="ada")
        session.put("cat.png", b"12345")
        session.delete("cat.png")
        at = clock.now().isoformat()
    (entry,) = entries(path)
    assert entry == {
        "at": at, "action": "deleted", "session": "k3j9x", "owner": "ada", "name": "cat.png",
        "files": 1, "bytes": 5, "reason": "asked for", "by": "support, ticket 812",
        "host": entry["host"], "pid": os.getpid(),
    }  # fmt: skip


def test_every_way_in_which_a_file_goes(path: Path, clock: FakeClock) -> None:
    policy = {"retention": Retention(idle=HOUR, max_age=None, linger=MINUTE)}
    with store_of(path, clock, **policy) as store:
        ada, bob = store.session("s", "ada"), store.session("s", "bob")
        ada.put("deleted", b"1")
        ada.delete("deleted", "never there")
        ada.put("replaced", b"22")
        ada.put("replaced", b"333")
        ada.put("replaced", b"333")
        ada.put("expires", b"4444", ttl=MINUTE)
        ada.drop()
        ada.drop()
        bob.put("expires", b"4444", ttl=MINUTE)
        clock.advance(2 * MINUTE)
        store.sweep()
        clock.advance(2 * HOUR)
        store.sweep()
    idle = "idle for 2h2m, longer than idle=1h"
    assert brief(path) == [
        ("deleted", "s", "ada", "deleted", 1, 1, "asked for"),
        ("replaced", "s", "ada", "replaced", 1, 2, "another file was saved under its name"),
        ("dropping", "s", "ada", "asked for"),
        ("dropped", "s", "ada", 2, 7, "asked for"),
        ("dropping", "s", "ada", "asked for"),
        ("spared", "s", "ada", "there was none, or it was in use"),
        ("expired", "s", "bob", "expires", 1, 4, "its time to live was over 1m ago"),
        ("swept", 4, "1 deleted, 0 blobs and 0 leftovers collected"),
        ("dropping", "s", "bob", idle),
        ("dropped", "s", "bob", 0, 0, idle),
        ("swept", 0, "1 deleted, 0 blobs and 0 leftovers collected"),
    ]


def test_a_visitor_who_left_is_dropped_with_a_line(path: Path, clock: FakeClock) -> None:
    with store_of(path, clock, retention=Retention(linger=timedelta(0))) as store:
        session = store.session("s")
        session.put("a", b"1")
        session.end()
        timers_rest(store)
    assert [line[0] for line in brief(path)] == ["dropping", "dropped"]


def test_what_an_adapter_keeps_of_visitors_is_written_too(path: Path, clock: FakeClock) -> None:
    """An upload that no event has used is in a session of the adapter's own."""
    policy = {"retention": Retention(idle=HOUR, max_age=None, linger=MINUTE)}
    with store_of(path, clock, **policy) as store:
        unclaimed = Session(store, private_key("unclaimed", "ada"))
        heard: list[Event] = []
        for kind in ("deleted", "expired", "dropped"):
            store.on(kind, heard.append)
        unclaimed.put("claimed", b"1")
        unclaimed.put("short", b"22", ttl=MINUTE)
        unclaimed.delete("claimed")
        clock.advance(2 * MINUTE)
        store.sweep()
        clock.advance(2 * HOUR)
        store.sweep()
        assert heard == []
    told = [(action, *rest) for action, *rest in brief(path) if action != "swept"]
    assert [(each[0], each[1], each[2]) for each in told] == [
        ("deleted", "unclaimed", "ada"),
        ("expired", "unclaimed", "ada"),
        ("dropping", "unclaimed", "ada"),
        ("dropped", "unclaimed", "ada"),
    ]


def test_room_that_is_made_is_written_too(path: Path, clock: FakeClock) -> None:
    with store_of(path, clock, limits=Limits(max_store=10)) as store:
        store.session("old").put("a", b"123456")
        clock.advance(HOUR)
        store.session("new").put("b", b"abcdef")
    assert brief(path) == [("expired", "old", "a", 1, 6, "room was needed under max_store")]


def test_a_drop_that_fails_has_a_beginning_and_no_end(path: Path, clock: FakeClock) -> None:
    backend = FaultyBackend(MemoryBackend(Place(), clock), on("drop", Fault(unavailable)))
    with store_of(path, clock, backend) as store:
        store.session("s").put("a", b"1")
        with pytest.raises(OSError, match="did not answer"):
            store.session("s").drop()
    assert [line[0] for line in brief(path)] == ["dropping"]


def test_nothing_is_written_of_saves_and_reads(path: Path, clock: FakeClock) -> None:
    with store_of(path, clock) as store:
        file = store.session("s").put("a", b"1")
        file.read()
        store.session("s").touch()
    assert path.read_text() == ""


def test_hostile_names_stay_on_one_line_and_read_back(path: Path, clock: FakeClock) -> None:
    names = ["a\nb", '{"action": "dropped"}', "\x1b[2J", "\u202egnp.exe", "\u2028", "é"]
    with store_of(path, clock) as store:
        session = store.session("i\nd", owner="o\r\nwner")
        for name in names:
            session.put(name, b"1")
            session.delete(name)
    assert [entry["name"] for entry in entries(path)] == names
    assert {(entry["session"], entry["owner"]) for entry in entries(path)} == {
        ("i\nd", "o\r\nwner")
    }
    assert path.read_text().isascii()


# The file


def test_it_is_its_owners_alone_and_is_appended_to(path: Path, clock: FakeClock) -> None:
    path.write_text('{"earlier": 1}\n')
    with store_of(path, clock) as store:
        store.session("s").put("a", b"1")
        store.session("s").delete("a")
    assert path.read_text().startswith('{"earlier": 1}\n{"at": ')
    new = path.with_name("new")
    Audit(new)
    assert new.stat().st_mode & 0o777 == 0o600


def test_a_rotated_log_is_begun_anew(path: Path, clock: FakeClock) -> None:
    with store_of(path, clock) as store:
        session = store.session("s")
        for name in ("one", "two"):
            session.put(name, b"1")
            session.delete(name)
            path.rename(path.with_name(name))
    told = [json.loads(path.with_name(name).read_text())["name"] for name in ("one", "two")]
    assert told == ["one", "two"]
    assert not path.exists()


def test_a_log_that_is_rotated_while_a_line_waits_is_not_written(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_of(path, clock) as store:
        store.session("s").put("a", b"1")

        def rotated(_: int) -> None:
            monkeypatch.undo()
            path.rename(path.with_name("rotated"))

        monkeypatch.setattr("sessionstore.audit.lock", rotated)
        store.session("s").delete("a")
    assert path.with_name("rotated").read_text() == ""
    assert len(entries(path)) == 1


def test_the_log_is_locked_while_a_line_is_written(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, free = os.write, []

    def write(fd: int, data: bytes) -> int:
        with path.open("ab") as other:
            free.append(lock(other.fileno(), wait=False))
        return real(fd, data)

    with store_of(path, clock) as store:
        store.session("s").put("a", b"1")
        monkeypatch.setattr("sessionstore.audit.os.write", write)
        store.session("s").delete("a")
        monkeypatch.undo()
    assert free == [False]


def test_a_line_that_was_cut_ends_there(path: Path, clock: FakeClock) -> None:
    path.write_text('{"at": "2026-01-')
    with store_of(path, clock) as store:
        store.session("s").put("a", b"1")
        store.session("s").delete("a")
    cut, whole = path.read_text().splitlines()
    assert cut == '{"at": "2026-01-'
    assert json.loads(whole)["action"] == "deleted"


def test_a_full_disk_loses_no_line_and_stops_no_deletion(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with store_of(path, clock) as store:
        session = store.session("s")
        session.put("a", b"1")
        monkeypatch.setattr("sessionstore.audit.os.write", full)
        with caplog.at_level(logging.ERROR, "sessionstore"):
            session.delete("a")
        assert "a" not in session
    assert '"action": "deleted", "session": "s", "name": "a"' in caplog.text


def test_a_write_that_is_cut_short_is_finished(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with store_of(path, clock) as store:
        store.session("s").put("a", b"1")
        monkeypatch.setattr("sessionstore.audit.os.write", lambda fd, data: real(fd, data[:7]))
        store.session("s").delete("a")
        monkeypatch.undo()
    assert entries(path)[0]["name"] == "a"


@pytest.mark.parametrize("fsync", [False, True])
def test_fsync_is_a_choice(path: Path, monkeypatch: pytest.MonkeyPatch, *, fsync: bool) -> None:
    synced: list[int] = []
    monkeypatch.setattr("sessionstore.audit.os.fsync", synced.append)
    with SessionStore.open("memory://", audit=path, audit_fsync=fsync) as store:
        store.session("s").put("a", b"1")
        store.session("s").drop()
    assert len(synced) == (2 if fsync else 0)


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"invalid audit='.*nowhere/log' \(No such file"):
        SessionStore.open("memory://", audit=tmp_path / "nowhere" / "log")


def test_the_setting_comes_from_the_environment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_AUDIT", str(path))
    with SessionStore.open("memory://") as store:
        store.session("s").put("a", b"1")
        store.session("s").drop()
    assert [line[0] for line in brief(path)] == ["dropping", "dropped"]


# Several at once

EACH = 100


def deletions(path: Path, of: int) -> None:
    with SessionStore.open("memory://", audit=path) as store:
        session = store.session(f"s{of}")
        for number in range(EACH):
            name = f"{number} " + "x" * 200  # longer than a short line
            session.put(name, b"1")
            session.delete(name)


def whole(path: Path, writers: int) -> None:
    """Assert that there is a whole line for each deletion of each writer, in its order."""
    found = entries(path)
    assert len(found) == writers * EACH
    for of in range(writers):
        own = [entry["name"].split()[0] for entry in found if entry["session"] == f"s{of}"]
        assert own == [str(number) for number in range(EACH)]


def test_processes_share_a_log(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=deletions, args=(path, of)) for of in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    whole(path, 3)


def test_threads_share_a_log(path: Path) -> None:
    in_threads(4, target=lambda of: deletions(path, of))
    whole(path, 4)


def test_no_line_is_lost_to_rotation(path: Path) -> None:
    """A rename between any two steps of another process's write."""
    script = (
        "import sys; from pathlib import Path; from tests.core.test_audit import deletions;"
        "deletions(Path(sys.argv[1]), 0)"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], env={**os.environ, "PYTHONPATH": root}
    ) as process:
        number = 0
        # It may end before this process has had a turn.
        while process.poll() is None or (not number and path.exists()):
            if path.exists() and path.stat().st_size:
                number += 1
                path.rename(path.with_name(f"rotated-{number:05d}"))
    parts = [*sorted(path.parent.glob("rotated-*")), *filter(Path.exists, [path])]
    names = [entry["name"].split()[0] for part in parts for entry in entries(part)]
    assert number
    assert names == [str(each) for each in range(EACH)]
