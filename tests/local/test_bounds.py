"""What a local store takes: memory, open files, disk. And what it says when there is no more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import BackendUnavailable, LimitExceeded, Limits, SessionStore
from sessionstore.backends.local.session_dir import SessionDir
from sessionstore.content import Buffer
from sessionstore.testing import FakeClock
from tests.campaigns import kill_local
from tests.support.local import everything, opened
from tests.support.small_disk import CannotMount, cannot, mounted

GIBIBYTE = """
import sys, pathlib
from sessionstore import SessionStore

def peak():  # KiB; getrusage's would count what the parent had before exec(2)
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

def chunks(count):
    block = bytes(range(256)) * 4096
    for number in range(count):
        yield number.to_bytes(8, "big") + block[8:]

with SessionStore.open(sys.argv[1]) as store:
    session = store.session("one")
    with session.put("warm", chunks(4)).open() as file:
        while file.read(1 << 20): pass
    before = peak()
    session.put("big", chunks(1024))
    saved = peak()
    count = 0
    with session.open("big") as file:
        while part := file.read(1 << 20):
            count += len(part)
    print(count, saved - before, peak() - before)
"""


def test_a_gibibyte_takes_at_most_16_mib_of_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIBIBYTE, str(tmp_path / "s")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    count, saving, reading = map(int, done.stdout.split())
    assert count == 1 << 30
    assert saving <= 16 * 1024
    assert reading <= 16 * 1024


def test_files_opened_are_closed(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        before = 0
        for number in range(50):
            before = before or (number and len(opened(tmp_path)))
            session = store.session(f"{number}")
            session.put("a", b"a")
            session.put("b", [b"b" * 1_200_000])
            session.put("a", b"c")
            session.get("a").open().close()
            session.files()
            session.end()
            session.drop()
            store.sweep()
        assert len(opened(tmp_path)) == before > 0


def test_a_put_of_known_content_writes_no_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        data = os.urandom(5_000_000)
        store.session("one").put("a", data)
        write, written = os.write, [0]

        def counting(fd: int, data: Buffer) -> int:
            written[0] += memoryview(data).nbytes
            return write(fd, data)

        monkeypatch.setattr(os, "write", counting)
        store.session("two").put("b", data)
        assert 0 < written[0] < 1000


def test_a_short_kill_campaign(tmp_path: Path) -> None:
    """``make campaigns`` runs the long one."""
    root, logs = tmp_path / "store", tmp_path / "logs"
    logs.mkdir()
    result = kill_local.run(root, logs, kills=25, seed=20261122, least=50)
    assert result.good, result


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 8 MiB: needs root."""
    try:
        with mounted(tmp_path / "small") as path:
            yield path
    except CannotMount as error:
        cannot(error)


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    with SessionStore.open(small_disk / "s") as store:
        session = store.session("one")
        session.put("kept", b"k" * 1_000_000)
        with pytest.raises(LimitExceeded, match="disk is full; free some space") as caught:
            session.put("big", (b"x" * 1_000_000 for _ in range(20)))
        assert isinstance(caught.value.__cause__, OSError)
        assert [file.name for file in session.files()] == ["kept"]
        assert session.read("kept") == b"k" * 1_000_000
        session.put("next", b"n" * 5_000_000)
        session.drop()
        assert everything(small_disk / "s") == set()


def test_a_read_that_the_disk_refuses_is_our_error(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        file = store.session("one").put("a", b"bytes")
        with file.stream(1, 3) as stream, open(tmp_path / "s" / "layout", "wb") as write_only:
            inner: Any = stream
            os.dup2(write_only.fileno(), inner.raw._stream.fileno())
            with pytest.raises(BackendUnavailable, match="Could not read a file in"):
                stream.read()


def test_min_free_is_asked_of_the_disk(small_disk: Path) -> None:
    limits = Limits(min_free=6 << 20)
    with SessionStore.open(small_disk / "s", limits=limits) as store:
        session = store.session("one")
        session.put("small", b"s" * 100_000)
        with pytest.raises(LimitExceeded, match=r"less than min_free=6 MiB on the disk"):
            session.put("big", (b"x" * 1_000_000 for _ in range(20)))
        assert [file.name for file in session.files()] == ["small"]


def test_a_sweep_looks_at_all_files_of_a_session_once_and_not_for_each_due_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, counted = FakeClock(), list[str]()
    tighten = SessionDir.tighten

    def counting(self: SessionDir, now: datetime) -> None:
        counted.append(self.sid)
        tighten(self, now)

    monkeypatch.setattr(SessionDir, "tighten", counting)
    with SessionStore.open(tmp_path / "s", clock=clock) as store:
        session = store.session("one")
        for number in range(200):
            session.put(f"{number}", b"%d" % (number % 7), ttl=timedelta(minutes=1))
        session.put("kept", b"kept")
        clock.advance(timedelta(hours=1))
        assert len(store.sweep()) == 200
        assert counted == [session.sid]
        assert [file.name for file in session.files()] == ["kept"]
