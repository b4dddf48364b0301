import tempfile
from pathlib import Path

import gradio as gr


@gr.cache
def written(text):
    path = Path(tempfile.mkdtemp()) / "cached.txt"
    path.write_text(text)
    return str(path)


gr.Interface(written, gr.Textbox("once"), gr.File()).launch()
