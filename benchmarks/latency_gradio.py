"""Measure an attached Gradio app on a bucket across a network, beside the same app without.

    python -m benchmarks.latency_gradio [--rtt 50] [--engine boto3 obstore] [--rows TEXT ...]
                                        [--rounds 9]

A figure is the median of the time of a request of the visitor with ``attach`` minus the median
without, in round trips (RTT) between the app and the bucket (``benchmarks.latency``). The
visitor is beside the app, and has a session with a file. Each attached app has a second replica
with the same paths on another disk, for which this needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import httpx
import uvicorn
from PIL import Image

from benchmarks import peers
from benchmarks.attach import Served
from benchmarks.harness import Run
from benchmarks.latency import Found, far, parser, seconds, serving, table
from benchmarks.report import machine
from sessionstore import SessionStore
from sessionstore.adapters.gradio import attach, session
from tests.conftest import free_port
from tests.replicas.site import namespaces
from tests.support import seaweed

SIZE = 10 << 10
LARGE = 64 << 20
SECRET = "only-for-a-benchmark-on-this-machine"
PLAIN = "plain"
LATER = 3.2
"""Seconds after which a replica checks a file again."""


# The app


def picture() -> Image.Image:
    """Return an image of 10 KB that was never there before."""
    return Image.frombytes("RGB", (60, 57), os.urandom(60 * 57 * 3))


def file_in(directory: Path, size: int, suffix: str) -> str:
    """Write a new file of random bytes; return its path."""
    path = directory / f"{secrets.token_hex(8)}{suffix}"
    path.write_bytes(os.urandom(size))
    return str(path)


def event(text: str) -> str:
    """Return the text."""
    return text


def take(files: list[str]) -> str:
    """Return the size of the files."""
    return str(sum(Path(file).stat().st_size for file in files))


def app(directory: Path, *, attached: bool) -> gr.Blocks:
    """Return the app; each function is an event by its name."""

    def image() -> Image.Image:
        return picture()

    def gallery() -> list[Image.Image]:
        return [picture() for _ in range(10)]

    def frames() -> Iterator[Image.Image]:
        for _ in range(5):
            yield picture()

    def film() -> str:
        return file_in(directory, LARGE, ".mp4")

    def own(request: gr.Request) -> Any:
        if attached:
            return session(request).add(os.urandom(SIZE), ".bin")
        return file_in(directory, SIZE, ".bin")

    demo: gr.Blocks
    with gr.Blocks() as demo:
        text, files = gr.Textbox(), gr.File(file_count="multiple")
        for function, inputs, output in (
            (event, [text], text),
            (image, [], gr.Image(format="png")),
            (gallery, [], gr.Gallery(format="png")),
            (frames, [], gr.Image(format="png")),
            (take, [files], text),
            (own, [], gr.File()),
            (film, [], gr.File()),
        ):
            made: Any = function
            gr.on(fn=made, inputs=inputs, outputs=output, api_name=made.__name__)
    return demo


def serve(port: int, directory: Path, url: str | None) -> None:
    """Serve the app, attached to the store at ``url`` if there is one."""
    demo = app(directory, attached=url is not None)
    if url is not None:
        attach(demo, SessionStore.open(url, secret=SECRET))
    served = gr.mount_gradio_app(
        fastapi.FastAPI(), demo, path="/app", allowed_paths=[str(directory)]
    )
    served.get("/stall")(lambda: 0)
    uvicorn.run(served, host="127.0.0.1", port=port, log_level="error")


_MOUNT = 'mount --bind "$0" "$1" && shift && exec "$@"'


@contextlib.contextmanager
def running(
    side: str, directory: Path, url: str | None = None, disk: Path | None = None
) -> Iterator[Served]:
    """The app in a process of its own, with its files in ``directory``, or on a ``disk`` there."""
    (disk or directory).mkdir()
    port = free_port()
    environment = {
        **os.environ,
        "GRADIO_TEMP_DIR": str(directory / "cache"),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    command = [
        sys.executable, "-m", "benchmarks.latency_gradio", "--port", str(port),
        "--directory", str(directory), *(["--url", url] if url else []),
    ]  # fmt: skip
    if disk is not None:
        command = [*(namespaces() or []), "sh", "-c", _MOUNT, str(disk), str(directory), *command]
    process = subprocess.Popen(command, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(httpx.ConnectError):
                httpx.get(f"{address}/stall")
                break
            if process.poll() is not None:
                raise RuntimeError("The server did not start.")
            time.sleep(0.1)
        yield Served(side, directory, process, address)
    finally:
        process.terminate()
        process.wait()


# The rows


@dataclass
class Visitor:
    """A visitor of ``here``, and of ``other``, its second replica; without a store the same."""

    here: Served
    other: Served
    id: str

    @classmethod
    @contextlib.contextmanager
    def of(cls, here: Served, other: Served) -> Iterator[Visitor]:
        """A visitor who has a page, with its heartbeat, and a session with a file."""
        visitor = cls(here, other, secrets.token_hex(5))
        here.client.cookies.clear()  # the cookie of a program came with the config
        here.client.headers["user-agent"] = "Mozilla/5.0"
        here.client.get(f"{here.url}/app/").raise_for_status()
        visitor.call("image")
        heartbeat = f"{here.url}/app/gradio_api/heartbeat/{visitor.id}"
        with here.client.stream("GET", heartbeat) as response:
            lines = response.iter_lines()
            next(lines)
            yield visitor

    def call(self, name: str, *data: Any) -> Any:
        """Send an event; return the first value of the last answer."""
        return self.here.call(name, self.id, *data)[0]

    def upload(self, count: int) -> list[dict[str, Any]]:
        """Upload new files in one request; return them as an input."""
        files = [("files", (f"{n}.bin", os.urandom(SIZE))) for n in range(count)]
        response = self.here.client.post(f"{self.here.url}/app/gradio_api/upload", files=files)
        kind = {"_type": "gradio.FileData"}
        return [{"path": path, "meta": kind} for path in response.raise_for_status().json()]

    def path(self, event: str = "image") -> str:
        """Return the path of the URL of a new file: an image, or that of another event."""
        return httpx.URL(self.call(event)["url"]).raw_path.decode()

    def fetch(self, server: Served, path: str) -> None:
        """Get a file from one of the replicas."""
        self.here.client.get(f"{server.url}{path}").raise_for_status()


def _event(name: str, *data: Any) -> Callable[[Visitor], Run]:
    return lambda visitor: lambda: visitor.call(name, *data)


def _upload(count: int) -> Callable[[Visitor], Run]:
    return lambda visitor: lambda: visitor.upload(count)


def _upload_and_event(count: int) -> Callable[[Visitor], Run]:
    return lambda visitor: lambda: visitor.call("take", visitor.upload(count))


def _fetch(visitor: Visitor) -> Run:
    path = visitor.path()
    return lambda: visitor.fetch(visitor.here, path)


def _fetch_later(visitor: Visitor) -> Run:
    run = _fetch(visitor)
    time.sleep(LATER)
    return run


def _fetch_elsewhere(visitor: Visitor) -> Run:
    path = visitor.path()
    return lambda: visitor.fetch(visitor.other, path)


def _begin_elsewhere(visitor: Visitor) -> Run:
    path = visitor.path("film")

    def run() -> None:
        wanted = {"range": "bytes=0-"}  # as a player asks for a video
        url = f"{visitor.other.url}{path}"
        with visitor.here.client.stream("GET", url, headers=wanted) as response:
            next(response.raise_for_status().iter_bytes())

    return run


ROWS: dict[str, Callable[[Visitor], Run]] = {
    "event without files": _event("event", "text"),
    "image out": _event("image"),
    "gallery of 10 out": _event("gallery"),
    "5 frames of a generator": _event("frames"),
    "upload of 1": _upload(1),
    "upload of 10": _upload(10),
    "upload of 1 and the event with it": _upload_and_event(1),
    "upload of 10 and the event with them": _upload_and_event(10),
    "own file: session(request).add()": _event("own"),
    "fetch of what was just made": _fetch,
    "fetch 3 s later": _fetch_later,
    "fetch from a replica without it": _fetch_elsewhere,
    "first byte of 64 MiB from a replica without it": _begin_elsewhere,
}


def measure(visitors: dict[str, Visitor], rows: Sequence[str], rounds: int) -> Iterator[Found]:
    """Yield the median of each row by each visitor, in turn; the first round warms up."""
    for what in rows:
        took: dict[str, list[float]] = {side: [] for side in visitors}
        for _ in range(rounds + 1):
            for side, visitor in visitors.items():
                took[side].append(seconds(ROWS[what](visitor)))
        medians = {side: statistics.median(each[1:]) for side, each in took.items()}
        plain = medians.pop(PLAIN)
        yield from (Found(what, side, median - plain) for side, median in medians.items())
        sys.stderr.write(f"{what}: {plain * 1000:.0f} ms without, {medians}\n")


def report(endpoint: str, milliseconds: float, asked: argparse.Namespace) -> str:
    """Measure at one distance; return a table."""
    rows = [row for row in ROWS if not asked.rows or any(it in row for it in asked.rows)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        there = opened.enter_context(far(endpoint, milliseconds))

        plain = opened.enter_context(running(PLAIN, Path(folder, PLAIN)))
        visitors = {PLAIN: opened.enter_context(Visitor.of(plain, plain))}
        for engine in asked.engine:
            url = f"s3://{seaweed.BUCKET}/gradio-{engine}/?endpoint_url={there}&engine={engine}"
            place, disk = Path(folder, engine), Path(folder, f"{engine}-2")
            here = opened.enter_context(running(engine, place, url))
            other = opened.enter_context(running(engine, place, url, disk))
            visitors[engine] = opened.enter_context(Visitor.of(here, other))
        found = list(measure(visitors, rows, asked.rounds))
    title = (
        f"### Latency of Gradio: {milliseconds:g} ms of round trip, attached minus plain, in RTT"
    )
    return f"{title}\n\n{table(found, milliseconds / 1000)}\n"


def main() -> None:
    """Measure and print, or serve."""
    arguments = parser(__doc__)
    arguments.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--url", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.port:
        serve(asked.port, asked.directory, asked.url)
        return
    with serving(https=asked.tls) as endpoint:
        for milliseconds in asked.rtt:
            sys.stdout.write(f"{report(endpoint, milliseconds, asked)}\n")
            sys.stdout.flush()
    versions = ", ".join(peers.name(each, "") for each in ("gradio", "boto3", "obstore"))
    sys.stdout.write(f"Medians of {asked.rounds} rounds; {versions}; {machine()}.\n")


if __name__ == "__main__":
    main()
