import os
from pathlib import Path

import gradio as gr


def rows():
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / "cells" / "cell.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in a cell")
    return [["cell", f'<a href="/gradio_api/file={path}">open</a>']]


with gr.Blocks() as demo:
    table = gr.Dataframe(headers=["name", "link"], datatype=["str", "html"])
    demo.load(rows, None, table)

demo.launch()
