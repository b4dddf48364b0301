import tempfile
from pathlib import Path

import gradio as gr


def steps(text):
    for number in range(3):
        path = Path(tempfile.mkdtemp()) / f"step{number}.txt"
        path.write_text(text * number)
        yield str(path)


gr.Interface(steps, gr.Textbox("go"), gr.File()).launch()
