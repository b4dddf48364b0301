"""The clean-up demo together with the administrator's dashboard of its store, behind a login.

Set SESSIONSTORE_URL (a directory is enough), run it, and open both addresses: the dashboard shows
the images that visitors generate in the demo, and their deletion.
"""

from __future__ import annotations

import os
import secrets
from datetime import timedelta

import gradio as gr
import uvicorn
from fastapi import FastAPI
from state_cleanup import demo, store

from sessionstore.adapters.gradio import dashboard

PASSWORD = os.environ.get("DASHBOARD_PASSWORD") or secrets.token_urlsafe(9)
PORT = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))

app = FastAPI()
# Listing a local disk is fast, so an open page may refresh every few seconds.
admin = dashboard(store, every=timedelta(seconds=5))
app = gr.mount_gradio_app(app, admin, path="/admin", auth=("admin", PASSWORD))
app = gr.mount_gradio_app(app, demo, path="")

if __name__ == "__main__":
    print(f"* Demo:      http://127.0.0.1:{PORT}")
    print(f"* Dashboard: http://127.0.0.1:{PORT}/admin/  (admin / {PASSWORD})", flush=True)
    # An open page holds a connection. Without this timeout the server would wait until it closes.
    uvicorn.run(app, port=PORT, log_level="warning", timeout_graceful_shutdown=5)
