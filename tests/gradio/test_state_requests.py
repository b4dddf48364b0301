"""The requests that ``gr.State`` takes on a bucket, and which of them wait for one another."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from sessionstore import SessionStore
from sessionstore.adapters.gradio import attach
from sessionstore.adapters.gradio.state import FOLDER
from sessionstore.backends.objects import ObjectBackend
from tests.gradio.test_visitor_requests import Told
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    PATIENCE,
    MakeReplicas,
    Site,
    Tab,
    launched,
    replicas,
    sites,
)
from tests.support.object_client import FakeBucket

pytestmark = GRADIO_S_OWN

VALUE = "sessionstore!-state"
"""A part of the keys of values."""


def add(path: str, seen: list[int]) -> tuple[Image.Image, list[int]]:
    """A picture of the upload, and its first byte for the state."""
    first = Path(path).read_bytes()[0]
    return Image.new("RGB", (8, 8), (first, 0, 0)), [*seen, first]


def build() -> gr.Blocks:
    demo: gr.Blocks
    with gr.Blocks() as demo:
        text, seen = gr.Textbox(), gr.State([])
        gr.on(fn=add, inputs=[gr.File(), seen], outputs=[gr.Image(), seen], api_name="add")
        gr.on(fn=str, inputs=seen, outputs=text, api_name="look")
        gr.on(fn=lambda said: (said, [said]), inputs=text, outputs=[text, seen], api_name="say")
        gr.on(fn=lambda said: said, inputs=text, outputs=text, api_name="echo")
    return demo


class ToldOfValues(Told):
    """Writes down the requests for values of ``gr.State`` alone too."""

    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(bucket)
        self.of_values: Counter[str] = Counter()

    def send(self, request: Any) -> Any:
        if any(VALUE in key for key in request.keys):
            self.of_values[request.verb] += 1
        return super().send(request)


class Counted:
    """A replica on the bucket."""

    def __init__(self, site: Site, bucket: FakeBucket) -> None:
        self.client = ToldOfValues(bucket)
        self.backend = ObjectBackend(self.client, elapsed=bucket.seconds)
        site.store = SessionStore(
            self.backend, clock=site.clock, secret="for all replicas, long enough here"
        )
        site.stack.enter_context(site.store)
        site.demo = build()
        self.site = site

    def serve(self, *, state: bool) -> Counted:
        self.attachment = attach(self.site.demo, self.site.store, state=state)
        self.site.stack.callback(self.attachment.detach)
        self.url = self.site.stack.enter_context(launched(self.site.demo))
        return self

    def count(self) -> tuple[int, dict[str, int]]:
        """The requests since the last count: all that are not of presence, and those of values."""
        self.attachment.service.files.drain()
        self.backend.drain()
        kinds, self.client.kinds = self.client.kinds, Counter()
        values, self.client.of_values = dict(self.client.of_values), Counter()
        told = sum(count for kind, count in kinds.items() if kind.split()[1] in _FILES)
        return told, values


_FILES = {"content", "upload", "tab", "file"}


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Counted, Counted]]:
    state = getattr(request, "param", True)
    with sites(tmp_path / "cache") as make:
        first, second = make(), make()
        second.clock = first.clock
        bucket = FakeBucket(first.clock.now)
        yield tuple(Counted(site, bucket).serve(state=state) for site in (first, second))  # type: ignore[misc]


@pytest.fixture
def tabs(pair: tuple[Counted, Counted]) -> tuple[Tab, Tab]:
    a, b = pair
    mine = a.site.tab(a.url).load()
    other = b.site.tab(b.url, session_hash=mine.session_hash, cookies=mine.cookies)
    a.site.clock.settle(4)  # the first sweep and the first heartbeat of each, which list too
    for tab, at in zip((mine, other), pair, strict=True):
        tab.call("echo", "first")
        at.count()
    return mine, other


def test_each_event_reads_one_reference_and_the_value_if_it_is_new(
    pair: tuple[Counted, Counted], tabs: tuple[Tab, Tab]
) -> None:
    (a, b), (here, there) = pair, tabs
    here.call("look", None)
    first = a.count()[1]
    here.call("say", "hello", None)
    set_here = a.count()[1]
    here.call("look", None)
    again = a.count()[1]
    there.call("look", None)
    moved, values = b.count()
    there.call("echo", "nothing of the state")

    assert first == {"LIST": 1}
    assert set_here == {"LIST": 2, "PUT": 1}  # before the function; and beside the content, after
    assert again == {"LIST": 1}
    assert (moved, values) == (2, {"LIST": 1})  # and one GET of the content
    assert b.count()[1] == {}


@pytest.mark.parametrize("pair", [False], indirect=True)
def test_without_state_there_is_no_request(
    pair: tuple[Counted, Counted], tabs: tuple[Tab, Tab]
) -> None:
    for at, tab in zip(pair, tabs, strict=True):
        tab.call("say", "hello", None)
        tab.call("look", None)

        assert at.count() == (0, {})


def test_a_value_waits_for_at_most_one_request_more_than_the_files(tmp_path: Path) -> None:
    """Its reference is read while the input is claimed, and it is written while the output is.

    So only the GET of a value that another replica wrote can be one round trip more.
    """
    with replicas(tmp_path) as make:
        _meet(make)


def _meet(make: MakeReplicas) -> None:
    site, other = (make(build, url="memory://meet", options={"state": True}) for _ in range(2))
    tab = site.tab().load()
    tab.call("say", "hello", None)
    there = other.same(tab)
    file = tab.upload("photo.bin", b"\7")
    backend: Any = other.store.backend
    get, put = backend.get, backend.put
    read, written = (threading.Barrier(2) for _ in range(2))
    met: Counter[str] = Counter()

    def meet(what: str, barrier: threading.Barrier, name: str) -> None:
        is_value = FOLDER in name
        if met[f"{what} {is_value}"] == 0 and ("photo" in name or "image" in name or is_value):
            met[f"{what} {is_value}"] += 1
            barrier.wait(PATIENCE / 2)

    def got(sid: str, name: str) -> Any:
        meet("get", read, name)
        return get(sid, name)

    def kept(key: Any, name: str, content: Any, **options: Any) -> Any:
        if "photo" not in name:  # that is the input, which is claimed before
            meet("put", written, name)
        return put(key, name, content, **options)

    backend.get, backend.put, backend.at_once = got, kept, 8
    picture = there.call("add", file, None)

    assert there.fetch(picture).status_code == 200
    assert there.call("look", None) == "['hello', 7]"
    assert met == {"get True": 1, "get False": 1, "put True": 1, "put False": 1}
