"""The same visitor in Chromium: what the page shows, by kind of file.

Each case ends when the page shows what it must, and raises when the site's patience is over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response, sync_playwright

from tests.gradio.test_browser import FLAGS
from tests.replicas import media
from tests.replicas.app import GREEN
from tests.replicas.cases import BLUE, RED, inverse, sha
from tests.replicas.site import SERVED_BY, Replica, Site
from tests.replicas.visitor import Kept

_COLOUR = """element => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [64, 48];
    const context = canvas.getContext("2d");
    context.drawImage(element, 0, 0, 64, 48);
    return [...context.getImageData(32, 30, 1, 1).data].slice(0, 3);
}"""
"""The colour of a picture, or of what a video shows, near its middle."""

_SEEK = """(video, seconds) => new Promise((done, failed) => {
    video.addEventListener("seeked", done, {once: true});
    video.addEventListener("error", failed, {once: true});
    video.currentTime = seconds;
})"""

_SOURCE = """selector => {
    const element = document.querySelector(selector);
    return element?.src || element?.href || null;
}"""
"""The URL of what an element shows."""

_CLEAR = "[aria-label='Clear'], [aria-label='Remove Image']"
"""The button that empties a component."""

_LOADED = """selector => {
    const pictures = [...document.querySelectorAll(selector)];
    return pictures.length > 0 && pictures.every(each => each.complete && each.naturalWidth > 0);
}"""

_HAS_COLOUR = f"""([selector, colour]) => {{
    const element = document.querySelector(selector);
    const loaded = element?.tagName === "VIDEO" ? element.readyState >= 2 : element?.complete;
    if (!loaded || !(element.naturalWidth || element.videoWidth)) return false;
    return ({_COLOUR})(element).every((value, i) => Math.abs(value - colour[i]) < 12);
}}"""


@dataclass
class Guest:
    """A page of the app in a browser's context of its own."""

    context: BrowserContext
    page: Page
    answers: list[Response] = field(default_factory=list)

    def hear(self, answer: Response) -> None:
        self.answers.append(answer)

    @property
    def heartbeat_at(self) -> str:
        """The address of the replica that has the page's heartbeat."""
        (heartbeat,) = (each for each in self.answers if "/heartbeat/" in each.url)
        return heartbeat.headers[SERVED_BY]

    def kept(self, site: Site) -> list[Kept]:
        """All files that the page has asked for or uploaded, as the first that has them says."""
        asked = {each.url.partition("/gradio_api/file=")[2] for each in self.answers}
        sent = (each for each in self.answers if "/gradio_api/upload?" in each.url)
        paths = sorted({*asked, *(path for each in sent for path in each.json())} - {""})
        return [Kept(path, self._first(path, site)) for path in paths]

    def _first(self, path: str, site: Site) -> bytes:
        """A file's content; nothing, which no file has, when no replica serves it."""
        contents = (self.read(path, replica) for replica in site.replicas)
        return next((content for content in contents if content is not None), b"")

    def read(self, path: str, at: Replica) -> bytes | None:
        """What the replica serves of a file to this browser, also when its page is closed."""
        answer = self.context.request.get(f"{at.url}/gradio_api/file={path}")
        return answer.body() if answer.ok else None

    def check(self, kept: Kept, at: Replica) -> None:
        """Raise unless the replica serves the file, whole."""
        content = self.read(kept.path, at)
        assert content is not None, "not served"
        assert content == kept.content, "other bytes"

    def send(self, where: str, *files: tuple[str, str, bytes]) -> None:
        """Choose files (name, media type, content) in a component, instead of what it has."""
        present = self.page.locator(f"#{where}").locator(_CLEAR)
        if present.count():
            present.first.click()
        names = ("name", "mimeType", "buffer")
        payloads: Any = [dict(zip(names, each, strict=True)) for each in files]
        with self.page.expect_response(lambda answer: "/gradio_api/upload?" in answer.url):
            self.see(f"#{where} input[type=file]").set_input_files(payloads)

    def run(self, name: str, shows: str) -> Locator:
        """Press a button; gives the element that then shows another file than before."""
        before = self.page.evaluate(f"selector => ({_SOURCE})(selector)", shows)
        self.press(name)
        changed = f"([selector, before]) => ![null, before].includes(({_SOURCE})(selector))"
        self.page.wait_for_function(changed, arg=[shows, before])
        return self.page.locator(shows).first

    def press(self, name: str) -> None:
        self.page.locator(f"#{name}-run").click()

    def see(self, selector: str) -> Locator:
        """The first such element, when it is there."""
        found = self.page.locator(selector).first
        found.wait_for(state="attached")
        return found

    def see_colour(self, selector: str, colour: tuple[int, int, int]) -> None:
        self.page.wait_for_function(_HAS_COLOUR, arg=[selector, colour])

    def close(self) -> None:
        """Close the page, and forget its cookies."""
        self.context.close()


@contextlib.contextmanager
def launched(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS])
        yield browser
        browser.close()


def visit(site: Site, browser: Browser) -> Guest:
    """A new visitor with the page open."""
    context = browser.new_context()
    context.set_default_timeout(site.patience * 1000)
    page = context.new_page()
    guest = Guest(context, page)
    page.on("response", guest.hear)
    with page.expect_response(lambda answer: "/heartbeat/" in answer.url):
        page.goto(site.url)
    guest.see("#chat-in input[type=file]")
    return guest


def another_page(site: Site, guest: Guest) -> Guest:
    """Another page of the same visitor."""
    page = guest.context.new_page()
    second = Guest(guest.context, page)
    page.on("response", second.hear)
    page.goto(site.url)
    second.see("#chat-in input[type=file]")
    return second


def delete_all(guest: Guest) -> None:
    guest.page.get_by_role("button", name="Delete all", exact=True).click()
    guest.page.get_by_role("button", name="Delete all now").click()
    guest.page.get_by_text("Download receipt").wait_for()
    guest.page.get_by_text("Nothing of yours is kept here.").wait_for()


def predict(guest: Guest) -> None:
    digest(guest, media.text())


def digest(guest: Guest, content: bytes) -> None:
    """Upload this content, always under one name, and have its digest shown."""
    guest.send("file-in", ("in.txt", "text/plain", content))
    guest.see("#file-in a[href*='file=']")
    run_digest(guest, content)


def run_digest(guest: Guest, content: bytes) -> None:
    guest.page.locator("#digest-out textarea").fill("")
    guest.press("digest")

    shown = "digest => document.querySelector('#digest-out textarea').value === digest"
    guest.page.wait_for_function(shown, arg=sha(content))


def file(guest: Guest) -> None:
    """A download of a result, as a click on it gives it."""
    content = media.text()
    digest(guest, content)

    link = guest.run("file", "#file-out a[href*='file=']")

    assert downloaded(guest, link) == content[::-1]


def downloaded(guest: Guest, link: Locator) -> bytes:
    with guest.page.expect_download() as download:
        link.click()
    return Path(download.value.path()).read_bytes()


def image(guest: Guest) -> None:
    guest.send("image-in", ("red.png", "image/png", media.picture(RED)))
    guest.see_colour("#image-in img", RED)

    guest.run("image", "#image-out img")

    guest.see_colour("#image-out img", inverse(RED))


def audio(guest: Guest) -> None:
    """The player knows how long the sound is when it has read it."""
    guest.send("audio-in", ("in.wav", "audio/wav", media.sound()))
    guest.page.locator("#audio-in #duration", has_text="0:06").wait_for()

    guest.run("audio", "#audio-out a[download]")

    guest.page.locator("#audio-out #duration", has_text="0:06").wait_for()


def video_with_seek(guest: Guest) -> None:
    """The last half is blue and the first one red, whichever is asked for first."""
    guest.send("video-in", ("in.mp4", "video/mp4", media.video()))
    guest.see("#video-in video")

    video = guest.run("video", "#video-out video")

    guest.page.wait_for_function("document.querySelector('#video-out video').readyState >= 1")
    assert video.evaluate("video => video.duration") == media.SECONDS
    for seconds, colour in ((4.5, (0, 0, 254)), (1.0, (254, 0, 0)), (5.5, (0, 0, 254))):
        video.evaluate(_SEEK, seconds)
        guest.see_colour("#video-out video", colour)  # a page may paint it after "seeked"


def gallery(guest: Guest) -> None:
    pictures = (("red.png", RED), ("blue.png", BLUE))
    guest.send("gallery-in", *((n, "image/png", media.picture(c)) for n, c in pictures))
    guest.see("#gallery-in img >> nth=1")

    guest.run("gallery", "#gallery-out img")

    guest.see("#gallery-out img >> nth=3")
    guest.page.wait_for_function(_LOADED, arg="#gallery-out img")


def chat_with_files(guest: Guest) -> None:
    """What came before is in the memory of the process that runs the chat, but for the files."""
    before = 0
    for number in (1, 2):
        content = media.text()[: 1000 * number]
        box = guest.see("#chat-in textarea:enabled")
        guest.send("chat-in", (f"{number}.txt", "text/plain", content))
        box.fill(f"message {number}")

        box.press("Enter")

        guest.page.get_by_text(f"{len(content)} bytes, {before} before").wait_for()
        link = guest.see(f"#chat a[href$='.txt'] >> nth={2 * number - 1}")
        answer = downloaded(guest, link)
        assert len(answer) == len(media.text())
        before += len(content) + len(answer)


def example(guest: Guest) -> None:
    guest.see_colour("#examples img", GREEN)
    guest.see("#examples button:has(img)").click()

    guest.see_colour("#image-out img", inverse(GREEN))


def preloaded(guest: Guest) -> None:
    """What the page shows first: the first example and its result."""
    guest.see_colour("#image-out img", inverse(GREEN))


def default(guest: Guest) -> None:
    guest.see_colour("#default img", GREEN)


CASES: dict[str, Callable[[Guest], None]] = {
    "upload, then an event": predict,
    "file": file,
    "image": image,
    "audio": audio,
    "video, with seek": video_with_seek,
    "gallery": gallery,
    "chat with files": chat_with_files,
    "examples, cached": example,
    "a component's default": default,
}
