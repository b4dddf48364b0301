import tempfile
from pathlib import Path

import gradio as gr


def linked(text):
    folder = Path(tempfile.mkdtemp())
    (folder / "real.txt").write_text(text)
    (folder / "link.txt").symlink_to("real.txt")
    return str(folder / "link.txt")


gr.Interface(linked, gr.Textbox("real"), gr.File()).launch()
