"""A chat with files, whose events any replica gets: a plain ``gr.ChatInterface``.

STATE=1 keeps ``gr.State`` in the store, and lets a new page go on with the conversation.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr

from sessionstore import SessionStore
from sessionstore.adapters.gradio import attach, resumed, session
from tests.replicas.app import SWEEP_EVERY, paths
from tests.support.patience import be_patient


def answer(
    message: dict[str, Any], history: list[dict[str, Any]], request: gr.Request
) -> dict[str, Any]:
    """How many bytes came with this message and with those before, and a file to keep."""
    came = b"".join(Path(path).read_bytes() for path in message["files"])
    before = sum(len(Path(path).read_bytes()) for path in paths(history))
    file = session(request).add(came[::-1], ".txt")
    return {"text": f"{len(came)} bytes, {before} before", "files": [file]}


def build(*, resume: bool) -> gr.Blocks:
    chat = gr.ChatInterface(
        answer,
        multimodal=True,
        chatbot=gr.Chatbot(elem_id="chat", height=4000),
        textbox=gr.MultimodalTextbox(elem_id="chat-in"),
    )

    def back(request: gr.Request) -> Any:
        before = resumed(request)
        return [] if before is None else before.value(chat.chatbot_state, [])

    if resume:
        with chat:
            chat.load(back, None, chat.chatbot)
    return chat


def main() -> None:
    state = os.environ.get("STATE") == "1"
    demo = build(resume=state)
    resume = timedelta(hours=1) if state else None
    attach(demo, SessionStore.open(), sweep_every=SWEEP_EVERY, state=state, resume=resume)
    be_patient()
    demo.launch(quiet=True)


if __name__ == "__main__":
    main()
