"""Many visitors at once: an attached Gradio app held against the same app plain.

    python -m benchmarks.load [--visitors 50 200 1000] [--each-second 0] [--rtt 20] [--rounds 1]
                              [--backends plain local boto3 obstore] [--disk journalled]

Each visitor opens the page and its heartbeat, uploads 100 KB, runs an event with the file, and
fetches the picture that it makes. They all come at once, or so many each second. When all have
their pictures, all leave at once, and the sessions are dropped a linger of 5 s later. The app, the
bucket, its relay (``benchmarks.relay``) and the visitors are processes of their own. Each run has a
fresh app.

CPU is that of the app's process, user and system, from /proc, until the drops; memory is what it
has more while all pages are open; a stall is one callback of the event loop
(``benchmarks.load_app``). Times are medians and 95th percentiles.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks import disks
from benchmarks.harness import Figure
from benchmarks.latency import far, serving
from benchmarks.load_app import LINGER, STALLS
from benchmarks.report import machine
from tests.support import seaweed
from tests.support.ports import free_port

BACKENDS: Final = ("plain", "local", "boto3", "obstore")
DISKS: Final = {"journalled": disks.journalled, "memory": disks.memory}
STEPS: Final = ("page", "upload", "event", "picture")
GOALS: Final = {"local": 1.3, "obstore": 2.0, "boto3": 3.0}
"""CPU a visitor, of plain's."""

SIZE: Final = 100_000
PATIENCE: Final = 300.0
"""Seconds until a visitor gives up, which is an error."""

WARM: Final = 5
_SSL: Final = ssl.create_default_context()  # one for all: each takes 20 ms


@dataclass
class Load:
    """The figures of one run."""

    backend: str
    visitors: int
    errors: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: float = 0.0
    """Seconds a visitor."""
    requests: float = 0.0
    """Of the bucket, a visitor."""
    memory: float = 0.0
    """Bytes a visitor."""
    dropped: int = 0
    late: float = 0.0
    """Seconds from the end of the linger of the last who left to the last drop."""
    stalls: dict[str, float] = field(default_factory=dict)
    places: list[Any] = field(default_factory=list)

    def percentile(self, step: str, share: float) -> float:
        """Return the seconds within which that share of the visitors had taken the step."""
        return sorted(self.seconds[step])[int((len(self.seconds[step]) - 1) * share)]


@dataclass
class App:
    """The app, in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Return the bytes of memory that it has now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def figures(self) -> dict[str, Any]:
        """Return what it counts itself."""
        found: dict[str, Any] = httpx.get(f"{self.url}/figures", timeout=PATIENCE).json()
        return found


@contextlib.contextmanager
def running(directory: Path, url: str | None) -> Iterator[App]:
    """Serve the app, attached to the store at ``url`` if there is one."""
    port = free_port()
    environment = {
        **os.environ,
        "GRADIO_TEMP_DIR": str(directory / "cache"),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    command = [sys.executable, "-m", "benchmarks.load_app", "--port", str(port)]
    process = subprocess.Popen([*command, *(["--url", url] if url else [])], env=environment)
    app = App(process, f"http://127.0.0.1:{port}")
    try:
        while True:
            with contextlib.suppress(httpx.ConnectError):
                app.figures()
                break
            if process.poll() is not None:
                raise RuntimeError("The app did not start.")
            time.sleep(0.1)
        yield app
    finally:
        process.kill()  # it would wait for visitors who are still there
        process.wait()


class Visitor:
    """One visitor, with a browser's requests."""

    def __init__(self, url: str, load: Load) -> None:
        self._api = f"{url}/app/gradio_api"
        self._page = f"{url}/app/"
        self._load = load
        self._hash = secrets.token_hex(6)
        self._stack = AsyncExitStack()
        self._client = httpx.AsyncClient(
            verify=_SSL, timeout=PATIENCE, headers={"user-agent": "Mozilla/5.0"}
        )

    async def come(self) -> None:
        """Take all steps but the last, and note what each took."""
        for step, take in zip(STEPS, (self.page, self.upload, self.event, self.fetch), strict=True):
            began = time.perf_counter()
            try:
                await take()
            except Exception as error:  # noqa: BLE001 - it is counted, and the others go on
                self._load.errors[f"{step}: {error!r}"] += 1
                return
            self._load.seconds[step].append(time.perf_counter() - began)

    async def page(self) -> None:
        (await self._client.get(self._page)).raise_for_status()
        heartbeat = self._client.stream("GET", f"{self._api}/heartbeat/{self._hash}")
        response = await self._stack.enter_async_context(heartbeat)
        self._beats = response.raise_for_status().aiter_lines()  # collected, it would close
        await anext(self._beats)

    async def upload(self) -> None:
        file = {"files": ("photo.bin", random.randbytes(SIZE))}
        response = await self._client.post(f"{self._api}/upload", files=file)
        self._path = response.raise_for_status().json()[0]

    async def event(self) -> None:
        data = [{"path": self._path, "meta": {"_type": "gradio.FileData"}}]
        body = {"data": data, "fn_index": 0, "session_hash": self._hash}
        (await self._client.post(f"{self._api}/queue/join", json=body)).raise_for_status()
        async for message in self._messages():
            if message["msg"] == "process_completed":
                if not message["success"]:
                    raise RuntimeError(message["output"])
                self._picture = message["output"]["data"][0]["path"]
                return
        raise RuntimeError("The stream ended before the event did.")

    async def _messages(self) -> AsyncIterator[dict[str, Any]]:
        params = {"session_hash": self._hash}
        async with self._client.stream("GET", f"{self._api}/queue/data", params=params) as stream:
            async for line in stream.raise_for_status().aiter_lines():
                if line:
                    yield json.loads(line.removeprefix("data:"))

    async def fetch(self) -> None:
        response = await self._client.get(f"{self._api}/file={self._picture}")
        if response.raise_for_status().content[8:12] != b"WEBP":
            raise RuntimeError("The picture is none.")

    async def leave(self) -> None:
        """Close the page."""
        await self._stack.aclose()
        await self._client.aclose()


async def _visit(app: App, load: Load, each_second: float) -> None:
    """Let the visitors come, so many each second, or all at once, and then leave at once."""
    visitors = [Visitor(app.url, load) for _ in range(load.visitors)]
    before = app.memory()
    async with asyncio.TaskGroup() as group:
        for visitor in visitors:
            group.create_task(visitor.come())
            await asyncio.sleep(1 / each_second if each_second else 0)
    load.memory = (app.memory() - before) / load.visitors
    await asyncio.gather(*(each.leave() for each in visitors))


def _drops(app: App, count: int) -> list[float]:
    """Wait until so many sessions are dropped, or for a minute; return the times."""
    time.sleep(LINGER.total_seconds())
    deadline = time.monotonic() + 60
    while len(dropped := app.figures()["dropped"]) < count and time.monotonic() < deadline:
        time.sleep(0.25)
    return list(dropped)


def measure(
    backend: str, visitors: int, directory: Path, url: str | None, each_second: float = 0
) -> Load:
    """Serve the app, and let so many visitors use it, after a few who warm it up.

    The app writes to ``directory``; ``url`` is that of the bucket.
    """
    load, warm = Load(backend, visitors), Load(backend, WARM)
    with tempfile.TemporaryDirectory(prefix="load-", dir=directory) as folder:
        place = (Path(folder) / "store").as_uri() if backend == "local" else url
        with running(Path(folder), place) as app:
            asyncio.run(_visit(app, warm, 0))
            already = len(_drops(app, WARM)) if place else 0
            requests = app.figures()["requests"]
            httpx.post(f"{app.url}/begin", timeout=PATIENCE)
            cpu = app.cpu()
            asyncio.run(_visit(app, load, each_second))
            left = time.time()
            served = visitors - load.errors.total()
            dropped = _drops(app, already + served if place else 0)  # plain rests for as long
            load.cpu = (app.cpu() - cpu) / visitors
            figures = app.figures()
    load.requests = (figures["requests"] - requests) / visitors
    load.dropped = len(dropped) - already
    load.late = max(dropped, default=left) - left - LINGER.total_seconds()
    load.stalls, load.places = figures["stalls"], figures["places"]
    load.errors += warm.errors
    return load


def loads(asked: argparse.Namespace) -> Iterator[Load]:
    """Measure each backend with each number of visitors, in turn."""
    with ExitStack() as stack:
        endpoint = ""
        if {"boto3", "obstore"}.intersection(asked.backends):
            here = stack.enter_context(serving(https=False))
            endpoint = stack.enter_context(far(here, asked.rtt))
        disk = stack.enter_context(DISKS[asked.disk]())
        for visitors, number, backend in product(
            asked.visitors, range(asked.rounds), asked.backends
        ):
            prefix = f"load-{backend}-{visitors}-{number}"
            url = f"s3://{seaweed.BUCKET}/{prefix}/?endpoint_url={endpoint}&engine={backend}"
            is_plain = backend == "plain"
            yield measure(
                backend, visitors, disk.path, None if is_plain else url, asked.each_second
            )


def figures(visitors: int) -> Iterator[Figure]:
    """Yield the short form for ``make bench``: errors and CPU of each backend."""
    asked = parser().parse_args(["--visitors", f"{visitors}"])
    found = list(loads(asked))
    for load in found[1:]:
        group = f"Load: {visitors} visitors at once, buckets {asked.rtt:g} ms away"
        others = {
            "errors": float(load.errors.total()), "requests a visitor": load.requests,
            "plain, ms": found[0].cpu * 1e3,
        }  # fmt: skip
        yield Figure(group, f"{load.backend}: CPU a visitor, of plain's", load.cpu / found[0].cpu,
                     "times", GOALS[load.backend], "", others)  # fmt: skip


HEAD: Final = (
    "visitors", "backend", "errors", *(f"{step}, s" for step in STEPS), "late drop, s",
    "CPU, ms", "of plain's", "requests", "memory, KB",
    *(f"stall, {each}, ms" for each in STALLS),
)  # fmt: skip


def row(rounds: Sequence[Load], plain: float | None) -> str:
    """Return a line of the table: medians of the rounds, the worst of errors, drops and stalls."""
    first = rounds[0]

    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    def cell(step: str) -> str:
        shares = (median(each.percentile(step, share) for each in rounds) for share in (0.5, 0.95))
        return " / ".join(f"{each:.2f}" for each in shares)

    attached = first.backend != "plain"
    cpu = median(each.cpu for each in rounds)
    lost = max(each.visitors - each.errors.total() - each.dropped for each in rounds)
    late = f"{max(each.late for each in rounds):.1f}" + (f" ({lost} never)" if lost else "")
    cells = [
        f"{first.visitors}", first.backend, f"{sum(each.errors.total() for each in rounds)}",
        *(cell(step) for step in STEPS), late if attached else "", f"{cpu * 1e3:.0f}",
        "" if plain is None else f"{cpu / plain:.2f}",
        f"{median(each.requests for each in rounds):.1f}" if attached else "",
        f"{median(each.memory for each in rounds) / 1e3:.0f}",
        *(f"{max(each.stalls[name] for each in rounds) * 1e3:.0f}" for name in STALLS),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--visitors", nargs="+", type=int, default=[50, 200, 1000])
    made.add_argument("--each-second", type=float, default=0, help="who come; 0: all at once")
    made.add_argument("--rtt", type=float, default=20, help="milliseconds to the bucket")
    made.add_argument("--rounds", type=int, default=1)
    made.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    made.add_argument("--disk", choices=DISKS, default="journalled", help="where the app writes")
    return made


def main() -> None:
    """Measure and print."""
    asked = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the other processes end too
    found: dict[tuple[int, str], list[Load]] = defaultdict(list)
    _say(f"| {' | '.join(HEAD)} |\n|{'---:|' * len(HEAD)}")
    for load in loads(asked):
        rounds = found[load.visitors, load.backend]
        rounds.append(load)
        sys.stderr.write(f"{load.backend}: {dict(load.errors)} {load.places}\n")
        if len(rounds) == asked.rounds:
            plain = found.get((load.visitors, "plain"))
            _say(row(rounds, statistics.median(each.cpu for each in plain) if plain else None))
    _say(f"\n{asked.rounds} rounds, {asked.each_second:g} a second; {machine()}.")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
