"""Record docs/images/demo.webp: the demo in two tabs, one of which is closed.

    .venv/bin/python scripts/record_demo.py

Needs Chromium, and the packages of `make test`. The two pages are shown side by side.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "images" / "demo.webp"
WIDTH, HEIGHT = 780, 500
BAR = 34
SCALE = 0.68
FRAME = 0.2
"""Seconds of one frame."""


@contextmanager
def demo() -> Iterator[str]:
    """Serve the demo on a store of its own; yield its address."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "SESSIONSTORE_URL": f"file:{folder}/store",
            "SESSIONSTORE_LINGER": "4s",
            "GRADIO_TEMP_DIR": f"{folder}/cache",
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        program = [sys.executable, str(ROOT / "examples" / "state_cleanup.py")]
        with subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                _wait_for(url)
                yield url
            finally:
                process.terminate()


def _free_port() -> int:
    for port in range(20_000, 30_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise OSError("There is no free port from 20000 to 29999.")


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - http, as above
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"The demo does not answer at {url}.")


class Film:
    """The frames, each with the two pages side by side. A closed page is blank."""

    def __init__(self) -> None:
        self.frames: list[Image.Image] = []
        self.pages: list[Page | None] = [None, None]

    def take(self, seconds: float, caption: str) -> None:
        """Add frames for so long, with a caption below them."""
        until = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            self.frames.append(self._frame(caption))
            time.sleep(max(FRAME - (time.monotonic() - began), 0))
            if time.monotonic() >= until:
                return

    def _frame(self, caption: str) -> Image.Image:
        width, height = int(WIDTH * SCALE), int(HEIGHT * SCALE)
        frame = Image.new("RGB", (2 * width + 3 * 12, height + BAR + 2 * 12 + 34), "#24303c")
        pen = ImageDraw.Draw(frame)
        font = ImageFont.load_default(17)
        for place, page in enumerate(self.pages):
            left = 12 + place * (width + 12)
            if page is None:
                box = (left, 12, left + width, 12 + BAR + height)
                pen.rounded_rectangle(box, 8, outline="#4b5a69", width=2)
                continue
            pen.rounded_rectangle((left, 12, left + width, 12 + BAR + 10), 8, fill="#d7dde3")
            pen.text((left + 14, 19), f"Tab {place + 1}", fill="#24303c", font=font)
            shot = Image.open(io.BytesIO(page.screenshot(type="png", animations="disabled")))
            frame.paste(shot.resize((width, height), Image.Resampling.LANCZOS), (left, 12 + BAR))
        pen.text((frame.width / 2, frame.height - 28), caption, "#ffffff", font, anchor="mt")
        return frame

    def save(self) -> None:
        """Write the frames as a WebP that repeats."""
        first, *rest = self.frames
        first.save(
            TARGET, save_all=True, append_images=rest, duration=int(FRAME * 1000), loop=0,
            quality=72, method=6, minimize_size=True,
        )  # fmt: skip


def record(url: str) -> Film:
    """Play the story in two pages."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    film = Film()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        contexts = [browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}) for _ in "12"]
        pages = [context.new_page() for context in contexts]
        for number, page in enumerate(pages, start=1):
            page.goto(url)
            page.get_by_text(f"Visitor {number} (you)").wait_for()
            page.get_by_text("Built with Gradio").wait_for()
            page.get_by_role("button", name="Use the same picture").click()
            page.locator(".visitor", has_text="(you)").get_by_text("2 images").wait_for()
        for page in pages:
            page.get_by_text("2 visitors, 1 copy").wait_for()
            page.wait_for_timeout(1500)  # until the thumbnails are loaded
        film.pages = [*pages]
        film.take(1.6, "Two visitors, each with private files. The same picture is stored once.")
        pages[1].get_by_role("button", name="Generate").click()
        film.take(1.8, "Visitor 2 makes one more image ...")
        film.pages[1] = None
        contexts[1].close()
        film.take(4.6, "... and closes the tab. It could still come back for a few seconds.")
        pages[0].get_by_text("left: 3 images").wait_for()
        film.take(2.4, "Then its files are deleted. Tab 1 keeps its own, and the shared copy.")
        browser.close()
    return film


def main() -> None:
    """Record the film, save it, and print its size."""
    with demo() as url:
        film = record(url)
    film.save()
    size = TARGET.stat().st_size / 1024
    sys.stdout.write(f"{TARGET}: {len(film.frames)} frames, {size:.0f} KiB\n")


if __name__ == "__main__":
    main()
