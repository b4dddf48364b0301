"""Events that Gradio itself sends: it makes the results of cached examples by its own means.

Eager ones when the app starts; lazy ones within the event of the first visitor who asks for one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec.asyn
import gradio as gr
import pytest

from tests.support.gradio_rig import GRADIO_S_OWN, MakeReplicas, Replica, replicas

pytestmark = GRADIO_S_OWN


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    (tmp_path / "example.txt").write_text("an example")
    fsspec.asyn.get_loop()  # where Gradio makes lazy examples; it runs to the end of the process
    with replicas(tmp_path) as make, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("GRADIO_EXAMPLES_CACHE", str(tmp_path / "examples"))
        yield make


def upper(path: str) -> str:
    made = Path("upper.txt").absolute()
    made.write_text(Path(path).read_text().upper())
    return str(made)


def with_an_example(cache_mode: Any) -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        file, answer = gr.File(), gr.File()
        gr.Examples(
            [["example.txt"]],
            file,
            answer,
            upper,
            cache_examples=True,
            cache_mode=cache_mode,
            api_name="example",
        )
    return made


def pinned(site: Replica) -> bool:
    local = site.attachment.service.files.local
    return any(copy.pins for copy in [*local._copies.values()])


@pytest.mark.parametrize("mode", ["lazy", "eager"])
def test_an_example_is_made_when_local_copies_go_at_once(make: MakeReplicas, mode: str) -> None:
    site = make(partial(with_an_example, mode), options={"keep_local": False})
    tab = site.tab().load()

    first, second = (tab.fetch(tab.call("example", 0)) for _ in range(2))

    assert first.text == second.text == "AN EXAMPLE"
    while pinned(site):  # the answer is there a moment before the server is done with it
        time.sleep(0.01)
