import functools
import tempfile
from pathlib import Path

import gradio as gr


@functools.lru_cache
def written(text):
    path = Path(tempfile.mkdtemp()) / "result.txt"
    path.write_text(text)
    return str(path)


gr.Interface(written, gr.Textbox("kept"), gr.File()).launch()
