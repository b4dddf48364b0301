import os
from pathlib import Path

import gradio as gr


def written(text):
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / "notes" / "linked.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return f"[the notes](/gradio_api/file={path})"


gr.Interface(written, gr.Textbox("some notes"), gr.Markdown()).launch()
