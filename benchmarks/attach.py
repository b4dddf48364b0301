"""What an attached app costs beside the same app without: CPU of a click, stalls of the event loop.

``python -m benchmarks.attach [--clicks 200] [--rounds 5] [--megabytes 1500]`` prints two tables.

The click is that of the demo in Gradio's guide on cleaning up: an image is made and kept, and all
images of the visitor are shown again. The stall is the longest time for which a task that asks to
be woken every 5 ms was not, while a handler returns a large file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import httpx
import uvicorn
from PIL import Image

from sessionstore import SessionStore
from sessionstore.adapters.gradio import attach

CLICKS = 10
"""Clicks of one visitor, who has a heartbeat and a cookie."""

COLOURS = ("red", "green", "blue", "orange", "yellow", "purple")
TICK = 0.005
SIDES = ("plain", "attached")


# The app


def guide(directory: Path) -> gr.Blocks:
    """The guide's demo."""

    def generate(history: list[Image.Image], request: gr.Request) -> tuple[Any, Any, Any]:
        image = Image.new("RGB", (256, 256), random.choice(COLOURS))
        folder = directory / str(request.session_hash)
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{secrets.token_urlsafe(8)}.webp")
        history.append(image)
        return image, history, history

    def big() -> str:
        return str(directory / "big.bin")

    demo: gr.Blocks
    with gr.Blocks() as demo:
        state = gr.State([])
        outputs = [gr.Image(), state, gr.Gallery(columns=10)]
        gr.on(fn=generate, inputs=state, outputs=outputs, api_name="generate")
        gr.on(fn=big, outputs=gr.File(), api_name="big")
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.File(), api_name="echo")
    return demo


class Ticker:
    """The longest time between two wakings of a task on the event loop."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Tick for ever."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - TICK)
            last = now

    def read(self) -> float:
        """The longest since it was last read, in seconds."""
        longest, self.longest = self.longest, 0.0
        return longest


def serve(side: str, port: int, directory: Path) -> None:
    """Serve the app, attached or not."""
    ticker = Ticker()

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(ticker.run())
        yield
        task.cancel()

    app = fastapi.FastAPI(lifespan=lifespan)
    app.get("/stall")(ticker.read)
    demo = guide(directory)
    if side == "attached":
        attach(demo, SessionStore.open(directory / "store"))
    gr.mount_gradio_app(app, demo, path="/app", allowed_paths=[str(directory)])
    uvicorn.run(app, port=port, log_level="error")


# The other side


@dataclass
class Served:
    """A process that serves the app, and visitors who use it."""

    side: str
    directory: Path
    process: subprocess.Popen[bytes]
    url: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=120))

    def __post_init__(self) -> None:
        config = self.client.get(f"{self.url}/app/config").raise_for_status().json()
        self._ids = {each["api_name"]: each["id"] for each in config["dependencies"]}

    def cpu_seconds(self) -> float:
        """What the process has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stall(self) -> float:
        """The longest stall since it was last asked, in seconds."""
        return float(self.client.get(f"{self.url}/stall").text)

    def call(self, name: str, session_hash: str, *data: Any) -> list[Any]:
        """Send one event; return the values of its last answer."""
        api = f"{self.url}/app/gradio_api"
        body = {"data": data, "fn_index": self._ids[name], "session_hash": session_hash}
        self.client.post(f"{api}/queue/join", json=body).raise_for_status()
        params = {"session_hash": session_hash}
        with self.client.stream("GET", f"{api}/queue/data", params=params) as response:
            for line in response.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(message["output"])
                    values: list[Any] = message["output"]["data"]
                    return values
        raise RuntimeError(f"The stream ended before the event {name!r} did.")


@contextlib.contextmanager
def served(side: str, directory: Path) -> Iterator[Served]:
    """A process of its own, with a cache of its own."""
    directory.mkdir()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environment = {
        **os.environ,
        "GRADIO_TEMP_DIR": str(directory / "cache"),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    command = [
        sys.executable, "-m", "benchmarks.attach", "--serve", side, "--port", str(port),
        "--directory", str(directory),
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(httpx.ConnectError):
                httpx.get(f"{url}/stall")
                break
            if process.poll() is not None:
                raise RuntimeError("The server did not start.")
            time.sleep(0.1)
        yield Served(side, directory, process, url)
    finally:
        process.terminate()
        process.wait()


def clicks(server: Served, count: int) -> float:
    """CPU milliseconds of one click, of visitors who click ten times each."""
    before = server.cpu_seconds()
    for first in range(0, count, CLICKS):
        visitor = f"visitor-{before}-{first}"
        heartbeat = f"{server.url}/app/gradio_api/heartbeat/{visitor}"
        with server.client.stream("GET", heartbeat) as response:
            next(response.iter_lines())
            for _ in range(CLICKS):
                server.call("generate", visitor, None)
    return (server.cpu_seconds() - before) / count * 1000


def stall(server: Served, megabytes: int) -> tuple[float, float]:
    """Milliseconds of the longest stall, and seconds of the whole call, of a file never seen."""
    path = server.directory / "big.bin"
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
    server.stall()
    began = time.perf_counter()
    server.call("big", "big-file")
    took = time.perf_counter() - began
    return server.stall() * 1000, took


def main() -> None:
    """Measure and print, or serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attach")
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1500)
    parser.add_argument("--directory", type=Path, help="where to write (a temporary directory)")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.port, asked.directory)
        return
    with (
        tempfile.TemporaryDirectory(dir=asked.directory) as folder,
        served("plain", Path(folder, "plain")) as plain,
        served("attached", Path(folder, "attached")) as attached,
    ):
        _report(plain, attached, asked)


def _report(plain: Served, attached: Served, asked: argparse.Namespace) -> None:
    rounds = []
    for number in range(asked.rounds + 1):
        # Who goes first changes; the first round, which warms up, is thrown away.
        order = (attached, plain) if number % 2 else (plain, attached)
        seen = {server.side: clicks(server, asked.clicks) for server in order}
        rounds.append((seen["attached"], seen["plain"]))
    ours, theirs = (statistics.median(each) for each in zip(*rounds[1:], strict=True))
    ratios = sorted(mine / peer for mine, peer in rounds[1:])
    what = f"{asked.rounds} rounds of {asked.clicks} clicks, Gradio {version('gradio')}"
    print(f"CPU of a click, {what}:\n")
    print("| attached | plain | ratio (least to most) | to reach |\n|---:|---:|---:|---:|")
    print(
        f"| {ours:.1f} ms | {theirs:.1f} ms | {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | 1.1 |\n"
    )
    if asked.megabytes:
        print(f"Longest stall of the event loop while {asked.megabytes} MB are returned:\n")
        print("| | stall | the whole call |\n|---|---:|---:|")
        for server in (plain, attached):
            milliseconds, seconds = stall(server, asked.megabytes)
            print(f"| {server.side} | {milliseconds:.0f} ms | {seconds:.1f} s |")
        time.sleep(seconds)  # what this machine's other work does to a task that only ticks
        print(f"| attached, at rest for as long | {attached.stall() * 1000:.0f} ms | |")


if __name__ == "__main__":
    main()
