"""Whatever component a file goes through, and however a handler returns it: any replica has it."""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from sessionstore import StoredFile
from sessionstore.adapters.gradio import session
from tests.support.gradio_rig import GRADIO_S_OWN, MakeReplicas, Replica, Tab, replicas
from tests.support.stores import store_of

pytestmark = GRADIO_S_OWN


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas for all tests of outputs."""
    with replicas(tmp_path_factory.mktemp("pair")) as make:
        yield make(lambda: demo_of(MADE | RETURNED)), make(lambda: demo_of(MADE | RETURNED))


def files_in(value: Any) -> list[dict[str, Any]]:
    """All files in an answer."""
    if isinstance(value, dict) and isinstance(value.get("path"), str) and "url" in value:
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [file for each in parts for file in files_in(each)]


def served_elsewhere(a: Replica, b: Replica, tab: Tab, answer: Any) -> list[bytes]:
    """What the other replica serves of an answer's files, from an empty disk."""
    a.lose_disk()
    files = files_in(answer)
    assert files
    return [b.same(tab).fetch(file).raise_for_status().content for file in files]


# What components make of what handlers return


def an_array(_: str) -> Any:
    return np.full((4, 4, 3), 200, np.uint8)


def a_picture(_: str) -> Any:
    return Image.new("RGB", (4, 4), "red")


def pictures(_: str) -> Any:
    return [a_picture(""), (an_array(""), "with a caption")]


def sound(_: str) -> Any:
    return 8000, np.zeros(800, np.int16)


def an_outside_file(_: str) -> Any:
    return __file__


def outside_files(_: str) -> Any:
    return [an_outside_file(""), an_outside_file("")]


def said(content: Any) -> gr.ChatMessage:
    return gr.ChatMessage(role="assistant", content=content)


def talk(_: str) -> Any:
    path = an_outside_file("")
    return [
        {"role": "user", "content": {"path": path}},
        {"role": "assistant", "content": gr.File(path)},
        said({"path": path}),
    ]


def an_update(_: str) -> Any:
    return gr.Image(value=a_picture(""), label="new")


def an_old_update(_: str) -> Any:
    return gr.update(value=an_outside_file(""))


MADE: dict[Any, Any] = {
    an_array: gr.Image,
    a_picture: gr.Image,
    pictures: gr.Gallery,
    sound: gr.Audio,
    an_outside_file: gr.File,
    outside_files: lambda: gr.File(file_count="multiple"),
    talk: lambda: gr.Chatbot(**chat()),
    an_update: gr.Image,
    an_old_update: gr.DownloadButton,
}


def chat() -> dict[str, Any]:
    """Gradio 5 asks which of two formats messages have; 6 knows one."""
    old = gr.__version__.startswith("5.")
    return {"type": "messages", "allow_tags": True} if old else {}


def demo_of(functions: dict[Any, Any]) -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        text = gr.Textbox()
        for fn, component in functions.items():
            gr.on(fn=fn, inputs=text, outputs=component(), api_name=fn.__name__)
    return made


@pytest.mark.parametrize("fn", MADE, ids=lambda fn: fn.__name__)
def test_an_output_is_served_by_any_replica(pair: tuple[Replica, Replica], fn: Any) -> None:
    a, b = pair
    tab = a.tab().load()

    answer = tab.call(fn.__name__, "")

    assert all(served_elsewhere(a, b, tab, answer))


# How a handler may return a stored file


def stored(request: gr.Request) -> StoredFile:
    return session(request).put("stored.txt", b"stored")


def alone(_: str, request: gr.Request) -> Any:
    return stored(request)


async def alone_async(_: str, request: gr.Request) -> Any:
    return await session(request).put_async("stored.txt", b"stored")


def in_a_list(_: str, request: gr.Request) -> Any:
    return [stored(request)]


def with_a_caption(_: str, request: gr.Request) -> Any:
    return [(session(request).put("red.png", a_picture("")), "red")]


def in_a_message(_: str, request: gr.Request) -> Any:
    return [{"role": "assistant", "content": stored(request)}]


def in_a_message_s_dict(_: str, request: gr.Request) -> Any:
    return [{"role": "assistant", "content": {"path": stored(request)}}]


def in_a_chat_message(_: str, request: gr.Request) -> Any:
    return [said(stored(request))]


def in_an_update(_: str, request: gr.Request) -> Any:
    return gr.update(value=stored(request))


def in_a_component(_: str, request: gr.Request) -> Any:
    file: Any = stored(request)
    return gr.File(value=file, label="new")


def in_a_multimodal_box(_: str, request: gr.Request) -> Any:
    return {"text": "look", "files": [stored(request)]}


def for_everyone(_: str, request: gr.Request) -> Any:
    return store_of(session(request)).shared.put("stored.txt", b"stored")


def its_path(_: str, request: gr.Request) -> Any:
    return str(stored(request).local_path())


def each_in_turn(_: str, request: gr.Request) -> Iterator[Any]:
    yield session(request).put("first.txt", b"first")
    yield stored(request)


async def each_in_turn_async(_: str, request: gr.Request) -> AsyncIterator[Any]:
    yield session(request).put("first.txt", b"first")
    yield stored(request)


RETURNED: dict[Any, Any] = {
    alone: gr.File,
    alone_async: gr.File,
    in_a_list: lambda: gr.File(file_count="multiple"),
    with_a_caption: gr.Gallery,
    in_a_message: lambda: gr.Chatbot(**chat()),
    in_a_message_s_dict: lambda: gr.Chatbot(**chat()),
    in_a_chat_message: lambda: gr.Chatbot(**chat()),
    in_an_update: gr.File,
    in_a_component: gr.File,
    in_a_multimodal_box: gr.MultimodalTextbox,
    for_everyone: gr.DownloadButton,
    its_path: gr.File,
    each_in_turn: gr.File,
    each_in_turn_async: gr.File,
}


@pytest.mark.parametrize("fn", RETURNED, ids=lambda fn: fn.__name__)
def test_a_stored_file_goes_wherever_gradio_takes_a_path(
    pair: tuple[Replica, Replica], fn: Any
) -> None:
    a, b = pair
    tab = a.tab().load()

    (content,) = served_elsewhere(a, b, tab, tab.call(fn.__name__, ""))

    assert content == b"stored" or content.startswith(b"\x89PNG")
    stranger = b.tab().load().fetch(files_in(tab.call(fn.__name__, ""))[0])
    assert stranger.status_code == (200 if fn is for_everyone else 403)


def test_a_file_that_was_replaced_is_another_file(make: MakeReplicas) -> None:
    a, b = (make(lambda: demo_of({put_text: gr.File})) for _ in "ab")
    tab = a.tab().load()

    old, new = tab.call("put_text", "old"), tab.call("put_text", "new")
    b.look_again()

    assert old["path"] != new["path"]
    assert b.same(tab).fetch(new).content == b"new"
    assert b.same(tab).fetch(old).status_code == 403


def put_text(text: str, request: gr.Request) -> Any:
    return session(request).put("text.txt", text.encode())


def test_a_deleted_file_is_served_nowhere(make: MakeReplicas) -> None:
    a, b = (make(lambda: demo_of({put_text: gr.File, delete: gr.Textbox})) for _ in "ab")
    tab = a.tab().load()
    file = tab.call("put_text", "text")
    assert b.same(tab).fetch(file).content == b"text"

    tab.call("delete", "text.txt")
    b.look_again()

    assert [each.same(tab).fetch(file).status_code for each in (a, b)] == [403, 403]


def delete(name: str, request: gr.Request) -> Any:
    session(request).delete(name)


def test_a_state_keeps_stored_files(make: MakeReplicas) -> None:
    """What goes into ``gr.State`` is what a handler put there, also beside an output's path."""

    def more(kept: list[StoredFile], request: gr.Request) -> Any:
        kept = [*kept, session(request).add(b"more", ".txt")]
        return kept, kept

    def build() -> gr.Blocks:
        made: gr.Blocks
        with gr.Blocks() as made:
            state = gr.State([])
            files = gr.File(file_count="multiple")
            gr.on(fn=more, inputs=state, outputs=[files, state], api_name="more")
        return made

    a, b = make(build), make(build)
    tab = a.tab().load()

    tab.call("more", None)
    answer = tab.call("more", None)

    assert served_elsewhere(a, b, tab, answer) == [b"more", b"more"]


# Inputs


def read(path: str) -> str:
    return Path(path).read_text()


def read_all(paths: list[str]) -> str:
    return " ".join(Path(path).read_text() for path in paths)


def read_message(message: dict[str, Any]) -> str:
    return " ".join(Path(path).read_text() for path in message["files"])


def size_of_image(image: Image.Image) -> str:
    return str(image.size)


def length_of_sound(sound: tuple[int, Any]) -> str:
    return str(len(sound[1]))


def length_of_history(history: list[Any]) -> str:
    return str(len(history))


def build_inputs() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        answer = gr.Textbox()
        inputs = {
            read: gr.File(),
            read_all: gr.File(file_count="multiple"),
            read_message: gr.MultimodalTextbox(),
            size_of_image: gr.Image(type="pil"),
            length_of_sound: gr.Audio(),
            length_of_history: gr.Chatbot(**chat()),
        }
        for fn, component in inputs.items():
            gr.on(fn=fn, inputs=component, outputs=answer, api_name=fn.__name__)
    return made


def a_wave(directory: Path) -> bytes:
    path = directory / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return path.read_bytes()


def a_png(directory: Path) -> bytes:
    path = directory / "picture.png"
    Image.new("RGB", (5, 7)).save(path)
    return path.read_bytes()


# Gradio leaves the sound files that it reads for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_upload_is_an_input_of_any_replica(make: MakeReplicas, tmp_path: Path) -> None:
    a, b = make(build_inputs), make(build_inputs)
    tab = a.tab().load()
    text = tab.upload("text.txt", b"text")
    picture = tab.upload("picture.png", a_png(tmp_path))
    sound = tab.upload("sound.wav", a_wave(tmp_path))
    content = {"path": text["path"], "meta": text["meta"]}
    message: dict[str, Any] = {"role": "user", "content": {"file": content, "component": "file"}}
    if not gr.__version__.startswith("5."):
        message = {"role": "user", "content": [{"type": "file", "file": content}]}
    a.lose_disk()
    other = b.same(tab)

    answers = [
        other.call("read", text),
        other.call("read_all", [text, text]),
        other.call("read_message", {"text": "", "files": [text]}),
        other.call("size_of_image", picture),
        other.call("length_of_sound", sound),
    ]

    assert answers == ["text", "text text", "text", "(5, 7)", "800"]
    assert other.call("length_of_history", [message]) == "1"
