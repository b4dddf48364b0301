"""Whatever others do while a store is verified, and repaired, is no finding and harms nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sessionstore import FileNotStored, SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.clock import SystemClock
from sessionstore.verification import Finding
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import in_threads

ROUNDS = 60
WRITERS = 3
HOT = [b"%d" % number * 50 for number in range(4)]


def on_disk(root: Path) -> Callable[[], SessionStore]:
    return lambda: SessionStore.open(root)


def in_bucket(_root: Path) -> Callable[[], SessionStore]:
    bucket = FakeBucket(SystemClock().now)
    return lambda: SessionStore(ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds))


@pytest.mark.parametrize("place", [on_disk, in_bucket])
def test_what_goes_on_meanwhile_is_no_finding(
    place: Callable[[Path], Callable[[], SessionStore]], tmp_path: Path
) -> None:
    open_store = place(tmp_path)
    done = threading.Event()
    findings: list[Finding] = []
    writing = WRITERS

    def run(number: int) -> None:
        nonlocal writing
        with open_store() as store:
            try:
                if number < WRITERS:
                    write(store, number)
                else:
                    while not done.is_set():
                        findings.extend(store.verify(repair=True))
            finally:
                writing -= number < WRITERS
                if not writing:
                    done.set()

    in_threads(WRITERS + 1, target=run)
    assert findings == []


def write(store: SessionStore, number: int) -> None:
    rng = random.Random(number)
    for turn in range(ROUNDS):
        own = store.session(f"own {number}")
        data = rng.choice([*HOT, b"%d" % rng.getrandbits(64)])
        own.put(f"{turn % 3}", data)
        shared = store.session("everybody's")
        what = rng.randrange(6)
        if what < 3:
            shared.put(f"{rng.randrange(3)}", data)
        elif what == 3:
            shared.delete(f"{rng.randrange(3)}")
        elif what == 4:
            shared.drop()
        else:
            store.session("left").put("x", data)
            store.session("left").end()
            store.sweep()
        try:
            assert own.read(f"{turn % 3}") == data
        except FileNotStored as error:
            raise AssertionError(f"lost in turn {turn} of writer {number}") from error
