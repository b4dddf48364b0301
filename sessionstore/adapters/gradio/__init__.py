"""Attach a store to a Gradio app: each visitor has a session that ends when the page closes."""

from __future__ import annotations

from sessionstore.adapters.gradio.admin.page import dashboard
from sessionstore.adapters.gradio.attachment import Attachment, Resumed, attach, resumed, session
from sessionstore.adapters.gradio.mine.page import my_files

__all__ = ["Attachment", "Resumed", "attach", "dashboard", "my_files", "resumed", "session"]
