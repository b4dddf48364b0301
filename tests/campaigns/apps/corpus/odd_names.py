#: documented named: a link to a file has a name that is safe on every disk (no dot in front)
import tempfile
from pathlib import Path

import gradio as gr

NAMES = ("with space & #1?.txt", "ünïcödé ∂.txt", "a" * 200 + ".txt", "no_suffix", ".hidden")


def named():
    folder = Path(tempfile.mkdtemp())
    for name in NAMES:
        (folder / name).write_text("named")
    return [str(folder / name) for name in NAMES]


with gr.Blocks() as demo:
    gr.Button("Make").click(named, None, gr.Files())

demo.launch()
