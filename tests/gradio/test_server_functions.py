"""Files of the functions that a page's script calls, as in ``gr.Workflow`` and ``gr.HTML``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from sessionstore.adapters.gradio import session
from sessionstore.testing import Fault, FaultyBackend, on
from tests.gradio.test_visitor_errors import SENTENCE, down
from tests.support.gradio_rig import GRADIO_S_OWN, MakeReplicas, Replica, Tab, replicas

pytestmark = [
    GRADIO_S_OWN,
    pytest.mark.skipif(not hasattr(gr, "WorkflowCanvas"), reason="Gradio 5 has no such gr.HTML"),
]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def cache() -> Path:
    return Path(gr.utils.get_upload_folder())


def written(text: str) -> str:
    """Write a file, and return a text in JSON with its URL, as the functions of Workflow do."""
    path = cache() / f"made_{text}.txt"
    path.write_text(text)
    return json.dumps([{"path": str(path), "url": f"/gradio_api/file={path}"}])


def linked(path: str) -> str:
    return f'<a href="/gradio_api/file={path}">'


def read(url: str) -> str:
    path = Path(url.removeprefix("/gradio_api/file="))
    return path.read_text() if path.is_file() else "no file"


def saved(text: str, request: gr.Request) -> str:
    return session(request).put("saved.txt", text.encode()).session_id


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        gr.HTML("<p>", server_functions=[written, linked, read, saved])
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.File(), api_name="echo")
    return made


def called(tab: Tab, name: str, argument: Any) -> httpx.Response:
    config = tab.client.get(f"{tab.url}/config").json()
    number = next(
        each["id"] for each in config["components"] if each["props"].get("server_fns") or
        each.get("server_fns")
    )  # fmt: skip
    body = {
        "session_hash": tab.session_hash,
        "component_id": number,
        "fn_name": name,
        "data": argument,
    }
    return tab.client.post(tab.api("component_server"), json=body)


def file_of(answer: httpx.Response) -> Any:
    return json.loads(answer.raise_for_status().json())[0]


def drop(replica: Replica, tab: Tab) -> None:
    for each in replica.store.sessions():
        if each.id == tab.session_hash:
            each.drop()
    replica.look_again()


def test_a_file_that_a_function_wrote_is_its_visitor_s(make: MakeReplicas) -> None:
    replica = make(build)
    tab, other = replica.tab().load(), replica.tab().load()
    file = file_of(called(tab, "written", "note"))

    assert tab.fetch(file).text == "note"
    assert other.fetch(file).status_code == 403


def test_it_is_in_the_store_and_goes_with_its_visitor(make: MakeReplicas) -> None:
    replica = make(build)
    tab = replica.tab().load()
    file = file_of(called(tab, "written", "note"))
    replica.lose_disk()
    kept = tab.fetch(file).text
    drop(replica, tab)

    assert kept == "note"
    assert tab.fetch(file).status_code == 403


def test_the_path_of_another_s_file_gives_no_access(make: MakeReplicas) -> None:
    replica = make(build)
    tab, other = replica.tab().load(), replica.tab().load()
    file = file_of(called(tab, "written", "note"))
    called(other, "linked", file["path"]).raise_for_status()

    assert other.fetch(file).status_code == 403


def test_a_function_reads_an_upload_that_is_not_on_the_disk(make: MakeReplicas) -> None:
    replica = make(build)
    tab = replica.tab().load()
    upload = tab.upload("note.txt", b"uploaded")
    replica.lose_disk()

    assert called(tab, "read", f"/gradio_api/file={upload['path']}").json() == "uploaded"


def test_the_session_of_the_caller_is_known(make: MakeReplicas) -> None:
    replica = make(build)
    tab = replica.tab().load()

    assert called(tab, "saved", "text").json() == tab.session_hash
    assert [each.id for each in replica.store.sessions() if each.owner] == [tab.session_hash]


def test_a_call_without_a_session_id_works_as_in_plain_gradio(make: MakeReplicas) -> None:
    replica = make(build)
    tab = replica.tab().load()
    tab.session_hash = ""
    file = file_of(called(tab, "written", "note"))

    assert tab.fetch(file).text == "note"


def test_a_file_that_cannot_be_saved_is_answered_with_the_sentence(make: MakeReplicas) -> None:
    replica = make(build)
    tab = replica.tab().load()
    replica.store.wrap(lambda backend: FaultyBackend(backend, on("put", Fault(down))))
    answer = called(tab, "written", "note")

    assert (answer.status_code, answer.text) == (503, SENTENCE)
