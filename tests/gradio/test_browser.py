"""The demo in a real browser: what a newcomer sees who runs it, opens tabs and closes them.

The linger passes by the clock. How soon after it a directory is gone is told by ``make replicas``:
a busy machine may take long, and no test is measured by it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Playwright,
    sync_playwright,
)

from tests.support.ports import free_port

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
LINGER = 2.0
"""Seconds."""

GONE = 60.0
"""Seconds until a directory that is still there is a failure."""

START = 180.0
"""Seconds until a program that has not started is a failure."""

PATIENTLY = [sys.executable, "-m", "tests.support.patience"]
"""The command that runs a program of Gradio's on a busy machine."""

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # Gradio's page asks for web fonts
)  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """The demo as a process of its own, on a store and a Gradio cache of its own."""

    place: Path
    url: str
    process: subprocess.Popen[bytes]

    @property
    def cache(self) -> Path:
        return self.place / "cache"

    def directories(self) -> set[str]:
        """The names of the visitors' directories; the adapter's own are called after Gradio."""
        every = (path.name for path in (self.place / "store" / "sessions").iterdir())
        return {name for name in every if not name.startswith("gradio-")}

    def images(self, directory: str) -> set[str]:
        """The contents of a session's files, as digests."""
        return digests(self.place / "store" / "sessions" / directory / "files")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def served(place: Path, **settings: str) -> Iterator[Demo]:
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SESSIONSTORE_URL": (place / "store").as_uri(),
        "SESSIONSTORE_LINGER": f"{LINGER}s",
        "GRADIO_TEMP_DIR": str(place / "cache"),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        **settings,
    }
    program = [*PATIENTLY, str(ROOT / "examples" / "state_cleanup.py")]
    with subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL) as process:
        demo = Demo(place, f"http://127.0.0.1:{port}", process)
        try:
            eventually(START, lambda: answers(demo.url))
            yield demo
        finally:
            demo.kill()


@dataclass(frozen=True)
class Visit:
    """A page of the demo that has shown its first image."""

    page: Page
    directory: str

    def generate(self) -> None:
        """Press the button, and return when the page shows one image more."""
        before = int(self.row.locator("span").nth(1).inner_text().split()[0])
        self.page.get_by_role("button", name="Generate").click()
        self.row.get_by_text(f"{before + 1} images").wait_for()

    @property
    def row(self) -> Locator:
        """What the page shows of its own visitor."""
        return self.page.locator(".visitor", has_text="(you)")


def visit(
    demo: Demo,
    page: Page,
    directories: Callable[[], set[str]] | None = None,
    *,
    again: bool = False,
) -> Visit:
    """Open or refresh the page; its directory is the one that is new among ``directories``."""
    listed = directories or demo.directories
    before = listed()
    if again:
        page.reload()
    else:
        page.goto(demo.url)
    page.locator(".visitor", has_text="(you)").get_by_text("1 image").wait_for()
    (directory,) = listed() - before
    return Visit(page, directory)


def digests(folder: Path) -> set[str]:
    """The contents of all files below a folder; one that goes meanwhile is none."""
    contents = set()
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                contents.add(hashlib.sha256(Path(parent, name).read_bytes()).hexdigest())
            except FileNotFoundError:
                continue
    return contents


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def eventually(seconds: float, condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; a failure when that takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it took longer than {seconds} s"
        time.sleep(0.05)  # another process is waited for, and it tells nobody


def patient(browser: Browser) -> Browser:
    """Have the pages of a browser wait for a minute, as on a busy machine they may have to."""
    new_context = browser.new_context

    def patient_context(**options: Any) -> BrowserContext:
        context = new_context(**options)
        context.set_default_timeout(60_000)
        return context

    browser.new_context = patient_context  # type: ignore[method-assign]  # it has no option for it
    return browser


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with served(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium_path: str) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS])
    yield patient(browser)
    browser.close()


def test_closing_one_of_three_tabs_removes_exactly_its_directory(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    before = demo.directories()
    visits = [visit(demo, browser.new_context().new_page()) for _ in range(3)]
    for each in visits:
        each.generate()
    leaves, *stay = visits
    opened = demo.directories() - before
    images = {each.directory: demo.images(each.directory) for each in visits}
    leaves.page.screenshot(path=tmp_path / "open.png")

    def gone() -> bool:
        """Its directory, and a moment later its files in Gradio's cache."""
        there = leaves.directory in demo.directories()
        return not there and not images[leaves.directory] & digests(demo.cache)

    leaves.page.close()
    eventually(GONE, gone)

    assert opened == {each.directory for each in visits}
    assert [len(images[each.directory]) for each in visits] == [2, 2, 2]
    for each in stay:
        assert demo.images(each.directory) == images[each.directory] <= digests(demo.cache)
        each.generate()
        each.page.context.close()


def test_a_refresh_begins_a_new_directory_and_removes_the_old(demo: Demo, browser: Browser) -> None:
    with browser.new_context() as context:
        first = visit(demo, context.new_page())
        second = visit(demo, first.page, again=True)

        eventually(GONE, lambda: first.directory not in demo.directories())

        assert second.directory in demo.directories()


def test_two_tabs_of_one_visitor_come_and_go_by_themselves(demo: Demo, browser: Browser) -> None:
    with browser.new_context() as context:
        first, second = (visit(demo, context.new_page()) for _ in range(2))

        first.page.close()
        eventually(GONE, lambda: first.directory not in demo.directories())
        second.generate()

        assert len(demo.images(second.directory)) == 2


def test_a_browser_that_is_killed_leaves_nothing(
    demo: Demo, playwright: Playwright, chromium_path: str, tmp_path: Path
) -> None:
    port = free_port()
    where = [f"--user-data-dir={tmp_path}", f"--remote-debugging-port={port}"]
    program = [chromium_path, "--headless=new", *FLAGS, *where, "about:blank"]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            eventually(START, lambda: answers(f"http://127.0.0.1:{port}/json/version"))
            browser = playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
            browser.contexts[0].set_default_timeout(60_000)
            visited = visit(demo, browser.contexts[0].new_page())
        finally:
            os.killpg(process.pid, signal.SIGKILL)

        eventually(GONE, lambda: visited.directory not in demo.directories())


def test_what_a_killed_server_leaves_is_swept_when_it_starts_again(
    browser: Browser, tmp_path: Path
) -> None:
    with served(tmp_path) as demo, ExitStack() as pages:
        contexts = [pages.enter_context(browser.new_context()) for _ in range(2)]
        visits = [visit(demo, context.new_page()) for context in contexts]
        images = set.union(*(demo.images(each.directory) for each in visits))
        demo.kill()
    left = demo.directories()
    left_in_cache = digests(demo.cache)

    with served(tmp_path, SESSIONSTORE_IDLE="1s") as demo:
        eventually(START, lambda: not demo.directories())
        eventually(START, lambda: not images & digests(demo.cache))

    assert left == {each.directory for each in visits}
    assert images <= left_in_cache
