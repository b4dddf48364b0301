"""A chat with files that outlives a refresh, a restart and a replica.

Set SESSIONSTORE_URL (a directory is enough) and run it. Send a few messages with files, refresh the
page, or kill the server and start it again: the conversation goes on, with all its files.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr

from sessionstore import SessionStore
from sessionstore.adapters.gradio import attach, resumed, session


def answer(
    message: dict[str, Any], history: list[dict[str, Any]], request: gr.Request
) -> dict[str, Any]:
    """Return the files of a message in capitals, as files of the visitor's session."""
    mine = session(request)
    files = [mine.add(Path(file).read_bytes().upper(), ".txt") for file in message["files"]]
    turns = sum(each["role"] == "user" for each in history)
    return {"text": f"{len(files)} files in capitals, after {turns} messages.", "files": files}


def back(request: gr.Request) -> list[dict[str, Any]]:
    """Return the conversation that the visitor had before this page, if any."""
    before = resumed(request)
    return [] if before is None else before.value(chat.chatbot_state, [])


chat = gr.ChatInterface(answer, multimodal=True, title="A chat that stays")
with chat:
    chat.load(back, None, chat.chatbot)

attach(chat, SessionStore.open(), state=True, resume=timedelta(hours=12))

if __name__ == "__main__":
    chat.launch()
