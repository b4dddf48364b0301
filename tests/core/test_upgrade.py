"""A store that the code of version 0.1.0 made opens, and all of its files are there.

``tests/data/store-0.1.0.json`` is a local store and a bucket that commit 20474f7 filled: three
sessions with owners, times to live, replaced and deleted files, an end, and a secret.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import FileNotStored, Retention, SessionStore
from sessionstore.backend import KeepsSecret
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing import FakeClock
from tests.support.object_client import FakeBucket, FakeObjectClient

MADE: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "store-0.1.0.json").read_text()
)
KEPT = Retention(idle=None, max_age=timedelta(days=36500), linger=timedelta(days=36500))
A_CENTURY = 2126


def unpack(root: Path) -> None:
    """Make the local store again, with its links, times and modes."""
    for folder in MADE["folders"]:
        (root / folder).mkdir(mode=0o700, parents=True)
    for name, (text, modified, mode) in MADE["files"].items():
        data = base64.b64decode(text) if name == "secret" else text.encode()
        (root / name).write_bytes(data)
        os.utime(root / name, ns=(modified, modified))
        (root / name).chmod(int(mode, 8))
    for name, target in MADE["links"].items():
        (root / name).hardlink_to(root / target)
    for journal in root.glob("sessions/*/journal"):  # its lines name the inodes of the files
        lines = re.sub("@(.*?)@", lambda match: token(root / match[1]), journal.read_text())
        journal.write_text(lines)


def token(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_ino}.{stat.st_mtime_ns}"


def local_store(folder: Path) -> SessionStore:
    unpack(folder / "store")
    return SessionStore.open(folder / "store", settings=False, retention=KEPT)


def bucket_store(_: Path) -> SessionStore:
    clock = FakeClock(datetime(2026, 11, 30, tzinfo=UTC))
    bucket = FakeBucket(clock.now)
    for key, text in MADE["objects"].items():
        bucket.put(key, text.encode(), datetime(2026, 11, 25, tzinfo=UTC))
    client = FakeObjectClient(bucket)
    return SessionStore(ObjectBackend(client, elapsed=bucket.seconds), clock=clock, retention=KEPT)


@pytest.fixture(params=[local_store, bucket_store])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    with request.param(tmp_path) as made:
        yield made


FILES = {
    ("ada", "ada@example.org"): {
        "report.csv": b"a,b\n1,2\n",
        "images/cat.txt": b"meow again",
        "große Datei ☕.txt": b"meow",
    },
    ("bob", None): {"copy of report.csv": b"a,b\n1,2\n", "letter.txt": b"dear ada"},
}


def contents(store: SessionStore) -> dict[tuple[str, str | None], dict[str, bytes]]:
    return {
        (session.id, session.owner): {file.name: file.read() for file in session.files()}
        for session in store.sessions()
    }


def test_its_files_are_there(store: SessionStore) -> None:
    assert contents(store) == FILES
    assert store.shared.read("logo.svg") == b"<svg/>"


def test_times_to_live_and_ends_are_kept(store: SessionStore) -> None:
    bob = store.session("bob")
    letter = bob.get("letter.txt")
    record = store.backend.session(bob.sid)

    assert letter.expires is not None
    assert letter.expires.year >= A_CENTURY - 1
    assert bob.get("copy of report.csv").expires is None
    assert record is not None
    assert record.ended is not None


def test_a_sweep_and_a_verification_find_nothing_wrong(store: SessionStore) -> None:
    store.sweep()

    assert [finding for finding in store.verify() if finding.kind != "leftover"] == []
    assert contents(store) == FILES


def test_files_can_be_replaced_saved_and_deleted(store: SessionStore) -> None:
    ada = store.session("ada", owner="ada@example.org")
    ada.put("report.csv", b"new")
    ada.put("copy.csv", b"a,b\n1,2\n")
    ada.delete("images/cat.txt")

    assert ada.read("report.csv") == b"new"
    assert ada.read("copy.csv") == store.session("bob").read("copy of report.csv")
    with pytest.raises(FileNotStored):
        ada.read("images/cat.txt")


def test_the_secret_is_kept(tmp_path: Path) -> None:
    with local_store(tmp_path) as store:
        assert isinstance(store.backend, KeepsSecret)
        assert store.backend.secret() == base64.b64decode(MADE["files"]["secret"][0])
