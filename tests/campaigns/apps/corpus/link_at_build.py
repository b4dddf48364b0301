import os
from pathlib import Path

import gradio as gr

path = Path(os.environ["GRADIO_TEMP_DIR"]) / "built" / "logo.txt"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text("a logo")

with gr.Blocks() as demo:
    gr.HTML(f'<a href="/gradio_api/file={path}">logo</a>')

demo.launch()
