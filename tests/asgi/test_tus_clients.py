"""The clients of tus that people use, through a line that is cut, to replicas that take turns."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from sessionstore import Session, SessionStore, Upload
from sessionstore.adapters.asgi import Files
from tests.gradio.test_browser import FLAGS, eventually
from tests.support import npm
from tests.support.asgi_rig import served
from tests.support.cuts import CuttingRelay
from tests.support.stores import PATIENCE

CUTS = 200
"""By each of the two clients."""

FILES = 10
SIZE = 4_000_000
BETWEEN = (60_000, 500_000)
"""Bytes after which a connection is cut."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.adapters.tus.PIECE", 100_000)
    monkeypatch.setattr("sessionstore.adapters.tus._BUFFERED", 10_000)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[SessionStore]]:
    with ExitStack() as stack:
        yield [stack.enter_context(SessionStore.open(tmp_path, settings=False)) for _ in range(2)]


@pytest.fixture
def relay(stores: list[SessionStore]) -> Iterator[CuttingRelay]:
    with ExitStack() as stack:
        servers = [stack.enter_context(served(app_of(store))) for store in stores]
        yield stack.enter_context(CuttingRelay(servers, 20, BETWEEN))


def app_of(store: SessionStore) -> Starlette:
    """An app with one visitor, a page, and tus-js-client."""

    def visitor(_: Request) -> Session:
        return store.session("files", "ada")

    def script(_: Request) -> Response:
        return Response(
            npm.member("tus-js-client", "dist/tus.min.js"), media_type="text/javascript"
        )

    def page(_: Request) -> Response:
        return Response("<!doctype html><script src=/tus.js></script>", media_type="text/html")

    return Starlette(
        routes=[Route("/", page), Route("/tus.js", script), Mount("/files", Files(store, visitor))]
    )


def nothing_is_left(store: SessionStore) -> bool:
    """Whether of all uploads only the notes of the finished ones are kept."""
    names = [each.name for each in store.backend.files(store.session("files", "ada").sid)]
    return all("/done." in name for name in names if name.startswith("@/"))


def test_tuspy_through_two_hundred_cuts(stores: list[SessionStore], relay: CuttingRelay) -> None:
    from tusclient import client

    rng, relay.cuts = random.Random(1), CUTS
    sent = {f"{number}.bin": rng.randbytes(SIZE) for number in range(FILES)}
    tus = client.TusClient(f"{relay.url}/files/tus")
    for name, data in sent.items():
        relay.cuts = CUTS // FILES
        uploader = tus.uploader(
            file_stream=io.BytesIO(data), metadata={"filename": name}, chunk_size=SIZE // 4,
            retries=CUTS, retry_delay=0,
        )  # fmt: skip
        uploader.upload()

    assert relay.done >= CUTS - FILES  # the last of a file may find nothing more to cut
    session = stores[0].session("files", "ada")
    assert {file.name: file.read() for file in session.files()} == sent
    eventually(PATIENCE, lambda: nothing_is_left(stores[0]))  # one cut may be noticed late


UPLOAD = """async ([name, size, seed]) => {
    const data = new Uint8Array(size)
    for (let at = 0, x = seed; at < size; at++) {
        x = (Math.imul(x, 1103515245) + 12345) >>> 0
        data[at] = x >>> 24
    }
    await new Promise((resolve, reject) => new tus.Upload(new Blob([data]), {
        endpoint: '/files/tus', metadata: {filename: name}, chunkSize: size / 2,
        retryDelays: Array(100).fill(0), onSuccess: resolve, onError: reject,
    }).start())
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data))
    return Array.from(digest, byte => byte.toString(16).padStart(2, '0')).join('')
}"""


@pytest.mark.browser
def test_tus_js_client_in_chromium_through_two_hundred_cuts(
    stores: list[SessionStore], relay: CuttingRelay, chromium_path: str
) -> None:
    npm.member("tus-js-client", "dist/tus.min.js")  # skips here if it cannot be fetched
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS])
        page = browser.new_page()
        page.goto(relay.url)
        digests: dict[str, Any] = {}
        for number in range(FILES):
            relay.cuts = CUTS // FILES
            name = f"{number}.bin"
            digests[name] = page.evaluate(UPLOAD, [name, SIZE, number])
        browser.close()

    assert relay.done >= CUTS - FILES
    session = stores[0].session("files", "ada")
    assert {file.name: file.digest for file in session.files()} == digests
    eventually(PATIENCE, lambda: nothing_is_left(stores[0]))


def test_the_default_piece_is_what_a_crash_may_lose() -> None:
    assert Upload.writing.__defaults__ == (8 << 20,)
