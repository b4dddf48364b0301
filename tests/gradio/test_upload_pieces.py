"""Large uploads of an attached page, request by request, as the page's script sends them.

What the script itself does is seen in Chromium: ``test_replicas.py`` here, and
``python -m tests.replicas.large``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from sessionstore import Limits, SessionStore
from sessionstore.adapters.gradio import attach
from sessionstore.testing import Fault, FaultyBackend, on
from sessionstore.testing.faulty import disk_full, unavailable
from tests.gradio.test_browser import eventually
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    PATIENCE,
    MakeReplicas,
    Tab,
    closed_loops,
    replicas,
)

pytestmark = GRADIO_S_OWN

DATA = bytes(range(256)) * 100
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.File(), api_name="echo")
        gr.on(fn=size, inputs=gr.File(), outputs=gr.Number(), api_name="size")
    return made


def size(path: str) -> int:
    return len(Path(path).read_bytes())


def create(tab: Tab, length: int = len(DATA), name: str = "film 1.bin") -> httpx.Response:
    told = f"filename {base64.b64encode(name.encode()).decode()}".strip()
    headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": told}
    return tab.client.post(tab.api("upload/pieces"), headers=headers)


def begun(tab: Tab) -> str:
    """The part of the address of a new upload that is its own."""
    return str(create(tab).headers["location"]).rpartition("/")[2]


def patch(tab: Tab, upload: str, offset: int, data: bytes) -> httpx.Response:
    headers = {
        **TUS,
        "Upload-Offset": str(offset),
        "Content-Type": "application/offset+octet-stream",
    }
    return tab.client.patch(tab.api(f"upload/pieces/{upload}"), headers=headers, content=data)


def path_of(tab: Tab, upload: str) -> Any:
    return tab.client.get(tab.api(f"upload/pieces/{upload}"), headers=TUS).json()


def given(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_a_file_that_two_replicas_received_is_an_upload_like_any(make: MakeReplicas) -> None:
    one, two = make(build), make(build)
    tab = one.tab().load()
    there = two.same(tab)
    upload = begun(tab)
    assert patch(tab, upload, 0, DATA[:10_000]).status_code == 204
    assert patch(there, upload, 10_000, DATA[10_000:]).status_code == 204
    path = path_of(tab, upload)

    assert Path(path).parent.parent == one.cache
    assert Path(path).name == "film 1.bin"
    echoed = there.call("echo", given(path))
    assert there.fetch(echoed).content == DATA
    assert tab.call("size", given(path)) == len(DATA)


def test_it_is_deleted_with_its_visitor_s_session(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    upload = begun(tab)
    patch(tab, upload, 0, DATA)
    tab.call("size", given(path_of(tab, upload)))
    tab.leave()

    def is_gone() -> bool:
        site.clock.advance(timedelta(hours=25))  # the end may be noted only now
        site.store.sweep()
        return site.store.usage().bytes < 1000  # the adapter's own note of its cache directory

    eventually(PATIENCE, is_gone)


def test_one_that_no_event_used_is_deleted_after_six_hours(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    upload = begun(tab)
    patch(tab, upload, 0, DATA)
    path = path_of(tab, upload)
    site.clock.advance(timedelta(hours=6, seconds=1))
    site.look_again()

    assert tab.fetch({"path": path}).status_code == 403
    with pytest.raises(RuntimeError):
        tab.call("size", given(path))


def test_another_visitor_gets_neither_the_upload_nor_the_file(make: MakeReplicas) -> None:
    site = make(build)
    tab, eve = site.tab().load(), site.tab().load()
    upload = begun(tab)
    assert patch(eve, upload, 0, DATA).status_code == 404
    patch(tab, upload, 0, DATA)
    assert path_of(eve, upload) == path_of(eve, "0" * 32)
    path = path_of(tab, upload)

    assert eve.fetch({"path": path}).status_code == 403
    with pytest.raises(RuntimeError):
        eve.call("size", given(path))


def test_another_site_cannot_begin_one(make: MakeReplicas) -> None:
    tab = make(build).tab(headers={"sec-fetch-site": "cross-site"}).load()
    assert create(tab).status_code == 403


def test_an_app_with_a_login_takes_it_from_those_who_are_logged_in(make: MakeReplicas) -> None:
    tab = make(build, auth=[("ada", "secret")]).tab()
    assert create(tab).status_code == 401
    tab.log_in("ada", "secret")
    assert create(tab).status_code == 201


def test_the_limits_of_app_and_store_hold(make: MakeReplicas) -> None:
    tab = make(build, max_file_size=1000).tab().load()
    assert create(tab).status_code == 413
    tab = make(build, url="memory://", limits=Limits(max_session=1000)).tab().load()
    refused = create(tab)
    assert (refused.status_code, "film 1.bin" in refused.json()["error"]) == (413, True)
    assert "@/" not in refused.json()["error"]


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "ü" * 300, ".", "a\nb"])
def test_any_name_is_made_one_that_the_cache_takes(make: MakeReplicas, name: str) -> None:
    site = make(build)
    tab = site.tab().load()
    upload = str(create(tab, name=name).headers["location"]).rpartition("/")[2]
    patch(tab, upload, 0, DATA)
    path = Path(path_of(tab, upload))

    assert path.parent.parent == site.cache
    assert tab.call("size", given(str(path))) == len(DATA)


def head_of(demo: gr.Blocks) -> str:
    return str(demo.get_config_file().get("head") or "")


def test_the_page_gets_the_script_after_the_app_s_own_head() -> None:
    with closed_loops(), SessionStore.open("memory://") as store:
        demo = build()
        setattr(demo, "head", "<meta name=own>")  # noqa: B010 - typed as None by Gradio
        attachment = attach(demo, store, upload_pieces=1 << 20)
        assert head_of(demo).startswith("<meta name=own><script>")
        assert "const LARGE = 1048576" in head_of(demo)
        attachment.detach()
        assert head_of(demo) == "<meta name=own>"


def test_without_pieces_the_page_is_gradio_s() -> None:
    with closed_loops(), SessionStore.open("memory://") as store:
        demo = build()
        before = head_of(demo)
        attachment = attach(demo, store, upload_pieces=None)
        assert head_of(demo) == before
        attachment.detach()


def test_pieces_have_a_least_size() -> None:
    with (
        closed_loops(),
        SessionStore.open("memory://") as store,
        pytest.raises(ValueError, match="upload_pieces=1: "),
    ):
        attach(build(), store, upload_pieces=1)


@pytest.mark.parametrize("pieces", [False, True])
def test_an_event_saves_a_large_upload_without_reading_it_again(
    make: MakeReplicas, pieces: bool
) -> None:
    """Its content is in the store already, so nothing is written there."""
    site = make(build)
    tab = site.tab().load()
    large = DATA * 80
    if pieces:
        upload = str(create(tab, len(large)).headers["location"]).rpartition("/")[2]
        patch(tab, upload, 0, large)
        file = given(path_of(tab, upload))
    else:
        file = tab.upload("film.bin", large)
    site.store.wrap(lambda backend: FaultyBackend(backend, on("spool", Fault(disk_full, at=1))))

    assert tab.call("size", file) == len(large)


def test_who_finished_a_large_one_has_it_on_the_disk(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    large = DATA * 80
    upload = str(create(tab, len(large)).headers["location"]).rpartition("/")[2]
    patch(tab, upload, 0, large)
    file = path_of(tab, upload)
    site.store.wrap(lambda backend: FaultyBackend(backend, on("open", Fault(unavailable, at=1))))

    assert Path(file).read_bytes() == large
    assert tab.call("size", given(file)) == len(large)
