"""A complete app for any platform. ``uvicorn app:app`` serves it, with a health check."""

from __future__ import annotations

import os
import socket

import gradio as gr
from fastapi import FastAPI

from sessionstore import SessionStore, StoredFile
from sessionstore.adapters.gradio import attach, session

store = SessionStore.open()  # SESSIONSTORE_URL and the other variables of the environment
REPLICA = os.environ.get("HOSTNAME") or socket.gethostname()


def shout(text: str, request: gr.Request) -> tuple[StoredFile, str]:
    """Save the text in capitals; return the file and the name of this replica."""
    return session(request).put("shout.txt", text.upper().encode()), REPLICA


demo = gr.Interface(
    shout,
    gr.Textbox(label="Text"),
    [gr.File(label="Your file"), gr.Textbox(label="Made by replica")],
    title="Shout",
    api_name="shout",
    flagging_mode="never",
)
attach(demo, store)

server = FastAPI()


@server.get("/healthz")
def healthy() -> str:
    """Answer the probes of the platform. It does not call the bucket, on purpose."""
    return "ok"


app = gr.mount_gradio_app(server, demo, path="/")
