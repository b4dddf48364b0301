"""Demos that are really served, and visitors who speak Gradio's protocol to them.

A ``Tab`` does what Gradio's page does (load, heartbeat, queue) but for the JavaScript, so a test
decides when a connection opens and closes. Nothing here sleeps: every wait is for an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import httpx
import pytest
import uvicorn
from PIL import Image

from sessionstore import Limits, Retention, SessionStore
from sessionstore.adapters.gradio import Attachment, attach, session
from sessionstore.adapters.gradio.file_routes import _Heartbeat
from sessionstore.events import Event
from sessionstore.local_copies import RECHECK
from sessionstore.testing import FakeClock
from tests.support.patience import be_patient
from tests.support.ports import free_port

be_patient()

GRADIO_S_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")
"""For ``pytestmark``: an older Gradio with a newer Starlette is allowed to be behind."""

PATIENCE = 60
"""Real seconds until a wait is a failure. No test is measured by it."""

LINGER = timedelta(minutes=5)


@contextlib.contextmanager
def closed_loops() -> Iterator[None]:
    """Close the event loops that Gradio makes for each app and forgets (``safe_get_lock``)."""
    made: list[asyncio.AbstractEventLoop] = []
    original = asyncio.new_event_loop

    def new_event_loop() -> asyncio.AbstractEventLoop:
        made.append(original())
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", new_event_loop)
        yield
    asyncio.set_event_loop(None)
    for loop in made:
        loop.close()


@contextlib.contextmanager
def launched(demo: Any, **options: Any) -> Iterator[str]:
    """The demo, or ``gr.Server``, served by ``launch``; gives its URL."""
    port = free_port()
    demo.launch(prevent_thread_lock=True, quiet=True, server_port=port, **options)
    blocks = demo if isinstance(demo, gr.Blocks) else demo.blocks
    thread = blocks.server.thread
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        blocks.close(verbose=False)
        thread.join(PATIENCE)  # Gradio waits 5 s for it


def app_with(demo: gr.Blocks, **options: Any) -> fastapi.FastAPI:
    """An app with the demo below its path ``/deep/app``."""
    app = fastapi.FastAPI()
    gr.mount_gradio_app(app, demo, path="/deep/app", **options)
    return app


@contextlib.contextmanager
def mounted(demo: gr.Blocks, **options: Any) -> Iterator[str]:
    """The demo below a path of another app; gives its URL."""
    with running(app_with(demo, **options)) as url:
        yield url


@contextlib.contextmanager
def running(app: fastapi.FastAPI, **options: Any) -> Iterator[str]:
    """An app of ``app_with``, served by uvicorn in a thread; gives the demo's URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive(), "the server did not start"
        yield f"http://127.0.0.1:{port}/deep/app"
    finally:
        server.should_exit = True
        thread.join()


SERVED: dict[str, Callable[..., contextlib.AbstractContextManager[str]]] = {
    "launch": launched,
    "mount": mounted,
}


@dataclass
class Tab:
    """A browser tab with a page of a demo. One with another's ``cookies`` is of its visitor."""

    url: str
    session_hash: str = field(default_factory=lambda: secrets.token_hex(6))
    cookies: httpx.Cookies | None = None
    headers: dict[str, str] = field(default_factory=dict)
    over: threading.Semaphore = field(default_factory=threading.Semaphore)
    """Released by the server for each heartbeat that it has seen end."""

    def __post_init__(self) -> None:
        self.client = httpx.Client(
            headers=self.headers, cookies=self.cookies, timeout=PATIENCE, follow_redirects=True
        )
        self.cookies = self.client.cookies
        self._config: dict[str, Any] = {}
        self._heartbeats: list[tuple[httpx.Response, Iterator[str]]] = []

    def load(self) -> Tab:
        """Get the page, with its cookie, and open its heartbeat, as a browser does."""
        self.get("/").raise_for_status()
        return self.beat()

    def get(self, path: str) -> httpx.Response:
        return self.client.get(self.url + path)

    def log_in(self, name: str, password: str) -> Tab:
        form = {"username": name, "password": password}
        self.client.post(f"{self.url}/login", data=form).raise_for_status()
        return self

    def beat(self) -> Tab:
        """Open a heartbeat, and return when the server has answered it."""
        request = self.client.build_request("GET", self.api(f"heartbeat/{self.session_hash}"))
        response = self.client.send(request, stream=True)
        lines = response.iter_lines()  # when it is collected, the connection closes
        assert next(lines) == "data: ALIVE"
        self._heartbeats.append((response, lines))
        return self

    def close(self) -> None:
        """Close the page's oldest heartbeat that is open, and return when the server knows."""
        response, _ = self._heartbeats.pop(0)
        response.close()
        assert self.over.acquire(timeout=PATIENCE)

    def leave(self) -> None:
        """Close everything."""
        while self._heartbeats:
            self.close()
        self.client.close()

    def call(self, name: str, *data: Any) -> Any:
        """Run the demo's function of that ``api_name``; gives its first output."""
        self.join(name, *data)
        return self.result()

    def join(self, name: str, *data: Any) -> None:
        """Put an event into the queue, and do not wait for it."""
        body = {
            "data": data,
            "fn_index": self._fn_index(name),
            "session_hash": self.session_hash,
        }
        self.client.post(self.api("queue/join"), json=body).raise_for_status()

    def result(self) -> Any:
        """The first output of the event that was joined. Raises RuntimeError when it failed."""
        params = {"session_hash": self.session_hash}
        deadline = time.monotonic() + PATIENCE  # the client's own begins anew at each heartbeat
        with self.client.stream("GET", self.api("queue/data"), params=params) as response:
            for line in response.iter_lines():
                assert time.monotonic() < deadline, "The event does not end."
                message = json.loads(line.removeprefix("data:")) if line else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(message["output"]["error"])
                    return message["output"]["data"][0]
        raise AssertionError("The server closed the queue without a result.")

    def fetch(self, file: Any, **headers: str) -> httpx.Response:
        """Download an output file."""
        return self.client.get(self.api(f"file={file['path']}"), headers=headers)

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Upload a file; gives it as an input of an event."""
        response = self.client.post(self.api("upload"), files={"files": (name, content)})
        return {
            "path": response.raise_for_status().json()[0],
            "meta": {"_type": "gradio.FileData"},
        }

    def api(self, path: str) -> str:
        return f"{self.url}/gradio_api/{path}"

    def _fn_index(self, name: str) -> int:
        self._config = self._config or self.get("/config").raise_for_status().json()
        found = {each["api_name"]: each["id"] for each in self._config["dependencies"]}
        return int(found[name])


def save(name: str, request: gr.Request) -> str:
    return str(session(request).put(name, name.encode()).local_path())


async def save_async(name: str, request: gr.Request) -> str:
    return (await session(request).put_async(name, name.encode())).name


def save_each(names: str, request: gr.Request) -> Iterator[str]:
    for name in names.split():
        yield session(request).put(name, name.encode()).name


async def save_each_async(names: str, request: gr.Request) -> AsyncIterator[str]:
    for name in names.split():
        yield (await session(request).put_async(name, name.encode())).name


def names(request: gr.Request) -> str:
    """What the visitor sees of the store."""
    return " ".join(file.name for file in session(request).files())


def picture(colour: str, request: gr.Request) -> str:
    image = Image.new("RGB", (8, 8), colour)
    return str(session(request).add(image, ".webp").local_path())


def pictures(colour: str, request: gr.Request) -> list[str]:
    return [picture(colour, request)]


@dataclass
class Site:
    """A store, and a demo whose handlers use the visitor's session in every way they are called."""

    store: SessionStore
    clock: FakeClock
    cache: Path
    stack: ExitStack
    over: threading.Semaphore
    demo: gr.Blocks = field(init=False)
    begun: threading.Event = field(default_factory=threading.Event)
    """Set when ``save_slowly`` runs, which then waits for ``go_on``."""
    go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        with gr.Blocks() as self.demo:
            text = gr.Textbox()
            for fn in (save_async, save_each, save_each_async, self.save_slowly):
                gr.on(fn=fn, inputs=text, outputs=text, api_name=fn.__name__)
            gr.on(fn=names, outputs=text, api_name="names")
            gr.on(fn=save, inputs=text, outputs=gr.File(), api_name="save")
            gr.on(fn=picture, inputs=text, outputs=gr.Image(), api_name="picture")
            gr.on(fn=pictures, inputs=text, outputs=gr.Gallery(), api_name="pictures")

    def save_slowly(self, name: str, request: gr.Request) -> str:
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        return session(request).put(name, name.encode()).name

    def attach(self) -> Attachment:
        attachment = attach(self.demo, self.store)
        self.stack.callback(attachment.detach)
        return attachment

    def serve(self, how: str = "launch", **options: Any) -> str:
        self.attach()
        return self.stack.enter_context(SERVED[how](self.demo, **options))

    def tab(self, url: str, **options: Any) -> Tab:
        """A tab that is closed before the server is, which otherwise would wait for it."""
        tab = Tab(url, over=self.over, **options)
        self.stack.callback(tab.leave)
        return tab

    def files(self) -> dict[str, list[str]]:
        """The names of the files in the store, by session id."""
        return {each.id: [file.name for file in each.files()] for each in self.store.sessions()}


MakeSite = Callable[..., Site]


def seen_to_end(patch: pytest.MonkeyPatch) -> threading.Semaphore:
    """A semaphore that is released when the middleware has seen a heartbeat to its end."""
    over = threading.Semaphore(0)
    original = _Heartbeat.follow

    async def follow(self: _Heartbeat, app: Any) -> None:
        try:
            await original(self, app)
        finally:
            if type(self) is _Heartbeat:
                over.release()

    patch.setattr(_Heartbeat, "follow", follow)
    return over


@contextlib.contextmanager
def sites(cache: Path) -> Iterator[MakeSite]:
    """Makes sites that share a cache of Gradio's; keywords are the store's retention."""
    with closed_loops(), pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("GRADIO_TEMP_DIR", str(cache))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        over = seen_to_end(patch)

        def make(url: str = "memory://", **retention: Any) -> Site:
            clock = FakeClock()
            kept = Retention(**{"linger": LINGER, **retention})
            store = stack.enter_context(SessionStore.open(url, clock=clock, retention=kept))
            return Site(store, clock, cache, stack, over)

        yield make


class Heard:
    """What a store told, in order, across threads."""

    def __init__(self, store: SessionStore, *kinds: str) -> None:
        self._events: queue.Queue[Event] = queue.Queue()
        self.listen(store, *kinds)

    def listen(self, store: SessionStore, *kinds: str) -> None:
        """Hear of these too; which replica drops a session, say, is anybody's guess."""
        for kind in kinds:
            store.on(kind, self._events.put)

    def next(self) -> Event:
        """The next event, waited for."""
        return self._events.get(timeout=PATIENCE)

    def all(self) -> list[Event]:
        """The events nobody has asked for yet."""
        return [self._events.get_nowait() for _ in range(self._events.qsize())]


@dataclass
class Replica:
    """One of several processes with one store, as it were: a demo, a store object, a server."""

    store: SessionStore
    clock: FakeClock
    cache: Path
    attachment: Attachment
    url: str
    stack: ExitStack
    over: threading.Semaphore
    seconds: list[float]

    def tab(self, **options: Any) -> Tab:
        """A tab that is closed before the server is, which otherwise would wait for it."""
        tab = Tab(self.url, over=self.over, **options)
        self.stack.callback(tab.leave)
        return tab

    def same(self, tab: Tab) -> Tab:
        """The same visitor with the same session, whose requests come here."""
        return self.tab(session_hash=tab.session_hash, cookies=tab.cookies, headers=tab.headers)

    def lose_disk(self) -> None:
        """Empty Gradio's cache, which the replicas of one test have on one disk."""
        self.rest()
        until(self._is_emptied)

    def _is_emptied(self) -> bool:
        """Remove everything; False if something of it went meanwhile, or came."""
        try:
            for entry in self.cache.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        except OSError:
            return False
        return True

    def rest(self) -> None:
        """Wait for what follows an answer: the end of the event, and calls made later."""
        service = self.attachment.service
        present = service.presences._visitors
        until(lambda: not any(each.running or each.scheduled for each in [*present.values()]))
        service.files.drain()

    def look_again(self) -> None:
        """Let the time pass for which what was seen of the store is believed."""
        self.rest()
        self.seconds[0] += RECHECK


def until(condition: Callable[[], bool]) -> None:
    """Wait until the server has done what it does after its answer."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # it is another thread, and there is no event


MakeReplicas = Callable[..., Replica]


@contextlib.contextmanager
def replicas(directory: Path) -> Iterator[MakeReplicas]:
    """Makes replicas with one store, on one local root unless a URL is given."""
    with closed_loops(), pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        cache = directory / "cache"
        patch.setenv("GRADIO_TEMP_DIR", str(cache))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        over = seen_to_end(patch)
        clock = FakeClock()

        def make(
            demo: Callable[[], gr.Blocks],
            *,
            url: str = (directory / "store").as_uri(),
            how: str = "launch",
            retention: dict[str, Any] | None = None,
            limits: Limits | None = None,
            options: dict[str, Any] | None = None,
            **serving: Any,
        ) -> Replica:
            kept = Retention(**{"linger": LINGER, **(retention or {})})
            store = stack.enter_context(
                SessionStore.open(url, clock=clock, retention=kept, limits=limits)
            )
            built = demo()
            attachment = attach(built, store, **(options or {}))
            stack.callback(attachment.detach)
            seconds = [0.0]
            files = attachment.service.files
            files.seen.seconds = files.recent.seconds = lambda: seconds[0]
            served = stack.enter_context(SERVED[how](built, **serving))
            return Replica(store, clock, cache, attachment, served, stack, over, seconds)

        yield make
