"""An attached app's files are in the store: any replica has them, also on an empty disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from sessionstore.adapters.gradio import session
from tests.support.gradio_rig import GRADIO_S_OWN, LINGER, Heard, MakeReplicas, replicas

pytestmark = GRADIO_S_OWN


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def size_of(path: str) -> str:
    return str(Path(path).stat().st_size)


def upper(path: str, request: gr.Request) -> Any:
    return session(request).put("upper.txt", Path(path).read_bytes().upper())


def echo(path: str) -> str:
    return path


def copied(path: str) -> str:
    target = Path(path).with_name("copy.txt")
    shutil.copy(path, target)
    return str(target)


def demo() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        file, text = gr.File(), gr.Textbox()
        gr.on(fn=size_of, inputs=file, outputs=text, api_name="size_of")
        for fn in (upper, echo, copied):
            gr.on(fn=fn, inputs=file, outputs=gr.File(), api_name=fn.__name__)
    return made


def test_any_replica_takes_an_upload_runs_the_event_and_serves_the_result(
    make: MakeReplicas,
) -> None:
    a, b = make(demo), make(demo)
    tab = a.tab().load()

    upload = tab.upload("note.txt", b"hello")
    a.lose_disk()
    size = b.same(tab).call("size_of", upload)
    b.lose_disk()
    result = b.same(tab).call("upper", upload)
    b.lose_disk()

    assert size == "5"
    assert a.same(tab).fetch(result).content == b"HELLO"
    assert a.same(tab).fetch(upload).content == b"hello"
    assert b.same(tab).fetch(upload).content == b"hello"


def test_a_file_that_was_made_in_the_cache_is_served_by_the_other(make: MakeReplicas) -> None:
    a, b = make(demo), make(demo)
    tab = a.tab().load()

    made = tab.call("copied", tab.upload("note.txt", b"hello"))
    a.lose_disk()

    assert b.same(tab).fetch(made).content == b"hello"


def test_what_went_with_the_page_is_served_nowhere(make: MakeReplicas) -> None:
    a, b = make(demo), make(demo)
    heard = Heard(a.store, "ended", "dropped")
    heard.listen(b.store, "dropped")
    tab = a.tab().load()
    upload = tab.upload("note.txt", b"hello")
    result = tab.call("upper", upload)
    files = [upload, result]
    before = [site.same(tab).fetch(file).status_code for site in (a, b) for file in files]

    tab.close()
    heard.next()
    a.clock.advance(LINGER)
    heard.next()
    for site in (a, b):
        site.look_again()
    after = [site.same(tab).fetch(file).status_code for site in (a, b) for file in files]

    assert before == [200] * 4
    assert after == [403] * 4


def test_another_visitor_has_nothing_of_it(make: MakeReplicas) -> None:
    a, b = make(demo), make(demo)
    tab = a.tab().load()
    upload = tab.upload("note.txt", b"hello")
    result = tab.call("upper", upload)

    others = [a.tab().load(), b.tab().load(), a.tab(), b.tab(session_hash=tab.session_hash)]
    seen = [each.fetch(file).status_code for each in others for file in (upload, result)]

    assert seen == [403] * 8
    with pytest.raises(RuntimeError):
        others[0].call("size_of", upload)
    assert tab.fetch(upload).status_code == 200
