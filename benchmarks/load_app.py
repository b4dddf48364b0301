"""The app that ``benchmarks.load`` serves, plain or attached, with a watch on its event loop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import hashlib
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Final

import fastapi
import gradio as gr
import uvicorn
from PIL import Image

import sessionstore
from sessionstore import Retention, SessionStore
from sessionstore.adapters.gradio import attach

LINGER: Final = timedelta(seconds=5)
SECRET: Final = "only-for-a-benchmark-on-this-machine"

STALLS: Final = ("any", "ours", "our CPU")

_LONG: Final = 0.02
"""Seconds from which on a callback of the loop is looked at."""

_LOOK: Final = 0.01

_OURS: Final = str(Path(sessionstore.__file__).parent)
_BACKENDS: Final = str(Path(sessionstore.__file__).parents[1] / "backends")


def app() -> gr.Blocks:
    """Return a demo with one event: it makes a picture of the uploaded file."""

    def paint(path: str) -> Image.Image:
        digest = hashlib.sha256(Path(path).read_bytes()).digest()
        return Image.frombytes("RGB", (4, 2), digest[:24]).resize((256, 256))

    demo: gr.Blocks
    with gr.Blocks() as demo:
        gr.on(
            fn=paint, inputs=gr.File(), outputs=gr.Image(), api_name="paint", concurrency_limit=40
        )
    return demo


class Watch:
    """The longest callbacks of the event loop, and whose code they ran.

    A thread looks at the stack of the loop's thread while a callback takes long. The innermost
    frame of this package or of Gradio and its libraries says whose time it is. Garbage collections
    count for neither: one of all objects takes 0.25 s, in whichever thread it is due, and no other
    thread runs meanwhile. On a machine with other work the loop also waits for a processor, so the
    CPU time of our part stands beside.
    """

    def __init__(self) -> None:
        self.begin()
        self._thread = 0
        self._began: float | None = None
        self._collecting = False
        self._collection_began = (0.0, 0.0)
        self._collected_for = [0.0, 0.0]
        """Seconds of garbage collections: by the clock, and of CPU of the loop's thread."""
        self._seen: Counter[bool] = Counter()

    def begin(self) -> None:
        """Forget what was seen so far."""
        self.longest = dict.fromkeys(STALLS, 0.0)
        """Seconds: of one callback, and of the part of one that ran code of ours."""
        self.places: Counter[str] = Counter()
        """The lines of ours at which it was seen."""

    def install(self) -> None:
        """Watch the loop of this thread from now on."""
        self._thread = threading.get_ident()
        handles: Any = asyncio.events.Handle
        run: Callable[[Any], None] = handles._run  # noqa: SLF001 - no public hook

        def timed(handle: Any) -> None:
            if threading.get_ident() != self._thread:
                run(handle)
                return
            cpu, before = time.thread_time(), list(self._collected_for)
            self._began = began = time.perf_counter()
            run(handle)
            self._began = None
            gone = [now - then for now, then in zip(self._collected_for, before, strict=True)]
            took = time.perf_counter() - began
            self._note(took, took - gone[0], time.thread_time() - cpu - gone[1])

        handles._run = timed  # noqa: SLF001 - as above
        gc.callbacks.append(self._collected)
        threading.Thread(target=self._look, daemon=True).start()

    def _collected(self, phase: str, _: object) -> None:
        """Sum up garbage collections, which happen wherever a thread is."""
        self._collecting = phase == "start"
        times = time.perf_counter(), time.thread_time()
        if self._collecting:
            self._collection_began = times
            return
        self._collected_for[0] += times[0] - self._collection_began[0]
        if threading.get_ident() == self._thread:
            self._collected_for[1] += times[1] - self._collection_began[1]

    def _note(self, took: float, without: float, cpu: float) -> None:
        if took > _LONG:
            seen, self._seen = self._seen, Counter()
            share = seen[True] / max(seen.total(), 1)
            for name, value in zip(STALLS, (took, without * share, cpu * share), strict=True):
                self.longest[name] = max(self.longest[name], value)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK)
            began = self._began
            is_long = began is not None and time.perf_counter() - began > _LONG / 2
            if is_long and not self._collecting:
                frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - documented
                place = _innermost(frame)
                self._seen[place is not None] += 1
                if place is not None:
                    self.places[place] += 1


def _innermost(frame: FrameType | None) -> str | None:
    """Return the place of ours that runs; None if the code of another package does."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith((_OURS, _BACKENDS)):
            return f"{Path(file).name}:{frame.f_lineno} {frame.f_code.co_name}"
        if "site-packages" in file:
            return None
        frame = frame.f_back
    return None


def count_requests(store: SessionStore) -> Counter[str]:
    """Return a counter of the requests of the store's client, by verb, from now on."""
    counted: Counter[str] = Counter()
    client = getattr(store.backend, "client", None)

    def counting(verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            if verb != "list":
                counted[verb] += 1
            return pages(result) if verb == "list" else result

        return call

    def pages(listing: Iterator[Any]) -> Iterator[Any]:
        for page in listing:
            counted["list"] += 1
            yield page

    if client is not None:
        for verb in ("put", "get", "list", "delete"):  # no file is large here
            setattr(type(client), verb, counting(verb, getattr(type(client), verb)))
    return counted


def serve(port: int, url: str | None) -> None:
    """Serve the app, attached to the store at ``url`` if there is one."""
    watch = Watch()
    left: list[float] = []
    counted: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        watch.install()
        yield

    served = fastapi.FastAPI(lifespan=lifespan)
    served.post("/begin")(watch.begin)

    @served.get("/figures")
    def figures() -> dict[str, Any]:
        return {
            "requests": counted.total(), "dropped": left, "stalls": watch.longest,
            "places": watch.places.most_common(5),
        }  # fmt: skip

    demo = app()
    if url is not None:
        store = SessionStore.open(url, retention=Retention(linger=LINGER), secret=SECRET)
        counted = count_requests(store)
        store.on("dropped", lambda _: left.append(time.time()))
        attach(demo, store)
    gr.mount_gradio_app(served, demo, path="/app")
    uvicorn.run(served, host="127.0.0.1", port=port, log_level="error", loop="asyncio")


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url")
    asked = parser.parse_args()
    serve(asked.port, asked.url)


if __name__ == "__main__":
    main()
