"""The FastAPI example in a real browser: what a visitor sees, and what nobody else does."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from tests.gradio.test_browser import FLAGS, eventually, patient
from tests.support.file_box import file_box

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SCRIPT = b"<script>document.title = 'it ran'; alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg">' + SCRIPT + b"</svg>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("box") / "store"


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    with file_box(
        SESSIONSTORE_URL=store.as_uri(), SESSIONSTORE_LINGER="1s", SESSIONSTORE_MAX_FILE="1MB"
    ) as address:
        yield address


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS])
        yield patient(browser)
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.get_by_text("Nothing here yet").wait_for()
        yield page


def upload(page: Page, **files: bytes) -> None:
    """Choose files, by their names, and return when the page shows them all."""
    chosen = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
        for name, data in files.items()
    ]
    page.set_input_files("#pick", chosen)  # type: ignore[arg-type]  # FilePayload is a private name
    page.get_by_text(f"{len(files)} file").wait_for()
    page.wait_for_function("document.getElementById('said').textContent === ''")


def png() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(target, "PNG")
    return target.getvalue()


def url_of(page: Page, name: str) -> str:
    url = page.get_by_role("link", name=name).get_attribute("href")
    assert url is not None
    return url


def test_a_visitor_uploads_looks_and_deletes(page: Page, store: Path) -> None:
    upload(page, **{"orb.png": png(), "notes.txt": b"bread <b>and</b> milk"})

    picture = page.locator(".look img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.look img').naturalWidth === 40")
    page.get_by_text("bread <b>and</b> milk").wait_for()
    page.get_by_role("button", name="Delete").first.click()
    page.get_by_text("1 file", exact=True).wait_for()

    assert [path.name for path in store.glob("sessions/*/files/*")] == ["orb.png"]


def test_an_upload_shows_bytes_rate_and_time_left(page: Page) -> None:
    said: list[str] = []
    page.expose_function("heard", lambda text: said.append(text))  # noqa: PLW0108 - Playwright marks it
    page.evaluate("""() => new MutationObserver(() =>
        heard(document.getElementById('said').textContent)
    ).observe(document.getElementById('said'), { childList: true })""")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)

    upload(page, **{"slow.bin": bytes(900_000)})

    each = r"slow\.bin: [\d.]+ kB of 900\.\d kB · [\d.]+ [kM]?B/s · \d+ s left"
    assert any(re.fullmatch(each, text) for text in said), said
    assert any(text.endswith("· sent, now it is being stored") for text in said), said


def test_nothing_that_was_uploaded_runs(page: Page, address: str) -> None:
    ran: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        ran.append(dialog.message)
        dialog.dismiss()

    page.context.on("dialog", dismiss)
    upload(
        page,
        **{
            "<img src=x onerror=alert(1)>.svg": SVG,
            "page.html": SCRIPT,
            "text.txt": SCRIPT,
            "photo\u202egnp.exe": b"MZ",
        },
    )
    page.get_by_text("photo\\u202egnp.exe").wait_for()
    for name in ("<img", "page.html"):
        other = page.context.new_page()
        with other.expect_download() as download, pytest.raises(Exception, match="Download"):
            other.goto(address + url_of(page, name))
        assert download.value.suggested_filename
    shown = page.context.new_page()
    shown.goto(address + url_of(page, "text.txt"))

    assert "alert(1)" in shown.inner_text("body")
    assert shown.evaluate("[origin, document.contentType]") == ["null", "text/plain"]
    assert ran == []


def sound() -> bytes:
    """A second of silence."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000))
    return target.getvalue()


def test_sound_plays_in_the_page_and_a_picture_shows_in_a_tab(page: Page, address: str) -> None:
    upload(page, **{"orb.png": png(), "silence.wav": sound()})
    picture = page.context.new_page()
    picture.goto(address + url_of(page, "orb.png"))
    page.evaluate("document.querySelector('audio').load()")
    page.wait_for_function("document.querySelector('audio').duration === 1")

    assert picture.evaluate("document.images[0].naturalWidth") == 40


def test_a_url_is_of_use_to_its_visitor_alone(page: Page, browser: Browser, address: str) -> None:
    upload(page, **{"notes.txt": b"mine"})
    url = address + url_of(page, "notes.txt")

    assert page.request.get(url).text() == "mine"
    with browser.new_context() as context:
        stranger = context.new_page()
        stranger.goto(address)
        assert stranger.request.get(url).status == 404
    assert httpx.get(url).status_code == 404


def test_too_large_a_file_is_refused_and_the_page_says_why(page: Page, store: Path) -> None:
    page.set_input_files("#pick", {"name": "a.bin", "mimeType": "", "buffer": bytes(3_000_000)})
    page.get_by_text("max_file=").wait_for()

    assert not list(store.glob("sessions/*/files/a.bin"))


def test_closing_the_page_deletes_its_files(browser: Browser, address: str, store: Path) -> None:
    with browser.new_context() as context:
        first, second = context.new_page(), context.new_page()
        for page in (first, second):
            page.goto(address)
            page.get_by_text("Nothing here yet").wait_for()
        upload(first, **{"unlike any other.txt": b"x"})
        (folder,) = (path.parent.parent for path in store.glob("sessions/*/files/unlike*"))
        first.close()
        second.close()

        eventually(60, lambda: not folder.exists())
