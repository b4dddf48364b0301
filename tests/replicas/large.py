"""A large upload through Chromium: cut at random places, and one of the two replicas killed.

    python -m tests.replicas.large --size 5000 --cuts 20

Megabytes, and how often the line from the browser is cut. nginx takes bodies of up to 10 MB, as a
company's proxy may; the store is on SeaweedFS. It prints what was sent, how long each part took and
the memory of the replicas, and exits with 1 unless every byte arrived.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, Request

from tests.gradio.test_browser import eventually
from tests.replicas import browser
from tests.replicas.site import SERVED_BY, START, Site, serving
from tests.support import seaweed
from tests.support.cuts import CuttingRelay

LARGEST = "10m"
MB = 1_000_000
PATIENCE = 3600.0
SHOWS = "digest => document.querySelector('#digest-out textarea').value === digest"
QUIET = 2.0
"""Seconds without a request of an event after which a page has no more to do, mostly."""

QUIET_FOR_SURE = 10.0
"""The same for the page whose progress is looked at, on a busy machine too."""

_PIECE = 1 << 20
_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"


@dataclass
class Upload:
    """What happened to one file of ``size`` bytes."""

    size: int
    arrived: bool = False
    cuts: int = 0
    sent: float = 0.0
    """The bytes that left the browser, as a multiple of the file's."""

    seconds: float = 0.0
    """Until the page showed the file."""

    event: float = 0.0
    """The seconds of an event that reads it."""

    said: set[str] = field(default_factory=set)
    """The texts that the component showed meanwhile."""

    memory: list[int] = field(default_factory=list)
    """By replica that lives: the most bytes of memory more than before."""

    @property
    def is_good(self) -> bool:
        return self.arrived and self.sent < 1.1


def made(path: Path, size: int, seed: int = 1) -> str:
    """Write so many random bytes; their digest."""
    rng, digest = random.Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            data = rng.randbytes(min(_PIECE, size - start))
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def upload(site: Site, chromium: Browser, path: Path, digest: str, cuts: int) -> Upload:
    """Upload the file and have the app read it. At half of the cuts a replica is killed.

    It is not the one of the page's events: without that one, Gradio's page begins no other event.
    """
    _use(site, chromium, path.parent)
    done = Upload(path.stat().st_size)
    before = {each.number: memory(each.process.pid) for each in site.replicas if each.process}

    def on_cut(number: int) -> None:
        if number == max(cuts // 2, 1):
            site.other(of_events).kill()

    apart = done.size // max(cuts, 1) * 2 // 3  # a connection may be left before it is cut
    with (
        CuttingRelay([site.url], 1, (apart // 2, apart), on_cut) as relay,
        chromium.new_context() as context,
    ):
        context.set_default_timeout(site.patience * 1000)
        page, of_events = _opened(relay.url, context, QUIET_FOR_SURE)
        relay.cuts, sent, begun = cuts, relay.sent, time.monotonic()
        page.set_input_files("#file-in input[type=file]", path)
        eventually(PATIENCE, lambda: _looked(page, done))
        done.seconds = time.monotonic() - begun
        page.click("#digest-run")
        answer = "#digest-out textarea"
        eventually(PATIENCE, lambda: bool(page.input_value(answer)))
        done.event = time.monotonic() - begun - done.seconds
        done.arrived = page.input_value(answer) == digest
        done.sent, done.cuts = (relay.sent - sent) / done.size, relay.done
    alive = [each for each in site.replicas if each.process is not None]
    done.memory = [memory(each.process.pid) - before[each.number] for each in alive if each.process]
    return done


def _use(site: Site, chromium: Browser, folder: Path) -> None:
    """Upload a file in a few pieces: the first use of anything takes memory for good."""
    digest = made(folder / "small.bin", 20 * MB, 2)
    for _ in site.replicas * 2:
        with chromium.new_context() as context:
            context.set_default_timeout(site.patience * 1000)
            page, _ = _opened(site.url, context)
            page.set_input_files("#file-in input[type=file]", folder / "small.bin")
            page.locator("#file-in a[download]").wait_for()
            page.click("#digest-run")
            page.wait_for_function(SHOWS, arg=digest)


def _opened(url: str, context: BrowserContext, quiet: float = QUIET) -> tuple[Page, str]:
    """Open the page, wait for the events of its load; the page and the replica of its events.

    Gradio's page ends the display of an upload's progress when an event before it ends.
    """
    page, changed = context.new_page(), [0.0]

    def heard(request: Request) -> None:
        if "/gradio_api/queue/" in request.url:
            changed[0] = time.monotonic()

    for change in ("request", "requestfinished", "requestfailed"):
        page.on(change, heard)
    with page.expect_response(lambda answer: "/queue/data" in answer.url) as answer:
        page.goto(url)
    page.locator("#file-in input[type=file]").wait_for(state="attached")
    page.wait_for_function("window.sessionstoreFetch")

    def is_quiet() -> bool:
        page.evaluate("0")  # Playwright calls ``heard`` meanwhile
        return time.monotonic() - changed[0] > quiet

    eventually(START, is_quiet)
    return page, answer.value.headers[SERVED_BY]


def _looked(page: Page, done: Upload) -> bool:
    """Note what the page shows; whether it has the file."""
    done.said.add(page.inner_text("#file-in"))
    return page.locator("#file-in .file-preview, #file-in a[download]").count() > 0


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=200, help="megabytes")
    options.add_argument("--cuts", type=int, default=20)
    given = options.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="large-")))
        nginx, chromium = shutil.which("nginx", path=_PATH), shutil.which("chromium", path=_PATH)
        bucket = stack.enter_context(seaweed.serving(seaweed.program() or "weed"))
        site = stack.enter_context(serving(folder, bucket, nginx or "nginx", LARGEST))
        window = stack.enter_context(browser.launched(chromium or "chromium"))
        digest = made(folder / "film.bin", given.size * MB)
        done = upload(site, window, folder / "film.bin", digest, given.cuts)
    most = max(done.memory, default=0) / (1 << 20)
    result = "every byte arrived" if done.arrived else "WRONG BYTES"
    sys.stdout.write(
        f"{given.size} MB, {done.cuts} cuts, one replica of two killed: {result} after "
        f"{done.seconds:.0f} s, an event read it in {done.event:.0f} s, {done.sent:.3f} times its "
        f"bytes sent, the other replica had {most:.0f} MiB more\n"
    )
    return 0 if done.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
