"""The hooks in Gradio, by their behaviour: a function may keep its name and change its meaning.

``compat.check`` compares names and parameters. These tests send what a page and an MCP client send
to a toy app. ``make gradio5`` and ``make gradio-next`` run them with other versions of Gradio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    LINGER,
    Heard,
    MakeReplicas,
    Replica,
    replicas,
    until,
)
from tests.support.mcp_client import mcp_session

pytestmark = GRADIO_S_OWN


def write(text: str) -> str:
    """Write a file.

    Args:
        text: The content of the file.
    """
    path = Path("written.txt")
    path.write_text(text)
    return str(path)


def copied(path: str) -> str:
    copy = Path(f"copy of {Path(path).name}")
    copy.write_bytes(Path(path).read_bytes())
    return str(copy)


def copied_each(paths: list[str]) -> list[list[str]]:
    return [[copied(path) for path in paths]]


def toy() -> gr.Blocks:
    cached = gr.cache(write) if hasattr(gr, "cache") else write
    demo: gr.Blocks
    with gr.Blocks() as demo:
        text, file, shown = gr.Textbox(), gr.File(), gr.File()
        gr.on(fn=write, inputs=text, outputs=shown, api_name="write")
        gr.on(fn=cached, inputs=text, outputs=shown, api_name="cached")
        gr.on(fn=copied, inputs=file, outputs=shown, api_name="copied")
        gr.on(fn=copied_each, inputs=file, outputs=shown, batch=True, api_name="copied_each")
    return demo


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeReplicas]:
    monkeypatch.chdir(tmp_path)
    with replicas(tmp_path) as make:
        yield make


@pytest.fixture
def app(make: MakeReplicas) -> Replica:
    return make(toy)


def sessions(app: Replica) -> set[str]:
    """The ids of the visitors that have files."""
    return {each.id for each in app.store.sessions()}


def later(app: Replica, time: timedelta) -> None:
    app.clock.advance(time)
    app.store.sweep()


def test_a_closed_heartbeat_ends_the_session(app: Replica) -> None:
    tab = app.tab().load()
    heard = Heard(app.store, "ended")
    tab.call("write", "mine")

    tab.close()
    ended = heard.next()
    later(app, LINGER)

    assert ended.session_id == tab.session_hash
    until(lambda: tab.session_hash not in sessions(app))  # its timer may be about to drop it


def test_a_heartbeat_that_reopens_resumes_the_session(app: Replica) -> None:
    tab = app.tab().load()
    heard = Heard(app.store, "ended", "resumed")
    file = tab.call("write", "mine")

    tab.close()
    heard.next()
    tab.beat()
    resumed = heard.next()
    later(app, 2 * LINGER)

    assert resumed.session_id == tab.session_hash
    assert tab.fetch(file).text == "mine"


def test_a_page_opens_a_heartbeat(app: Replica) -> None:
    assert app.tab().get("/config").json()["connect_heartbeat"]


def test_an_output_is_its_visitor_s(app: Replica) -> None:
    tab, other = app.tab().load(), app.tab().load()

    file = tab.call("write", "mine")

    assert tab.fetch(file).text == "mine"
    assert other.fetch(file).status_code == 403


def test_an_upload_waits_for_an_event_and_is_then_of_the_session(app: Replica) -> None:
    tab = app.tab().load()
    upload = tab.upload("note.txt", b"uploaded")
    before = sessions(app)

    app.lose_disk()
    answer = tab.call("copied", upload)

    assert tab.session_hash not in before
    assert tab.fetch(answer).text == "uploaded"
    assert tab.session_hash in sessions(app)


@pytest.mark.skipif(not hasattr(gr, "cache"), reason="this Gradio has no gr.cache")
def test_a_cached_hit_gives_a_second_visitor_the_file(app: Replica) -> None:
    tabs = [app.tab().load() for _ in range(2)]

    files = [tab.call("cached", "once") for tab in tabs]

    assert [tab.fetch(file).text for tab, file in zip(tabs, files, strict=True)] == ["once"] * 2


def test_each_sample_of_a_batch_has_its_own_owner(app: Replica) -> None:
    tabs = [app.tab().load() for _ in range(2)]
    files = [tab.upload(f"{n}.txt", f"of {n}".encode()) for n, tab in enumerate(tabs)]

    for tab, file in zip(tabs, files, strict=True):
        tab.join("copied_each", file)
    answers = [tab.result() for tab in tabs]

    fetched = [tab.fetch(answer).text for tab, answer in zip(tabs, answers, strict=True)]
    assert fetched == ["of 0", "of 1"]
    assert tabs[0].fetch(answers[1]).status_code == 403


# mcp 1.10, which Gradio 5 wants, leaves streams open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_event_of_an_mcp_client_has_a_session(make: MakeReplicas) -> None:
    app = make(toy, mcp_server=True)

    result = asyncio.run(tool_result(app.url, "write", text="for an agent"))

    assert "written.txt" in result
    stored = [file.read() for each in app.store.sessions() for file in kept(each)]
    assert stored == [b"for an agent"]


def kept(session: Any) -> list[Any]:
    """The files of a session that Gradio moved."""
    backend = session.store.backend
    return [backend.open(session.sid, file) for file in backend.files(session.sid)]


async def tool_result(url: str, tool: str, **arguments: str) -> str:
    """Call the tool that ends with this name, and return the text of its result."""
    async with mcp_session(url) as client:
        names = [each.name for each in (await client.list_tools()).tools]
        (name,) = (each for each in names if each.endswith(tool))
        result = await client.call_tool(name, arguments)
        return str(result.content)
