"""A look-up by name in a large session: as in a small one, and by a bounded amount of work."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sessionstore import FileNotStored, SessionStore
from sessionstore.backend import Reference
from sessionstore.backends.local import backend as local
from sessionstore.backends.local import journal
from sessionstore.backends.local.directory import Directory
from sessionstore.backends.local.journal import PATIENCE, TAIL, Tables, backwards
from sessionstore.backends.local.session_dir import SessionDir

SID = "alice-0123456789abcdef0123456789abcdef"


def line(name: str, token: str) -> bytes:
    reference = Reference(name, 3, "ab" * 32, datetime(2026, 1, 1, tzinfo=UTC), None, token)
    return journal.encode(name, reference)


def needle_of(name: str, token: str) -> bytes:
    return f'\n{{"file": "{name}", "token": "{token}",'.encode()


class Journal:
    """A journal of its own, and look-ups in it."""

    def __init__(self, path: Path, tables: Tables | None = None) -> None:
        self.path = path
        self.tables = tables or Tables()
        self.path.touch()

    def append(self, text: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(text)

    def found(self, name: str, token: str, sid: str = SID) -> list[bytes]:
        with self.path.open("rb") as file:
            size, needle = os.fstat(file.fileno()).st_size, needle_of(name, token)
            return list(self.tables.lines(sid, file.fileno(), size, name, needle))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that each read looked at, through a table."""
    looked: list[int] = []
    real = journal.read_at

    def read_at(fd: int, start: int, length: int) -> bytes:
        looked.append(length)
        return real(fd, start, length)

    monkeypatch.setattr(journal, "read_at", read_at)
    return looked


@pytest.mark.parametrize("lines", [1_000, 100_000])
def test_a_look_up_does_as_much_work_in_a_large_journal_as_in_a_small_one(
    tmp_path: Path, looked: list[int], lines: int
) -> None:
    it = Journal(tmp_path / "journal")
    it.append(b"".join(line(f"{number}.png", f"{number}.1") for number in range(lines)))
    for _ in range(PATIENCE + 1):
        it.found("0.png", "0.1")
    looked.clear()
    for number in range(0, lines, lines // 100):
        assert it.found(f"{number}.png", f"{number}.1") == [
            line(f"{number}.png", f"{number}.1")[1:]
        ]
    assert 200 <= len(looked) < 250  # the tail and the line, and seldom another of the same hash
    assert sum(looked) < 100 * 2000


def test_of_a_journal_that_grows_no_more_is_read_than_the_tail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, looked: list[int]
) -> None:
    made: list[int] = []
    real = journal.Table.of

    def of(text: Any, *more: Any) -> Any:
        made.append(len(text))
        return real(text, *more)

    monkeypatch.setattr(journal.Table, "of", of)
    it = Journal(tmp_path / "journal")
    it.append(b"".join(line(f"{number}", "1.1") for number in range(2000)))
    for number in range(2000, 4000):
        it.append(line(f"{number}", "1.1"))
        assert len(it.found(f"{number}", "1.1")) == 1
    # The whole once, and from then on what came since.
    assert made[0] > 300_000
    assert len(made) > 5
    assert all(TAIL < each < 2 * TAIL for each in made[1:])
    assert max(looked) < 2 * TAIL


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_a_search_of_the_whole_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    monkeypatch.setattr(journal, "TAIL", 2000)
    monkeypatch.setattr(journal, "PATIENCE", 0)
    rng, lines = random.Random(seed), list[bytes]()
    it = Journal(tmp_path / "journal")
    it.append(line("first", "1.1"))
    for _ in range(600):
        name, token = f"{rng.randrange(40)}", f"{rng.randrange(3)}.{rng.randrange(3)}"
        match rng.randrange(40):
            case 0:  # compacted
                lines = [line("first", "1.1"), *rng.sample(lines, len(lines) // 2)]
                it.path.write_bytes(b"".join(lines))
            case 1:  # torn
                it.append(line(name, token)[: rng.randrange(1, 60)])
            case _:
                lines.append(line(name * rng.choice((1, 1, 400)), token))
                it.append(lines[-1])
        name, token = f"{rng.randrange(40)}", f"{rng.randrange(3)}.{rng.randrange(3)}"
        name *= rng.choice((1, 400))
        whole = list(backwards(it.path.read_bytes(), needle_of(name, token)))
        assert it.found(name, token) == whole


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(journal, "MOST", 100)
    monkeypatch.setattr(journal, "PATIENCE", 0)
    it = Journal(tmp_path / "journal")
    it.append(b"".join(line(f"{number}", "1.1") for number in range(40)))
    for number in range(200):
        it.found("1", "1.1", f"{number}")
    assert list(it.tables._tables) == ["198", "199"]


@pytest.mark.parametrize("seed", range(5))
def test_two_processes_see_each_others_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    monkeypatch.setattr(journal, "SMALL", 1000)
    monkeypatch.setattr(journal, "TAIL", 1000)
    monkeypatch.setattr(journal, "PATIENCE", 0)
    rng, model = random.Random(seed), dict[str, bytes]()
    with SessionStore.open(tmp_path / "s") as one, SessionStore.open(tmp_path / "s") as two:
        for number in range(400):
            session = rng.choice((one, two)).session("ada")
            name = f"{rng.randrange(60)}.bin"
            match rng.randrange(4):
                case 0:
                    names = [f"{rng.randrange(60)}.bin" for _ in range(5)]
                    session.delete(*names)
                    for each in names:
                        model.pop(each, None)
                case _:
                    model[name] = b"%d" % (number % 90)
                    session.put(name, model[name])
            name = f"{rng.randrange(60)}.bin"
            if name in model:
                assert session.read(name) == model[name]
            else:
                with pytest.raises(FileNotStored):
                    session.get(name)
        for store in (one, two):
            assert {it.name: it.read() for it in store.session("ada").files()} == model


def test_a_deletion_of_many_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "_AT_ONCE", 10)
    taken: list[str] = []
    real = SessionDir.lock

    def lock(self: SessionDir, *, wait: bool = True) -> bool:
        taken.append(self.sid)
        return real(self, wait=wait)

    with SessionStore.open(tmp_path / "s") as store:
        session = store.session("ada")
        for number in range(35):
            session.put(f"{number}", os.urandom(4))
        monkeypatch.setattr(SessionDir, "lock", lock)
        session.delete(*(f"{number}" for number in range(35)))
        assert len(taken) == 4
        assert session.files() == []


def test_no_mark_outlives_a_compaction_that_orders_the_lines_anew(tmp_path: Path) -> None:
    """The line of the mark is at its old offset, and a newer one is before it now."""
    lines = {name: line(name, "1.1") for name in "abx"}
    (tmp_path / "seen").touch()
    (tmp_path / journal.NAME).write_bytes(lines["a"] + lines["b"])
    with Directory(str(tmp_path)) as folder:
        mark, _ = journal.since(folder, None)
        with (tmp_path / journal.NAME).open("ab") as file:
            file.write(lines["x"])
        new, told = journal.since(folder, mark)
        assert told is not None
        assert [each.file for each in told] == ["b", "x"]
        os.truncate(tmp_path / "seen", 1)
        parsed = [journal.decode(lines[name].strip()) for name in "xba"]
        journal.compact(folder, [each for each in parsed if each is not None])
        assert (tmp_path / journal.NAME).read_bytes() == lines["x"] + lines["b"] + lines["a"]
        for before in (mark, new):
            assert journal.since(folder, before)[1] is None
