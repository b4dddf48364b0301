import tempfile
from pathlib import Path

import gradio as gr


def write(text: str):
    """Write a file."""
    path = Path(tempfile.mkdtemp()) / "written.txt"
    path.write_text(text)
    return str(path)


gr.Interface(write, gr.Textbox("words"), gr.File(), api_name="write").launch(mcp_server=True)
