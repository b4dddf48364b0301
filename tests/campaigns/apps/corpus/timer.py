import tempfile
from pathlib import Path

import gradio as gr


def tick():
    path = Path(tempfile.mkdtemp()) / "tick.txt"
    path.write_text("tick")
    return str(path)


with gr.Blocks() as demo:
    gr.Timer(5).tick(tick, None, gr.File())

demo.launch()
