"""The clean-up demo, and beside it the administrator's view of its store, behind a login.

Set SESSIONSTORE_URL to the place (a directory will do), run it, and open both addresses: images
that visitors make in the one appear in the other, and go.
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
# A local disk is quick to look at, so an open page may look every few seconds.
admin = dashboard(store, every=timedelta(seconds=5))
app = gr.mount_gradio_app(app, admin, path="/admin", auth=("admin", PASSWORD))
app = gr.mount_gradio_app(app, demo, path="")

if __name__ == "__main__":
    print(f"* Demo:      http://127.0.0.1:{PORT}")
    print(f"* Dashboard: http://127.0.0.1:{PORT}/admin/  (admin / {PASSWORD})", flush=True)
    # An open page holds a connection; without the bound a server would wait for it to the end.
    uvicorn.run(app, port=PORT, log_level="warning", timeout_graceful_shutdown=5)
