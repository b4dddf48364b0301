"""The short form of the soak: what is left of some visitors is no more after twice as many."""

from __future__ import annotations

import gc
import itertools
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from sessionstore import Limits, Retention, SessionStore
from sessionstore.adapters.gradio import attach, cache
from sessionstore.adapters.gradio import cache_files as gradio_files
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing import FakeClock
from tests.campaigns import soak
from tests.campaigns.soak import NOTHING, Counts, Run, count, grown
from tests.campaigns.visitors import LEAKS, by_gradio, by_library, demo, end_leaks
from tests.support import gradio_rig
from tests.support.gradio_rig import GRADIO_S_OWN
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import DAY, PATIENCE, local_store, memory_store, timers_rest

pytestmark = GRADIO_S_OWN

VISITORS = 20
"""Each way of leaving is taken several times."""


class Place(NamedTuple):
    """A store on a clock that stands still, and what sends it so many visitors."""

    store: SessionStore
    clock: FakeClock
    numbers: Iterator[int]

    def visitors(self, leak: str | None = None) -> Counts:
        """What there is when so many visitors have come, and all their times are over."""
        for seed in range(VISITORS):
            number = next(self.numbers)
            by_library(self.store, number, seed)
            if leak is not None:
                LEAKS[leak](self.store, number)
        return self.over()

    def over(self) -> Counts:
        for _ in range(3):  # a bucket: content one grace after its files, notes one after that
            self.clock.advance(2 * DAY)
            self.store.sweep()
        if not self.store._timers._due:
            timers_rest(self.store)
        gc.collect()
        return count(self.store)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of our own for what is counted."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with warnings.catch_warnings():  # what earlier tests of this process left, such as event loops
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    soak.fill_pools()  # a pool starts a thread when none is idle: that depends on the load


def in_bucket(clock: FakeClock) -> SessionStore:
    bucket = FakeBucket(clock.now)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    return SessionStore(backend, clock=clock)


@pytest.fixture(params=["local", "memory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    clock = FakeClock()
    makes: dict[str, Callable[[], SessionStore]] = {
        "local": lambda: local_store(tmp_path / "store", clock, limits=Limits(max_session=1 << 30)),
        "memory": lambda: memory_store(clock),
        "bucket": lambda: in_bucket(clock),
    }
    with makes[request.param]() as store:
        yield Place(store, clock, itertools.count())


def test_twice_as_many_visitors_leave_no_more(place: Place) -> None:
    once = place.visitors()
    assert grown(once, place.visitors(), NOTHING) == []


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize(
    ("leak", "seen"),
    {
        "thread": "threads", "descriptor": "descriptors", "socket": "sockets", "timer": "timers",
        "folder": "temporary", "file": "stored",
    }.items(),
)  # fmt: skip
def test_what_each_visitor_leaves_is_seen(place: Place, leak: str, seen: str) -> None:
    try:
        once = place.visitors(leak)
        # Some of what earlier tests left may go meanwhile.
        most = soak.LEFT._replace(**{seen: VISITORS // 2})
        assert seen in grown(once, place.visitors(leak), most)
    finally:
        end_leaks()


def test_memory_that_grows_is_seen() -> None:
    run = Run("leaks")
    run.thirds = [NOTHING._replace(memory=200_000 + 7_000 * each) for each in range(3)]
    assert run.verdict() == "memory grew"


def test_what_stays_as_it_is_after_the_second_third_is_flat() -> None:
    run = Run("pools", thirds=[NOTHING, NOTHING._replace(memory=9_000), NOTHING])
    assert run.verdict() == "flat"
    run.thirds[-1] = NOTHING._replace(sessions=soak.LEFT.sessions + 1)
    assert run.verdict() == "sessions grew, sessions were left"


def test_visitors_of_a_gradio_app_leave_nothing_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools of threads and connections are as large as they were needed, and no larger."""
    monkeypatch.setattr(gradio_files, "UNCLAIMED", timedelta(seconds=20))
    monkeypatch.setattr(cache, "LEASE", -1.0)  # whatever is old enough to be let go of is
    clock, visitors = FakeClock(), 12
    with ExitStack() as stack:
        stack.enter_context(gradio_rig.closed_loops())
        over = gradio_rig.seen_to_end(stack.enter_context(pytest.MonkeyPatch.context()))
        store = stack.enter_context(
            local_store(tmp_path / "store", clock, retention=Retention(linger=timedelta(0)))
        )
        made = demo()
        attachment = attach(made, store)
        stack.callback(attachment.detach)
        url = stack.enter_context(gradio_rig.launched(made))

        def come(first: int) -> Iterator[Counts]:
            for seed in range(visitors):
                by_gradio(url, first + seed, over, seed)
            return settling(store, clock, attachment.service.files.local.clean)

        once = NOTHING
        for now in come(0):
            if now == once:
                break
            once = now
        most = Counts(*[visitors // 2] * len(Counts._fields))
        for now in come(visitors):
            if not (more := grown(once, now, most)):
                break
        assert more == []


def settling(store: SessionStore, clock: FakeClock, clean: Callable[[], None]) -> Iterator[Counts]:
    """What there is, again and again: the server closes its ends of the connections late."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        clock.advance(2 * DAY)
        store.sweep()
        clean()
        gc.collect()
        yield count(store)
        threading.Event().wait(0.1)  # the server tells nobody that it has closed a connection
