"""Measure an attached Gradio app on a bucket across a network, beside the same app without.

    python -m benchmarks.latency_gradio [--rtt 50] [--engine boto3 obstore] [--rows TEXT ...]
                                        [--rounds 9] [--film 64] [--mbit 1000]

A figure is the median of the time of a request of the visitor with ``attach`` minus the median
without, in round trips (RTT) between the app and the bucket (``benchmarks.latency``). The
visitor is beside the app, and has a session with a file. Each attached app has a second replica
with the same paths on another disk, for which this needs root.

``--film`` is the size of a download in MiB. Its rate from the second replica is beside that of a
GET of the same object by the bare library, across the same network. All of this runs on this
machine, so without ``--mbit`` (megabits a second of a connection) processors decide that rate.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import math
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
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
from benchmarks.objects import bare_client, bare_store
from benchmarks.report import machine
from sessionstore import SessionStore
from sessionstore.adapters.gradio import attach, session
from tests.replicas.site import namespaces
from tests.support import seaweed
from tests.support.ports import free_port

SIZE = 10 << 10
MIB = 1 << 20
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


def film_in(directory: Path, size: int) -> str:
    """Return the path of a file of ``size`` MiB, which is written by the first call."""
    path, block = directory / f"{size}.mp4", os.urandom(MIB)
    if not path.exists():
        with path.open("wb") as file:
            file.writelines(block for _ in range(size))
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

    def film(size: str) -> str:
        return film_in(directory, int(size))

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
            (film, [text], gr.File()),
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
        yield Served(side, disk or directory, process, address)
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
    film: int
    """The size of a large file in MiB."""

    @classmethod
    @contextlib.contextmanager
    def of(cls, here: Served, other: Served, film: int) -> Iterator[Visitor]:
        """A visitor who has a page, with its heartbeat, and a session with a file."""
        visitor = cls(here, other, secrets.token_hex(5), film)
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

    def path(self, event: str = "image", *data: Any) -> str:
        """Return the path of the URL of a new file: an image, or that of another event."""
        return httpx.URL(self.call(event, *data)["url"]).raw_path.decode()

    def new_film(self) -> str:
        """Return the path of the film of a new visitor, which ``other`` has never seen.

        The disk has then all that was written for it.
        """
        self.id = secrets.token_hex(5)
        self.here.client.cookies.clear()
        self.here.client.get(f"{self.here.url}/app/").raise_for_status()
        path = self.path("film", str(self.film))
        while list(self.other.directory.parent.glob("*/cache/*/.*.new")):
            time.sleep(0.1)  # a replica fetches the rest of the film before
        if self.other is not self.here:
            for copy in self.other.directory.glob("cache/*/*.mp4"):
                copy.unlink()
        os.sync()
        return path

    def download(self, path: str) -> None:
        """Get a film from ``other``, with little work for each byte."""
        url = httpx.URL(self.other.url)
        with closing(http.client.HTTPConnection(url.host, url.port)) as connection:
            cookies = "; ".join(f"{it.name}={it.value}" for it in self.here.client.cookies.jar)
            connection.request("GET", path, headers={"cookie": cookies})
            size = read_all(connection.getresponse())
        if size != self.film * MIB:
            raise RuntimeError(f"The download ended after {size} bytes.")

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
    path = visitor.new_film()

    def run() -> None:
        url = f"{visitor.other.url}{path}"
        with visitor.here.client.stream("GET", url) as response:
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
    "first byte of a film from a replica without it": _begin_elsewhere,
}
DOWNLOAD = "download of a film from a replica without it"


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


# Rates


def read_all(stream: Any) -> int:
    """Read a stream to its end in pieces of 1 MiB; return the number of bytes."""
    return sum(map(len, iter(lambda: stream.read(MIB), b"")))


def bare(engine: str, endpoint: str, key: str) -> Callable[[], int]:
    """Return a call that reads an object by the bare library of an engine."""
    if engine == "boto3":
        client = bare_client(endpoint)
        return lambda: read_all(client.get_object(Bucket=seaweed.BUCKET, Key=key)["Body"])
    import obstore

    store = bare_store(endpoint)
    return lambda: sum(map(len, obstore.get(store, key).stream(min_chunk_size=MIB)))


def rates(visitors: dict[str, Visitor], endpoint: str, rounds: int) -> str:
    """Return a table of the rates of downloads, in turn; the first round warms up."""
    sizes: dict[str, list[tuple[float, float]]] = {engine: [] for engine in visitors}
    with closing(bare_client(endpoint)) as client:
        pages = client.get_paginator("list_objects_v2")
        for _ in range(rounds + 1):
            for engine, visitor in visitors.items():
                path = visitor.new_film()
                found = pages.paginate(Bucket=seaweed.BUCKET, Prefix=f"gradio-{engine}/b/")
                objects = [it for page in found for it in page["Contents"]]
                newest = max(objects, key=lambda it: (it["Size"], it["LastModified"]))
                direct = seconds(bare(engine, endpoint, newest["Key"]))
                ours = seconds(partial(visitor.download, path))
                sizes[engine].append((ours, direct))
                sys.stderr.write(f"{DOWNLOAD}: {engine} {ours:.2f} s, bare {direct:.2f} s\n")
    lines = [f"| {' | '.join(['', *visitors])} |", f"|---|{'---:|' * len(visitors)}"]
    megabytes = next(iter(visitors.values())).film * MIB / 1e6
    for what, value in (
        (f"{DOWNLOAD}, MB/s", lambda ours, _: f"{megabytes / ours:.0f}"),
        (
            "GET of the same by the bare library, MB/s",
            lambda _, direct: f"{megabytes / direct:.0f}",
        ),
        ("ratio", lambda ours, direct: f"{direct / ours:.2f}"),
    ):
        medians = [map(statistics.median, zip(*each[1:], strict=True)) for each in sizes.values()]
        lines.append(f"| {' | '.join([what, *(value(*each) for each in medians)])} |")
    return "\n".join(lines)


def report(endpoint: str, milliseconds: float, asked: argparse.Namespace) -> str:
    """Measure at one distance; return a table."""
    rows = [row for row in ROWS if not asked.rows or any(it in row for it in asked.rows)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        there = opened.enter_context(far(endpoint, milliseconds, asked.mbit))

        plain = opened.enter_context(running(PLAIN, Path(folder, PLAIN)))
        visitors = {PLAIN: opened.enter_context(Visitor.of(plain, plain, asked.film))}
        for engine in asked.engine:
            url = f"s3://{seaweed.BUCKET}/gradio-{engine}/?endpoint_url={there}&engine={engine}"
            place, disk = Path(folder, engine), Path(folder, f"{engine}-2")
            here = opened.enter_context(running(engine, place, url))
            other = opened.enter_context(running(engine, place, url, disk))
            visitors[engine] = opened.enter_context(Visitor.of(here, other, asked.film))
        found = list(measure(visitors, rows, asked.rounds))
        downloads = ""
        if not asked.rows or any(it in DOWNLOAD for it in asked.rows):
            del visitors[PLAIN]
            downloads = f"\n{rates(visitors, there, asked.rounds)}\n"
    title = (
        f"### Latency of Gradio: {milliseconds:g} ms of round trip, attached minus plain, in RTT"
    )
    latencies = f"\n{table(found, milliseconds / 1000)}\n" if found else ""
    return f"{title}\n{latencies}{downloads}"


def main() -> None:
    """Measure and print, or serve."""
    arguments = parser(__doc__)
    arguments.add_argument("--film", type=int, default=64, help="size of a large file in MiB")
    arguments.add_argument("--mbit", type=float, default=math.inf, help="of the network")
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
