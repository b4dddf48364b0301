"""The requests that visitors of an attached app take on a bucket, by kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import gradio as gr
import pytest
from PIL import Image

from sessionstore import Retention, SessionStore
from sessionstore.adapters.gradio import presence as module
from sessionstore.adapters.gradio import session
from sessionstore.adapters.gradio.presence import PresenceTracker, Visitor
from sessionstore.backends.objects import ObjectBackend
from sessionstore.storedfile import StoredFile
from sessionstore.testing import FakeClock
from tests.support.gradio_rig import LINGER, Heard, Site, Tab, sites
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request

T = TypeVar("T")

PUT: Final = 0.005 / 1000
"""Dollars."""

MONTH: Final = 720
"""Hours."""

_KINDS: Final = {
    r"layout|sweep|sweeper|probe|i/": "store",
    r"b/.*": "content",
    r"s/gradio-unclaimed-[^/]+/f/.*": "upload",
    r"s/gradio-tabs-[^/]+/f/.*": "tab",
    r"s/[^/]+/f/.+": "file",
    r"s/[^/]+/(ended|seen|saved)\..*": "note",
    r"s/[^/]*/?": "session",
}


def kind_of(request: Request[Any]) -> str:
    """The verb, and what the first key is."""
    key = request.keys[0]
    return f"{request.verb} " + next(
        name for pattern, name in _KINDS.items() if re.fullmatch(pattern, key)
    )


class Told(FakeObjectClient):
    """A client of a distant bucket, which writes down its requests."""

    at_once: ClassVar[int] = 2

    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(bucket)
        self.kinds: Counter[str] = Counter()

    def send(self, request: Request[T]) -> Answer[T]:
        self.kinds[kind_of(request)] += 1
        return super().send(request)


def paint(path: str) -> Image.Image:
    """Any app's function: the page gets a picture that Gradio writes."""
    return Image.new("RGB", (8, 8), (Path(path).read_bytes()[0], 0, 0))


def add(path: str, request: gr.Request) -> StoredFile:
    return session(request).add(paint(path), ".webp")


def add_as_path(path: str, request: gr.Request) -> str:
    return str(session(request).add(paint(path), ".webp").local_path())


class Counted:
    """A site on a bucket."""

    def __init__(self, site: Site) -> None:
        self.bucket = FakeBucket(site.clock.now)
        self.client = Told(self.bucket)
        self.backend = ObjectBackend(self.client, elapsed=self.bucket.seconds)
        site.store = SessionStore(
            self.backend,
            clock=site.clock,
            retention=Retention(linger=LINGER),
            secret="for all replicas, long enough here",
        )
        with gr.Blocks() as site.demo:
            file, image = gr.File(), gr.Image()
            for fn in (paint, add, add_as_path):
                gr.on(fn=fn, inputs=file, outputs=image, api_name=fn.__name__)
        self.site = site
        self.service = site.attach().service
        self.url = site.serve()
        self.heard = Heard(site.store, "ended", "dropped")

    def tab(self) -> Tab:
        return self.site.tab(self.url)

    def count(self) -> dict[str, int]:
        """The requests since the last count, when those that nobody waits for are made."""
        self.service.presences.stop()
        self.service.presences.start()
        self.service.files.drain()
        self.backend.drain()
        counted, self.client.kinds = dict(self.client.kinds), Counter()
        return counted

    def visit(self, handler: str, number: int) -> dict[str, dict[str, int]]:
        """The requests of one visitor, by what he does."""
        tab, counts = self.tab(), {}
        self.count()
        tab.load()
        counts["page"] = self.count()
        file = tab.upload("photo.bin", bytes([number]) * 100_000)
        counts["upload"] = self.count()
        picture = tab.call(handler, file)
        counts["event"] = self.count()
        tab.fetch(picture).raise_for_status()
        counts["fetch"] = self.count()
        tab.close()
        assert self.heard.next().kind == "ended"
        counts["close"] = self.count()
        self.site.clock.settle()
        self.site.clock.advance(LINGER + timedelta(seconds=1))
        assert self.heard.next().kind == "dropped"
        self.site.clock.settle(0)
        counts["drop"] = self.count()
        return counts


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    with sites(tmp_path / "cache") as make, pytest.MonkeyPatch.context() as patch:
        counted = Counted(make())
        for sweeping in (counted.service._sweeping, counted.service._beating):
            sweeping.stop()
            patch.setattr(sweeping, "start", lambda: None)
        yield counted
        counted.site.store.close()


VISIT: Final = {
    "page": {"LIST session": 1},
    "upload": {"LIST content": 1, "PUT content": 1, "PUT upload": 1},
    "event": {
        "PUT file": 2, "PUT tab": 1, "DELETE upload": 1, "LIST content": 1, "PUT content": 1,
    },
    "fetch": {},
    "close": {"PUT note": 1, "LIST session": 1},
    "drop": {"LIST session": 1, "DELETE file": 1, "LIST tab": 1, "DELETE tab": 1},
}  # fmt: skip
"""16 requests."""

IDLE: Final = 50
"""The most requests that cost money, in an hour in which nobody comes, beside the sweeps."""


def billed(kinds: dict[str, int]) -> int:
    """Return how many of these requests cost as much as a PUT."""
    return sum(count for kind, count in kinds.items() if kind.startswith(("LIST", "PUT")))


@pytest.mark.parametrize("handler", ["paint", "add", "add_as_path"])
def test_one_visitor_takes_sixteen_requests(counted: Counted, handler: str) -> None:
    counted.visit(handler, 0)  # what a process does once is done

    counts = counted.visit(handler, 1)

    assert counts == VISIT
    assert sum(sum(each.values()) for each in counts.values()) == 16
    keys = [key.split("/") for key in counted.bucket.all_keys() if key.startswith("s/")]
    left = {sid.rpartition("-")[0] for _, sid, *_ in keys}
    assert left == {"gradio-cache-directory"}


def test_a_visitor_who_only_looks_takes_two(counted: Counted) -> None:
    tab = counted.tab()
    counted.count()
    tab.load()
    assert counted.count() == {"LIST session": 1}
    tab.close()

    assert counted.count() == {"LIST session": 1}
    assert not [key for key in counted.bucket.all_keys() if tab.session_hash in key]


def test_an_idle_process_costs_little(counted: Counted) -> None:
    """It records the path of its cache directory; its sweeps are ``benchmarks.sweeps``'."""
    counted.tab().load().close()
    counted.count()
    hours = 3
    for _ in range(hours * 60):
        counted.site.clock.advance(timedelta(minutes=1))
        counted.service._beat()
    made = counted.count()

    assert 0.6 * IDLE <= billed(made) / hours <= IDLE  # the adopted copy is older or younger


def test_of_several_processes_one_records_the_path(counted: Counted) -> None:
    counted.count()

    counted.service._claim_path()  # as another process, whose turn it is a little later

    assert counted.count() == {"LIST file": 1, "GET content": 1}  # ten times an hour


class Later:
    """An executor whose calls the test makes."""

    def __init__(self, *_: Any) -> None:
        self.calls: list[Any] = []

    def submit(self, function: Any, *arguments: Any) -> None:
        self.calls.append((function, arguments))

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for function, arguments in calls:
            function(*arguments)

    def shutdown(self) -> None:
        self.run()


def test_a_thousand_open_pages_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The touches of three hours, counted on a clock that is moved, at the price of a PUT."""
    monkeypatch.setattr(module, "ThreadPoolExecutor", Later)
    clock, hours = FakeClock(), 3
    bucket = FakeBucket(clock.now)
    client = Told(bucket)
    backend = ObjectBackend(client, elapsed=bucket.seconds)
    with SessionStore(backend, clock=clock) as store:
        presences = PresenceTracker(store)
        presences.start()
        pool: Any = presences._pool
        for number in range(1000):
            visitor = Visitor(f"{number}", "owner")
            presences.opened(visitor)
            pool.run()
            presences.used(visitor, presences.moment(), wait=False)
            store.session(*visitor).add(b"file")
        client.kinds.clear()
        for _ in range(int(timedelta(hours=hours) / store.live_interval)):
            clock.advance(store.live_interval)
            presences.beat()
            pool.run()
        made = dict(client.kinds)
        idle = store.retention.idle or timedelta.max
        live = [record for record in backend.sessions() if store.now() - record.active < idle]
        presences.stop()

    assert set(made) == {"PUT note"}
    assert made["PUT note"] * PUT / hours * MONTH <= 10
    assert len(live) == 1000
