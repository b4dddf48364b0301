import os
import shutil

import gradio as gr
from PIL import Image

with gr.Blocks() as demo:
    picture = gr.Image(format="png")
    gr.Button("Draw").click(lambda: Image.new("RGB", (8, 8), "khaki"), None, picture)
    gr.Button("Clean").click(
        lambda: shutil.rmtree(os.environ["GRADIO_TEMP_DIR"], ignore_errors=True), None, None
    )

demo.launch()
