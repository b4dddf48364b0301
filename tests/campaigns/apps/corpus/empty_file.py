import tempfile
from pathlib import Path

import gradio as gr


def nothing():
    path = Path(tempfile.mkdtemp()) / "empty.txt"
    path.touch()
    return str(path)


with gr.Blocks() as demo:
    gr.Button("Make").click(nothing, None, gr.File())

demo.launch()
