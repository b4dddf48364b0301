"""Signed uploads from Chromium: the page of one site, and the bucket of another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, sync_playwright

from sessionstore import SessionStore
from tests.gradio.test_browser import FLAGS
from tests.support import seaweed
from tests.support.file_box import file_box

pytestmark = [pytest.mark.server, pytest.mark.browser]

ROOT = Path(__file__).parents[2]
OK = 200
SIZE = (40 << 20) + 7
"""Three parts of 16 MiB."""


@pytest.fixture
def address(seaweed_server: seaweed.Server, prefix: str) -> Iterator[str]:
    """The FastAPI example on a bucket that takes requests from its pages."""
    with file_box(
        SESSIONSTORE_URL=seaweed_server.url(prefix),
        SESSIONSTORE_SECRET="s" * 40,
        SIGNED_UPLOADS="1",
        **seaweed.ENVIRONMENT,
    ) as address:
        yield address
        seaweed_server.client().delete_bucket_cors(Bucket=seaweed.BUCKET)


def allow(server: seaweed.Server, origin: str) -> None:
    """Set the CORS rule of docs/s3.md for an origin."""
    rule = {
        "AllowedOrigins": [origin],
        "AllowedMethods": ["PUT"],
        "AllowedHeaders": ["content-type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 3600,
    }
    server.client().put_bucket_cors(Bucket=seaweed.BUCKET, CORSConfiguration={"CORSRules": [rule]})


@pytest.fixture
def page(address: str, chromium_path: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS])
        page = browser.new_page()
        page.goto(address)
        page.get_by_text("Nothing here yet").wait_for()
        yield page
        browser.close()


SEND = """async ([name, size]) => {
    const data = new Uint8Array(size)
    for (let at = 0, x = 1; at < size; at++) {
        x = (Math.imul(x, 1103515245) + 12345) >>> 0
        data[at] = x >>> 24
    }
    const seen = [], file = new File([data], name, {lastModified: 1})
    const saved = await sendSigned(file, 'files/signed', (event) => seen.push(event.loaded))
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data))
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
    return [saved, hex, seen, Object.keys(localStorage)]
}"""


def stored(server: seaweed.Server, prefix: str) -> list[Any]:
    """The visible files of the store."""
    with SessionStore.open(server.url(prefix), settings=False) as store:
        return [(file.name, file.read()) for each in store.sessions() for file in each.files()]


def test_a_file_of_a_page_goes_past_the_app(
    seaweed_server: seaweed.Server, prefix: str, address: str, page: Page
) -> None:
    allow(seaweed_server, address)
    failed: list[str] = []
    requests: list[str] = []
    page.on("response", lambda it: requests.append(f"{it.status} {it.request.method} {it.url}"))

    def fail_twice(route: Route) -> None:
        if len(failed) == 2:
            route.continue_()
            return
        failed.append(route.request.url)
        route.abort()  # as if the network was gone

    page.route(lambda url: "partNumber=2" in url, fail_twice)
    saved, digest, seen, kept = page.evaluate(SEND, ["film.bin", SIZE])

    ((name, data),) = stored(seaweed_server, prefix)
    assert (name, len(data), saved["size"]) == ("film.bin", SIZE, SIZE)
    assert hashlib.sha256(data).hexdigest() == digest
    assert (seen[-1], len(failed), kept) == (SIZE, 2, [])
    bucket = f"200 PUT {seaweed_server.endpoint}/"
    assert sum(each.startswith(bucket) for each in requests) == 3
    assert not [each for each in requests if " PUT " in each and not each.startswith(bucket)]
    client = seaweed_server.client()
    left = client.list_multipart_uploads(Bucket=seaweed.BUCKET, Prefix=f"{prefix}/")
    assert not left.get("Uploads")


def test_after_a_reload_it_goes_on(
    seaweed_server: seaweed.Server, prefix: str, address: str, page: Page
) -> None:
    allow(seaweed_server, address)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route(lambda url: "partNumber=3" in url, lambda route: route.abort())
    with (
        page.expect_response(lambda it: "partNumber=1" in it.url and it.status == OK),
        page.expect_response(lambda it: "partNumber=2" in it.url and it.status == OK),
    ):
        page.evaluate(f"window.sending = ({SEND})(['film.bin', {SIZE}]); 0")
    page.unroute_all(behavior="wait")
    page.reload()
    _, digest, _, _ = page.evaluate(SEND, ["film.bin", SIZE])

    ((_, data),) = stored(seaweed_server, prefix)
    assert hashlib.sha256(data).hexdigest() == digest
    for number in (1, 2):
        assert sum(f"partNumber={number}&" in url for url in asked) == 1


def test_the_page_of_another_origin_is_kept_out(seaweed_server: seaweed.Server, page: Page) -> None:
    allow(seaweed_server, "https://other.example")
    page.add_script_tag(content="setTimeout = ((real) => (f) => real(f, 0))(setTimeout)")
    with pytest.raises(Exception, match="connection was lost"):
        page.evaluate(SEND, ["film.bin", 10])


def test_the_box_uses_it(seaweed_server: seaweed.Server, address: str, page: Page) -> None:
    allow(seaweed_server, address)
    with page.expect_request(lambda request: "partNumber=1" in request.url):
        page.set_input_files("#pick", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"abc"})
    page.get_by_role("link", name="a.txt").wait_for()
    page.get_by_text("1 file", exact=True).wait_for()
