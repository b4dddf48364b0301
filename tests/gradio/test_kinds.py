"""Kinds of apps: a launch inside the block, and links to files that the app wrote itself."""

from __future__ import annotations

import gc
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.routes import App
from gradio.utils import BaseReloader

from sessionstore import SessionStore, _threads
from sessionstore.adapters.gradio import Attachment, attach, session
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    Heard,
    MakeReplicas,
    Replica,
    Tab,
    launched,
    replicas,
    save,
    sites,
)
from tests.support.stores import PATIENCE

pytestmark = GRADIO_S_OWN

HASHED = "0123456789abcdef" * 4


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


# Inside the with block


def test_a_demo_may_be_attached_and_launched_inside_its_block(tmp_path: Path) -> None:
    with sites(tmp_path / "cache") as make_site:
        site = make_site()
        with gr.Blocks() as demo:
            site.stack.callback(attach(demo, site.store).detach)
            file = gr.File()
            file.upload(lambda path: path, file, file, api_name="echo")
            tab = site.tab(site.stack.enter_context(launched(demo))).load()
            echoed = tab.call("echo", tab.upload("note.txt", b"uploaded"))

        assert tab.fetch(echoed).text == "uploaded"
        assert list(site.files()) == [tab.session_hash]


def test_static_workers_are_left_out_with_a_warning(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(gr, "Server"):
        pytest.skip("this Gradio has no static workers")
    monkeypatch.setenv("GRADIO_NUM_WORKERS", "2")

    app = make(linking(written))

    assert app.tab().get("/").is_success
    assert "num_workers=2 has no effect" in caplog.text


# Links to files of the cache


def linking(write: Callable[[str], Path]) -> Callable[[], gr.Blocks]:
    """A demo that links to the file that ``write`` makes of a text, and echoes HTML."""

    def build() -> gr.Blocks:
        demo: gr.Blocks
        with gr.Blocks() as demo:
            text, page = gr.Textbox(), gr.HTML()

            def linked(value: str) -> str:
                return f'<img src="/gradio_api/file={write(value)}">'

            gr.on(fn=linked, inputs=text, outputs=page, api_name="linked")
            gr.on(fn=lambda value: value, inputs=text, outputs=page, api_name="echo")
            table = gr.Dataframe(datatype="html")
            gr.on(fn=lambda value: [[linked(value)]], inputs=text, outputs=table, api_name="cell")
        return demo

    return build


def cache() -> Path:
    return Path(gr.utils.get_upload_folder())


def written(text: str) -> Path:
    path = cache() / "drawn" / f"{len(text)}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def link_in(value: Any) -> dict[str, str]:
    found = re.search(r'file=([^"]+)"', str(value))
    assert found is not None
    return {"path": found[1]}


@pytest.mark.parametrize("name", ["linked", "cell"])
def test_a_file_that_an_event_wrote_and_links_to_is_its_visitor_s(
    make: MakeReplicas, name: str
) -> None:
    app = make(linking(written))
    tab, other = app.tab().load(), app.tab().load()

    link = link_in(tab.call(name, "a text"))

    assert tab.fetch(link).text == "a text"
    assert other.fetch(link).status_code == 403


def test_a_linked_file_is_in_the_store_and_goes_with_its_visitor(make: MakeReplicas) -> None:
    app = make(linking(written))
    tab = app.tab().load()
    link = link_in(tab.call("linked", "a text"))

    app.lose_disk()
    kept = tab.fetch(link).text
    app.store.session(tab.session_hash, owner_of(app)).drop()
    app.look_again()

    assert kept == "a text"
    assert tab.fetch(link).status_code == 403


def owner_of(app: Replica) -> str | None:
    (session,) = app.store.sessions()
    return session.owner


def test_two_visitors_have_the_file_that_was_written_for_each(make: MakeReplicas) -> None:
    app = make(linking(written))
    tabs = [app.tab().load() for _ in range(2)]

    links = [link_in(tab.call("linked", "same")) for tab in tabs]

    assert [tab.fetch(link).text for tab, link in zip(tabs, links, strict=True)] == ["same"] * 2


def test_a_link_that_a_visitor_sent_gives_nothing_of_another(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(linking(written))
    tab, thief = app.tab().load(), app.tab().load()
    upload = tab.upload("note.txt", b"private")
    drawn = link_in(tab.call("linked", "a text"))

    with caplog.at_level(logging.WARNING, "sessionstore"):
        for file in (upload, drawn):
            for _ in range(2):
                thief.call("echo", f'<img src="/gradio_api/file={file["path"]}">')

    assert [thief.fetch(file).status_code for file in (upload, drawn)] == [403, 403]
    assert caplog.text.count("links to") == 2, "once for each file"


def test_a_program_gets_a_link_that_another_can_open(make: MakeReplicas) -> None:
    app = make(linking(written))
    sender, reader = app.tab(), app.tab()

    joined = sender.client.post(sender.api("call/linked"), json={"data": ["a text"]})
    event = joined.raise_for_status().json()["event_id"]
    answer = sender.client.get(sender.api(f"call/linked/{event}")).text
    link = link_in(answer.replace("\\", ""))

    assert reader.fetch(link).text == "a text"


def test_a_link_of_the_app_s_own_page_is_for_everyone(make: MakeReplicas) -> None:
    def build() -> gr.Blocks:
        demo: gr.Blocks
        with gr.Blocks() as demo:
            gr.HTML(f'<img src="/gradio_api/file={written("a logo")}">')
        return demo

    app = make(build)
    link = link_in(app.tab().get("/config").text.replace("\\", ""))
    app.lose_disk()

    assert app.tab().fetch(link).text == "a logo"


def test_an_asset_from_before_the_start_is_for_everyone(make: MakeReplicas) -> None:
    cache().mkdir(parents=True, exist_ok=True)
    asset = written("an asset")
    app = make(linking(lambda _: asset))
    tabs = [app.tab().load() for _ in range(2)]

    links = [link_in(tab.call("linked", "")) for tab in tabs]

    assert [tab.fetch(link).text for tab, link in zip(tabs, links, strict=True)] == ["an asset"] * 2
    assert app.tab().fetch(links[0]).text == "an asset"


def test_what_an_earlier_process_left_for_a_visitor_is_not_for_everyone(
    make: MakeReplicas,
) -> None:
    left = cache() / HASHED / "left.txt"
    left.parent.mkdir(parents=True)
    left.write_text("of somebody")
    app = make(linking(written))
    thief = app.tab().load()

    thief.call("echo", f'<img src="/gradio_api/file={left}">')

    assert thief.fetch({"path": str(left)}).status_code == 403


# gr.Server


@pytest.mark.skipif(not hasattr(gr, "Server"), reason="this Gradio has no gr.Server")
def test_a_server_is_attached_and_its_visitors_have_sessions(tmp_path: Path) -> None:
    def write(text: str) -> gr.FileData:
        return gr.FileData(path=str(written(text)))

    def save_note(text: str, request: gr.Request) -> str:
        return session(request).put("note.txt", text.encode()).name

    with sites(tmp_path / "cache") as make_site:
        site = make_site()
        server = gr.Server()
        server.api(write, name="write")
        server.api(save_note, name="save")
        attachment = attach(server, site.store)
        site.stack.callback(attachment.detach)
        tab = site.tab(site.stack.enter_context(launched(server))).load()
        other = site.tab(tab.url).load()

        file = tab.call("write", "from a server")
        tab.call("save", "kept")

        assert tab.fetch(file).text == "from a server"
        assert other.fetch(file).status_code == 403
        assert site.files() == {tab.session_hash: ["note.txt"]}
        assert attach(server, site.store) is attachment


# Hot reload


class Reloader(BaseReloader):
    """What ``gradio app.py`` does with a changed file, at one call."""

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def running_app(self) -> App:
        return self._app

    def reload(self, demo: gr.Blocks) -> None:
        self.swap_blocks(demo)
        demo.config = demo.get_config_file()


def our_threads() -> list[str]:
    """Names of the threads that stores and attachments start; the pools grow with the load."""
    ours = [each.name for each in threading.enumerate() if "sessionstore" in each.name]
    pools = (*_threads._made, "sessionstore-presence")
    return sorted(name for name in ours if not name.startswith(pools))


def test_reloads_leave_no_thread_and_no_store(tmp_path: Path) -> None:
    with sites(tmp_path / "cache") as make_site:
        site = make_site()
        stores: list[weakref.ref[SessionStore]] = []
        attachments: list[Attachment] = []

        def attached() -> gr.Blocks:
            store = SessionStore.open(tmp_path / "store", clock=site.clock)
            stores.append(weakref.ref(store))
            demo = linking(written)()
            attachments[:] = [attach(demo, store)]
            return demo

        demo = attached()
        url = site.stack.enter_context(launched(demo))
        app = demo.app
        del demo
        tab = site.tab(url).load()
        site.clock.settle(2)  # in its first sweep a process has one thread more
        threads = our_threads()
        for _ in range(4):
            Reloader(app).reload(attached())
            tab.call("linked", "after a reload")

        def left() -> tuple[list[str], bool]:
            gc.collect()
            return our_threads(), sum(store() is not None for store in stores) <= 2

        # A tab has its answer a moment before the task that sent it ends.
        deadline = time.monotonic() + PATIENCE
        while left() != (threads, True) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left() == (threads, True)
        attachments[0].detach()


def test_a_page_from_before_a_reload_still_ends_its_session(tmp_path: Path) -> None:
    with sites(tmp_path / "cache") as make_site:
        site = make_site()
        reopened = make_site((tmp_path / "store").as_uri())
        site.attach()
        url = site.stack.enter_context(launched(site.demo))
        tab = site.tab(url).load()
        reopened.attach()
        Reloader(site.demo.app).reload(reopened.demo)
        heard = Heard(reopened.store, "ended")
        tab.call("save", "file")

        tab.close()

        assert heard.next().session_id == tab.session_hash


# OAuth


@pytest.mark.filterwarnings("ignore:Gradio does not support OAuth")  # it mocks the login here
def test_a_login_by_oauth_is_the_owner(monkeypatch: pytest.MonkeyPatch, make: MakeReplicas) -> None:
    user = {"type": "user", "name": "ada", "fullname": "Ada", "avatarUrl": ""}
    monkeypatch.setattr("gradio.oauth.get_token", lambda: "a token")
    monkeypatch.setattr("gradio.oauth.whoami", lambda: user)

    def build() -> gr.Blocks:
        demo: gr.Blocks
        with gr.Blocks() as demo:
            gr.LoginButton()
            gr.on(fn=save, inputs=gr.Textbox(), outputs=gr.File(), api_name="save")
        return demo

    app = make(build)
    tab, again, stranger = app.tab(), app.tab(), app.tab()
    for each in (tab, again):
        for cookie in logged_in(each):
            each.client.cookies.set("session", cookie)
        each.load()
    stranger.load()

    file = tab.call("save", "note.txt")

    assert owner_of(app) == "ada"
    assert again.fetch(file).is_success, "the same login in another browser"
    assert stranger.fetch(file).status_code == 403


def logged_in(tab: Tab) -> Iterator[str]:
    """Log in, and give the cookie, which is for https only."""
    answer = tab.client.get(tab.url + "/login/callback", follow_redirects=False)
    yield from re.findall(r"session=([^;]+)", answer.headers["set-cookie"])
